"""Random chains of frame calls: the answer is the one that Polars gives.

Polars and SQL differ in some meanings (docs/frames.md); each step is written so that both mean the
same.
"""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import remote_frame
from remote_frame import LocalExecutor, RemoteFrame, col, from_arrow, lit, when

Pair = tuple[RemoteFrame, pl.LazyFrame]

VALUES = {
    "i": st.none() | st.integers(-9, 9),
    "j": st.none() | st.integers(0, 3),
    "f": st.none() | st.sampled_from([-1.5, -0.25, 0.0, 0.5, 1.0, 3.75]),
    "s": st.none() | st.sampled_from(["", "a", "ab", "B", "é", "ab c"]),
    "b": st.none() | st.booleans(),
}
SCHEMA = {"i": pa.int64(), "j": pa.int64(), "f": pa.float64(), "s": pa.string(), "b": pa.bool_()}


@st.composite
def tables(draw: Any) -> pa.Table:
    """A table of every kind of column and a key that tells rows apart."""
    rows = draw(st.integers(0, 12))
    columns = {n: draw(st.lists(v, min_size=rows, max_size=rows)) for n, v in VALUES.items()}
    table = pa.table({n: pa.array(v, SCHEMA[n]) for n, v in columns.items()})
    return table.append_column("id", pa.array(range(rows), pa.int64()))


# Each step takes both frames, whose columns are those of `tables`, and gives them back with them.


