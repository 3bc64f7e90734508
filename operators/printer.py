"""Plans as indented text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from operators.duckdb.expressions import Writer
from operators.duckdb.sqltypes import identifier
from operators.expr import Expr
from operators.rel import (
    Aggregation,
    Filter,
    InputSource,
    Join,
    Leading,
    Limit,
    ParquetSource,
    Project,
    Query,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Source,
    Values,
)
from operators.schema import Schema

__all__ = ["format_expr", "format_plan"]


def format_expr(expr: Expr, schema: Schema) -> str:
    """An expression over rows of `schema`, written like SQL."""
    return Writer(_labels(schema), _inline).write(expr)


def format_plan(rel: Rel) -> str:
    """The plan as a tree, one relation per line, parents before inputs."""
    return "\n".join(_lines(rel, 0, set()))


def _labels(schema: Schema) -> list[str]:
    """Names of columns; those that occur more than once carry their position."""
    names = schema.names
    return [
        identifier(n) if names.count(n) == 1 else f"{identifier(n)}#{i}"
        for i, n in enumerate(names)
    ]


def _inline(rel: Rel) -> str:
    return "\n" + "\n".join(_lines(rel, 3, set())) + "\n  "


def _lines(rel: Rel, depth: int, seen: set[int]) -> Iterator[str]:
    again = id(rel) in seen and bool(rel.inputs())
    yield f"{'  ' * depth}{_describe(rel)}{' (as above)' if again else ''}"
    if again:
        return
    seen.add(id(rel))
    for child in rel.inputs():
        yield from _lines(child, depth + 1, seen)


def _listed(exprs: Sequence[Expr], schema: Schema) -> str:
    return ", ".join(format_expr(e, schema) for e in exprs)


def _source(source: Source) -> str:
    match source:
        case ParquetSource(table=table, part=part):
            return table if part is None else f"{table} part {part[0]} of {part[1]}"
        case InputSource(name=name):
            return f"input {name}"
    return repr(source)


def _describe(rel: Rel) -> str:
    match rel:
        case Scan():
            text = f"Scan {_source(rel.source)} [{', '.join(rel.schema.names)}]"
            if rel.predicate is not None:
                text += f" where {format_expr(rel.predicate, rel.source_schema)}"
            return text
        case Values():
            return f"Values {len(rel.rows)} rows [{', '.join(rel.schema.names)}]"
        case Filter():
            return f"Filter {format_expr(rel.predicate, rel.input.schema)}"
        case Project():
            texts = []
            for name, expr in zip(rel.schema.names, rel.exprs, strict=True):
                text = format_expr(expr, rel.input.schema)
                texts.append(text if text == identifier(name) else f"{text} AS {identifier(name)}")
            return f"Project [{', '.join(texts)}]"
        case Join():
            return _join(rel)
        case Aggregation():
            return _aggregation(rel)
        case Sort():
            writer = Writer(_labels(rel.input.schema), _inline)
            return f"Sort {writer.order(rel.keys)}"
        case Leading():
            writer = Writer(_labels(rel.input.schema), _inline)
            text = f"Leading {rel.count} by {writer.order([rel.key])}"
            if rel.partition_by:
                text += f" of each [{_listed(rel.partition_by, rel.input.schema)}]"
            return text
        case Limit():
            count = "all" if rel.count is None else str(rel.count)
            return f"Limit {count}" + (f" offset {rel.offset}" if rel.offset else "")
        case SetOperation():
            return rel.operation.capitalize() + (" all" if rel.all else "")
        case Query():
            return f"Query {' '.join(rel.text.split())} over {', '.join(rel.names)}"
    return type(rel).__name__


def _join(rel: Join) -> str:
    left, right = _labels(rel.left.schema), _labels(rel.right.schema)
    terms = [
        f"{left[a]} {'is' if null else '='} {right[b]}"
        for a, b, null in zip(rel.left_keys, rel.right_keys, rel.null_equal, strict=True)
    ]
    if rel.condition is not None:
        both = Schema(rel.left.schema.fields + rel.right.schema.fields)
        terms.append(format_expr(rel.condition, both))
    text = f"Join {rel.kind}"
    if terms:
        text += f" on {' and '.join(terms)}"
    return text if rel.build is None else f"{text} (build {rel.build})"


def _aggregation(rel: Aggregation) -> str:
    writer = Writer(_labels(rel.input.schema), _inline)
    text = f"Aggregate [{', '.join(writer.aggregate(m) for m in rel.measures)}]"
    if rel.keys:
        text += f" by [{_listed(rel.keys, rel.input.schema)}]"
    if rel.grouping_sets is not None:
        sets = ", ".join("(" + ", ".join(map(str, s)) + ")" for s in rel.grouping_sets)
        text += f" sets [{sets}]"
    return text
