"""Aggregates that see each value once, over windows; and separators of `string_agg`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest


@pytest.fixture
def tables(differential: Any) -> Any:
    differential.add(
        "t",
        pa.table(
            {
                "g": pa.array([1, 1, 1, 2, 2, 2, None], pa.int32()),
                "v": ["a", "a", "b", None, "c", "c", "a"],
                "n": pa.array([1, 1, None, 5, 5, 6, 7], pa.int64()),
                "f": [1.5, 1.5, 2.5, None, 0.5, 0.5, -0.0],
            }
        ),
    )
    return differential


@pytest.mark.parametrize(
    "call",
    [
        "count(distinct v) over (partition by g)",
        "count(distinct v) over (partition by g order by v)",
        "count(distinct g) over ()",
        "count(distinct 1) over (partition by v)",
        "sum(distinct n) over (order by n)",
        "avg(distinct f) over (partition by g)",
        "min(distinct v) over (partition by g)",
        "length(string_agg(distinct v, '--') over (partition by g))",
        "count(distinct v) over w + count(v) over w",
    ],
)
def test_values_are_seen_once(tables: Any, call: str) -> None:
    window = " window w as (partition by g)" if " w " in call else ""
    tables.check(f"select g, v, n, f, {call} as x from t{window}")


def test_windows_over_groups(tables: Any) -> None:
    tables.check(
        "select g, count(distinct n) c, count(distinct n) over (partition by g) d "
        "from t group by g, n"
    )


@pytest.mark.parametrize("separator", ["", ", ''", ", ','", ", '--'", ", ' '"])
def test_separators(tables: Any, separator: str) -> None:
    tables.check(f"select g, string_agg(v{separator} order by v) s from t group by g")
    tables.check(f"select g, v, string_agg(v{separator}) over (partition by g, v) s from t")