def filter_by_value(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    return mine.filter(col("i") > n % 5), theirs.filter(pl.col("i") > n % 5)


def filter_by_mean(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    return (
        mine.filter(col("f") >= col("f").mean()),
        theirs.filter(pl.col("f") >= pl.col("f").mean()),
    )


def arithmetic(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    return (
        mine.with_columns(col("i") * n + col("j"), f=(col("f") - col("i")) / 2),
        theirs.with_columns(pl.col("i") * n + pl.col("j"), f=(pl.col("f") - pl.col("i")) / 2),
    )


def conditional(pair: Pair, n: int) -> Pair:
    mine, theirs = pair

    def of(x: Any) -> Any:
        module = remote_frame if x is col else pl
        chosen = module.when(x("j") > n % 3).then(x("i")).when(x("b")).then(x("j"))
        return chosen.otherwise(module.lit(7)).alias("i")

    return mine.with_columns(of(col)), theirs.with_columns(of(pl.col))


def strings(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    length = n % 3

    def of(x: Any) -> Any:
        return x("s").str.to_uppercase().str.slice(length, 2).fill_null("?")

    def found(x: Any) -> Any:
        return x("s").str.contains("[ab]").fill_null(False).alias("b")

    return mine.with_columns(of(col), found(col)), theirs.with_columns(of(pl.col), found(pl.col))


def windows(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    mine = mine.with_columns(
        f=col("f") - col("f").mean().over("j"),
        i=col("i").shift(n % 4).over("j", order_by="id"),
    )
    theirs = theirs.with_columns(
        f=pl.col("f") - pl.col("f").mean().over("j"),
        i=pl.col("i").shift(n % 4).over("j", order_by="id"),
    )
    return mine, theirs


def ranks(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    method: Any = ("average", "min", "max", "dense")[n % 4]
    return (
        mine.with_columns(f=col("i").rank(method, descending=n > 4).over("b").cast("float64")),
        theirs.with_columns(
            f=pl.col("i").rank(method, descending=n > 4).over("b").cast(pl.Float64)
        ),
    )


def running(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    size = n % 3 + 1
    return (
        mine.with_columns(
            i=col("i").cum_sum().over("j", order_by="id").cast("int64"),
            f=col("f").rolling_mean(size, min_samples=1).over(order_by="id"),
        ),
        theirs.with_columns(
            i=pl.col("i").cum_sum().over("j", order_by="id"),
            f=pl.col("f").rolling_mean(size, min_samples=1).over(pl.lit(1), order_by="id"),
        ),
    )


def groups(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    mine = mine.group_by("j", "b").agg(
        i=col("i").max(),
        f=col("f").filter(col("i") > 0).mean(),
        s=col("s").first(order_by="id"),
        id=col("id").min(),
    )
    theirs = theirs.group_by("j", "b").agg(
        i=pl.col("i").max(),
        f=pl.col("f").filter(pl.col("i") > 0).mean(),
        s=pl.col("s").sort_by("id").first(),
        id=pl.col("id").min(),
    )
    return mine.select(*SCHEMA, "id"), theirs.select(*SCHEMA, "id")


def spread_of_groups(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    mine = mine.group_by("j").agg(
        i=remote_frame.len().cast("int64"),
        f=(col("f") - col("f").mean()).abs().max(),
        s=col("s").max(),
        b=(col("i") > n % 3).any(),
        id=col("id").min(),
    )
    theirs = theirs.group_by("j").agg(
        i=pl.len().cast(pl.Int64),
        f=(pl.col("f") - pl.col("f").mean()).abs().max(),
        s=pl.col("s").max(),
        b=(pl.col("i") > n % 3).any(),
        id=pl.col("id").min(),
    )
    return mine.select(*SCHEMA, "id"), theirs.select(*SCHEMA, "id")


def joined(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    how: Any = ("inner", "left", "semi", "anti")[n % 4]
    some, others = mine.filter(col("id") % 2 == 0), theirs.filter(pl.col("id") % 2 == 0)
    right = some.group_by("j").agg(most=col("i").max())
    theirs_right = others.group_by("j").agg(most=pl.col("i").max())
    equal = n > 4
    mine = mine.join(right, on="j", how=how, nulls_equal=equal)
    theirs = theirs.join(theirs_right, on="j", how=how, nulls_equal=equal)
    if how in ("inner", "left"):
        mine = mine.with_columns(i=col("most")).drop("most")
        theirs = theirs.with_columns(i=pl.col("most")).drop("most")
    return mine, theirs


def asof(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    strategy: Any = ("backward", "forward", "nearest")[n % 3]
    right = mine.filter(col("b")).select("id", k=col("i"))
    theirs_right = theirs.filter(pl.col("b")).select("id", k=pl.col("i")).sort("id")
    tolerance = n if n > 5 else None
    mine = mine.join_asof(right, on="id", strategy=strategy, tolerance=tolerance)
    theirs = theirs.sort("id").join_asof(
        theirs_right, on="id", strategy=strategy, tolerance=tolerance
    )
    return mine.with_columns(i="k").drop("k"), theirs.with_columns(i="k").drop("k")


def top(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    order: Any = {"by": ["f", "id"], "descending": [n > 4, False], "nulls_last": True}
    return mine.sort(**order).head(n), theirs.sort(**order).head(n)


def distinct(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    keep: Any = ("first", "last")[n % 2]
    return (
        mine.unique(["j", "b"], keep=keep, order_by="id"),
        theirs.sort("id").unique(["j", "b"], keep=keep, maintain_order=True),
    )


def lonely(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    return mine.unique("i", keep="none"), theirs.unique("i", keep="none")


def stacked(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    again, others = mine.filter(col("j") == n % 3), theirs.filter(pl.col("j") == n % 3)
    return (
        remote_frame.concat([mine, again.with_columns(col("id") + 100)]),
        pl.concat([theirs, others.with_columns(pl.col("id") + 100)]),
    )


def completed(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    return mine.drop_nulls(["i", "s"]).fill_null(n), theirs.drop_nulls(["i", "s"]).with_columns(
        pl.col("i", "j", "f", "id").fill_null(n)
    )


def numbered(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    return (
        mine.drop("i").with_row_index("i", n, order_by="id").select(*SCHEMA, "id"),
        theirs.drop("i")
        .sort("id")
        .with_row_index("i", n)
        .with_columns(pl.col("i").cast(pl.Int64))
        .select(*SCHEMA, "id"),
    )


def across(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    return (
        mine.with_columns(
            i=remote_frame.max_horizontal("i", "j"),
            f=remote_frame.mean_horizontal("f", "i"),
            s=remote_frame.concat_str("s", "j", separator="-"),
        ),
        theirs.with_columns(
            i=pl.max_horizontal("i", "j"),
            f=pl.mean_horizontal("f", "i"),
            s=pl.concat_str("s", "j", separator="-"),
        ),
    )


def by_statement(pair: Pair, n: int) -> Pair:
    mine, theirs = pair
    text = f"select i + {n} as i, j, f, s, b, id from self where id <> {n}"
    return mine.sql(text), theirs.with_columns(pl.col("i") + n).filter(pl.col("id") != n)


STEPS = [
    *(filter_by_value, filter_by_mean, arithmetic, conditional, strings, windows, ranks),
    *(running, groups, spread_of_groups, joined, asof, top, distinct, lonely, stacked),
    *(completed, numbered, across, by_statement),
]


def normal(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    def value(cell: Any) -> Any:
        if isinstance(cell, bool) or not isinstance(cell, int | float):
            return cell
        return "nan" if math.isnan(cell) else float(f"{cell:.9g}") + 0.0

    return sorted((tuple(map(value, row.values())) for row in rows), key=repr)


@pytest.fixture(scope="module")
def executor() -> Any:
    made = LocalExecutor()
    yield made
    made.close()


def same(executor: Any, table: pa.Table, steps: list[tuple[Any, int]]) -> None:
    mine = RemoteFrame(from_arrow(table).plan, executor)
    theirs = pl.DataFrame(table).lazy()
    for step, n in steps:
        mine, theirs = step((mine, theirs), n)
    expected = theirs.collect()
    found = mine.collect()
    assert found.column_names == expected.columns
    assert normal(found.to_pylist()) == normal(expected.to_dicts())


@pytest.mark.parametrize("step", STEPS, ids=lambda s: s.__name__)
@given(table=tables(), n=st.integers(0, 8))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_every_step(executor: Any, step: Any, table: pa.Table, n: int) -> None:
    same(executor, table, [(step, n)])


@given(
    table=tables(),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 8)), min_size=2, max_size=5),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_chains(executor: Any, table: pa.Table, steps: list[tuple[Any, int]]) -> None:
    same(executor, table, steps)


def test_lit_and_when_are_exported() -> None:
    assert repr(when(col("a")).then(lit(1)).otherwise(lit(2))) == "when(a).then(1).otherwise(2)"
