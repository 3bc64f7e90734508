"""Names for stages that tell people what a stage does: `scan_date_dim`, `aggregate_store_sales`,
`top`.
"""

from __future__ import annotations

import re

from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Leading,
    Limit,
    ParquetSource,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
    walk,
)

__all__ = ["describe"]


def describe(rel: Rel) -> str:
    """A short identifier for what `rel` computes, and over which base table."""
    verb = _verb(rel)
    sources = [
        node.source
        for node in walk(rel)
        if isinstance(node, Scan) and isinstance(node.source, ParquetSource)
    ]
    shared = [s for s in sources if s.part is not None]
    name = f"{verb}_{(shared or sources)[0].table}" if sources else verb
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()[:40] or verb


def _verb(rel: Rel) -> str:
    """The topmost operator that says something."""
    while isinstance(rel, (Filter, Leading, Project)):
        rel = rel.input
    match rel:
        case Limit(input=Sort()):
            return "top"
        case Limit():
            return "limit"
        case Sort():
            return "sort"
        case Aggregation():
            return "aggregate"
        case Join():
            return "join"
        case SetOperation(operation=operation):
            return operation
        case Scan(source=source):
            return "scan" if isinstance(source, ParquetSource) else "pass"
    return "compute"
