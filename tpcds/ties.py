"""Ties: which rows a query's ORDER BY leaves in any order, and which its LIMIT may choose among.

The sort keys of a query need not be among its columns. So the query is rewritten, on DuckDB's own
syntax tree: the keys of the outermost ORDER BY become further columns and the LIMIT goes. The
rows of that wider answer, cut into groups of equal keys, say everything about ties.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tpcds.errors import OracleError

if TYPE_CHECKING:
    import duckdb

__all__ = ["RELATIVE_TOLERANCE", "close", "read_through_ties", "tie_groups", "widen"]

RELATIVE_TOLERANCE = 1e-9

Key = Sequence[Any]


def close(left: float, right: float) -> bool:
    """Whether two floating values count as equal: relative 1e-9; NaN equals NaN, 0.0 equals
    -0.0.
    """
    if left == right:
        return True
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return math.isclose(left, right, rel_tol=RELATIVE_TOLERANCE)


def tied(left: Key, right: Key, *, loose: bool) -> bool:
    """Whether two neighbouring rows with these sort keys may stand in either order.

    Equal keys tie. Floating keys that differ by less than the tolerance do too: whichever is
    smaller is a matter of the order of summation, and the keys after them no longer decide. With
    `loose` this holds also for floating keys that are exactly equal in this answer, as they need
    not be so in another that is just as right.
    """
    for a, b in zip(left, right, strict=True):
        if isinstance(a, float) and isinstance(b, float):
            if not close(a, b):
                return False
            if a != b or loose:
                return True
        elif a != b:
            return False
    return True


def tie_groups(keys: Sequence[Key], *, loose: bool) -> Iterator[tuple[int, int]]:
    """Ranges ``[start, stop)`` of rows that tie, in order; chains of near-equal keys are one
    range.
    """
    start = 0
    for row in range(1, len(keys) + 1):
        if row == len(keys) or not tied(keys[row - 1], keys[row], loose=loose):
            yield start, row
            start = row


def widen(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[str, int]:
    """The query without its LIMIT and with its sort keys as last columns, and their number.

    Raises
    ------
    OracleError
        If DuckDB cannot parse the query.
    """
    serialized = connection.execute("select json_serialize_sql(?)", [sql]).fetchone()
    assert serialized is not None
    tree = json.loads(serialized[0])
    if tree.get("error"):
        raise OracleError(f"DuckDB cannot parse the query: {tree.get('error_message', '')}")
    node = tree["statements"][0]["node"]
    select: list[dict[str, Any]] = node.get("select_list", [])
    orders: list[dict[str, Any]] = []
    kept = []
    for modifier in node["modifiers"]:
        if modifier["type"] == "ORDER_MODIFIER":
            orders = modifier["orders"]
        if modifier["type"] not in ("LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"):
            kept.append(modifier)
    node["modifiers"] = kept
    aliases = {item["alias"].lower(): item for item in select if item.get("alias")}
    if any(item["class"] == "STAR" for item in select):
        described = connection.execute(f"select column_name from (describe {sql})").fetchall()
        places = [_column(str(name)) for (name,) in described]
    else:
        places = select
    keys = [_resolve(order["expression"], places, aliases) for order in orders]
    for number, key in enumerate(keys):
        key["alias"] = f"__sort_key_{number}"
    node["select_list"] = [*select, *keys]
    rewritten = connection.execute("select json_deserialize_sql(?)", [json.dumps(tree)]).fetchone()
    assert rewritten is not None
    return str(rewritten[0]), len(keys)


def _column(name: str) -> dict[str, Any]:
    return {
        "class": "COLUMN_REF",
        "type": "COLUMN_REF",
        "alias": "",
        "column_names": [name],
    }


def _resolve(
    expression: dict[str, Any], places: list[dict[str, Any]], aliases: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What an ORDER BY expression means as a column: positions and aliases give what they
    name.
    """
    if expression["class"] == "CONSTANT":
        position = expression["value"]["value"]
        if isinstance(position, int) and 1 <= position <= len(places):
            return copy.deepcopy(places[position - 1])
    resolved = _substitute(expression, aliases)
    assert isinstance(resolved, dict)
    return resolved


def _substitute(part: Any, aliases: dict[str, dict[str, Any]]) -> Any:
    if isinstance(part, list):
        return [_substitute(item, aliases) for item in part]
    if not isinstance(part, dict):
        return part
    names = part.get("column_names")
    if part.get("class") == "COLUMN_REF" and names and len(names) == 1:
        named = aliases.get(str(names[0]).lower())
        if named is not None:
            return {**copy.deepcopy(named), "alias": ""}
    return {key: _substitute(value, aliases) for key, value in part.items()}


def read_through_ties(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int, keys: int
) -> pa.Table:
    """The first `rows` rows of a widened answer and all that tie with the last of them.

    Parameters
    ----------
    batches
        The answer in its order; read no further than necessary.
    schema
        Its schema, for the case that there are no batches.
    rows
        How many rows the LIMIT lets through.
    keys
        Number of sort-key columns at the end; with 0 all rows tie.
    """
    taken: list[pa.RecordBatch] = []
    seen = 0
    last: Key | None = None
    for batch in batches:
        if keys == 0 or seen + batch.num_rows <= rows:
            taken.append(batch)
            seen += batch.num_rows
            if keys and seen == rows and batch.num_rows:
                last = _keys(batch, batch.num_rows - 1, keys)[0]
            continue
        start = max(rows - seen, 0)
        here = _keys(batch, max(start - 1, 0), keys)
        if last is None and start == 0:  # a LIMIT of nothing: nothing can tie with it
            break
        chain = here if last is None else [last, *here]
        length = next(
            (n for n, (a, b) in enumerate(itertools.pairwise(chain)) if not tied(a, b, loose=True)),
            None,
        )
        if length is not None:
            taken.append(batch.slice(0, max(start - 1, 0) + length + (last is None)))
            break
        taken.append(batch)
        seen += batch.num_rows
        last = chain[-1]
    return pa.Table.from_batches(taken, schema=schema)


def _keys(batch: pa.RecordBatch, start: int, keys: int) -> list[tuple[Any, ...]]:
    columns = [column.slice(start).to_pylist() for column in batch.columns[-keys:]]
    return list(zip(*columns, strict=True))
