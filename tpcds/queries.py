"""The 99 queries: their texts, and lists of query numbers as people write them."""

from __future__ import annotations

import re
from functools import cache

from tpcds.errors import QueryListError
from tpcds.extension import load_extension

__all__ = ["ALL_QUERIES", "parse_query_list", "query_text", "query_texts"]

ALL_QUERIES = range(1, 100)

_ITEM = re.compile(r"[qQ]?(\d+)(?:\s*-\s*[qQ]?(\d+))?")


@cache
def query_texts() -> dict[int, str]:
    """Texts of all 99 queries in DuckDB's dialect, with the benchmark's validation parameters.

    Raises
    ------
    TpcdsError
        If the tpcds extension of DuckDB is missing or does not match DuckDB.
    """
    import duckdb

    with duckdb.connect(config={"threads": 1}) as connection:
        load_extension(connection)
        rows = connection.execute("select query_nr, query from tpcds_queries()").fetchall()
    return {int(number): str(text).strip().rstrip(";") for number, text in rows}


def query_text(number: int) -> str:
    """Text of one query.

    Raises
    ------
    QueryListError
        If there is no such query.
    """
    _check(number, str(number))
    return query_texts()[number]


def parse_query_list(text: str) -> list[int]:
    """Numbers that a list such as ``1,16,90-95`` or ``all`` asks for, in its order, each once.

    Raises
    ------
    QueryListError
        If an item is not a number or a range of numbers between 1 and 99.
    """
    if text.strip().lower() == "all":
        return list(ALL_QUERIES)
    numbers: dict[int, None] = {}
    for item in text.split(","):
        match = _ITEM.fullmatch(item.strip())
        if match is None:
            raise QueryListError(
                f"cannot read query list {text!r}: {item.strip()!r} is neither a query number nor "
                "a range; write for example 1,16,90-95 or all"
            )
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        _check(first, item.strip())
        _check(last, item.strip())
        if last < first:
            raise QueryListError(f"query range {item.strip()!r} runs backwards")
        numbers.update(dict.fromkeys(range(first, last + 1)))
    return list(numbers)


def _check(number: int, item: str) -> None:
    if number not in ALL_QUERIES:
        where = f" (in {item!r})" if item != str(number) else ""
        raise QueryListError(f"there is no TPC-DS query {number}{where}; they are numbered 1 to 99")
