"""How frames look: their columns, who computes them and where their rows come from."""

from __future__ import annotations

from html import escape
from typing import Any

from operators.rel import InputSource, ParquetSource, Rel, Scan, walk

__all__ = ["as_html", "as_text"]

_MOST_COLUMNS = 40


def as_text(plan: Rel, executor: Any) -> str:
    """Columns, one a line, and the origin of the rows; nothing is computed."""
    fields = [(f.name, str(f.type)) for f in plan.schema]
    shown = fields[:_MOST_COLUMNS]
    longest = max((len(n) for n, _ in shown), default=0)
    lines = [f"  {name:<{longest}}  {type}" for name, type in shown]
    if len(fields) > len(shown):
        lines.append(f"  … {len(fields) - len(shown)} more")
    columns = "1 column" if len(fields) == 1 else f"{len(fields)} columns"
    head = f"RemoteFrame of {columns}, computed {_place(executor)}"
    return "\n".join([head, *lines, f"from {', '.join(_origins(plan)) or 'constants'}"])


def as_html(plan: Rel, executor: Any) -> str:
    """The same as a table for notebooks."""
    rows = "".join(
        f"<tr><th>{escape(f.name)}</th><td>{escape(str(f.type))}</td></tr>" for f in plan.schema
    )
    origin = escape(", ".join(_origins(plan)) or "constants")
    return (
        f"<table><caption>RemoteFrame, computed {escape(_place(executor))}<br>from {origin}"
        f"</caption><tbody>{rows}</tbody></table>"
    )


def _place(executor: Any) -> str:
    return str(getattr(executor, "place", f"by {type(executor).__name__}"))


def _origins(plan: Rel) -> list[str]:
    """What the scans of a plan read, each once."""
    found: dict[str, None] = {}
    for rel in walk(plan):
        if isinstance(rel, Scan):
            found[_origin(rel)] = None
    return list(found)


def _origin(scan: Scan) -> str:
    match scan.source:
        case ParquetSource(table=table, paths=paths):
            files = "1 file" if len(paths) == 1 else f"{len(paths)} files"
            return f"{table} (Parquet, {files})"
        case InputSource(name=name):
            data = getattr(scan.source, "data", None)
            if data is None:
                return f"input {name}"
            return str(getattr(data, "origin", "memory elements"))
    return type(scan.source).__name__
