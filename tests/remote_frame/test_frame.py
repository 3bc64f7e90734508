"""Lazy frames: what operations mean, and what they refuse when they are written down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote_frame import (
    AmbiguousColumnError,
    ColumnNotFoundError,
    ExpressionError,
    FrameError,
    LocalExecutor,
    RemoteFrame,
    col,
    concat,
    count,
    from_arrow,
    join,
    lit,
    when,
)
from remote_frame.pruning import prune

SALES = pa.table(
    {
        "item": pa.array([1, 1, 2, 3, None], pa.int32()),
        "store": ["a", "b", "a", None, "a"],
        "qty": pa.array([5, None, 7, 1, 2], pa.int64()),
        "price": pa.array([Decimal("1.50"), Decimal("2.00"), None, Decimal("4.25"), Decimal("0")],
                          pa.decimal32(7, 2)),
        "day": [dt.date(2020, 1, 31), dt.date(2020, 2, 1), dt.date(2021, 2, 1), None, None],
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def executor() -> Any:
    made = LocalExecutor()
    yield made
    made.close()


@pytest.fixture
def sales(executor: LocalExecutor) -> RemoteFrame:
    return RemoteFrame(from_arrow(SALES).plan, executor)


def rows(frame: RemoteFrame) -> list[tuple[Any, ...]]:
    return [tuple(r.values()) for r in frame.collect().to_pylist()]


def column(sales: RemoteFrame, expr: Any) -> list[Any]:
    return [r[0] for r in rows(sales.select(expr.alias("x")))]


EXPRESSIONS: list[tuple[str, Callable[[], Any], list[Any]]] = [
    ("add", lambda: col("qty") + 1, [6, None, 8, 2, 3]),
    ("radd", lambda: 1 + col("qty"), [6, None, 8, 2, 3]),
    ("rsub", lambda: 10 - col("qty"), [5, None, 3, 9, 8]),
    ("mul", lambda: col("qty") * col("qty"), [25, None, 49, 1, 4]),
    ("div", lambda: col("qty") / 2, [2.5, None, 3.5, 0.5, 1.0]),
    ("rdiv", lambda: 7 / col("qty"), [1.4, None, 1.0, 7.0, 3.5]),
    ("floordiv", lambda: col("qty") // 2, [2, None, 3, 0, 1]),
    ("mod", lambda: col("qty") % 2, [1, None, 1, 1, 0]),
    ("neg", lambda: -col("qty"), [-5, None, -7, -1, -2]),
    ("abs", lambda: (-col("qty")).abs(), [5, None, 7, 1, 2]),
    ("eq", lambda: col("qty") == 5, [True, None, False, False, False]),
    ("ne", lambda: col("qty") != 5, [False, None, True, True, True]),
    ("lt", lambda: col("qty") > 2, [True, None, True, False, False]),
    ("and", lambda: (col("qty") > 1) & (col("item") == 1), [True, None, False, False, None]),
    ("or", lambda: (col("qty") > 6) | (col("item") == 1), [True, True, True, False, None]),
    ("not", lambda: ~(col("qty") > 1), [False, None, False, True, False]),
    ("is_null", lambda: col("qty").is_null(), [False, True, False, False, False]),
    ("is_not_null", lambda: col("qty").is_not_null(), [True, False, True, True, True]),
    ("fill_null", lambda: col("qty").fill_null(0), [5, 0, 7, 1, 2]),
    ("is_in", lambda: col("qty").is_in([5, 2]), [True, None, False, False, True]),
    ("is_in nothing", lambda: col("qty").is_in([]), [False] * 5),
    ("between", lambda: col("qty").between(2, 5), [True, None, False, False, True]),
    ("cast", lambda: col("qty").cast("string"), ["5", None, "7", "1", "2"]),
    ("cast decimal", lambda: col("qty").cast("decimal(9,2)"),
     [Decimal("5.00"), None, Decimal("7.00"), Decimal("1.00"), Decimal("2.00")]),
    ("round", lambda: (col("qty") / 4).round(1), [1.3, None, 1.8, 0.3, 0.5]),
    ("floor", lambda: (col("qty") / 4).floor(), [1.0, None, 1.0, 0.0, 0.0]),
    ("ceil", lambda: (col("qty") / 4).ceil(), [2.0, None, 2.0, 1.0, 1.0]),
    ("upper", lambda: col("store").str.to_uppercase(), ["A", "B", "A", None, "A"]),
    ("like", lambda: col("store").str.like("a%"), [True, False, True, None, True]),
    ("contains", lambda: col("store").str.contains("b"), [False, True, False, None, False]),
    ("starts_with", lambda: col("store").str.starts_with("a"), [True, False, True, None, True]),
    ("ends_with", lambda: col("store").str.ends_with("b"), [False, True, False, None, False]),
    ("slice", lambda: (lit("xyz")).str.slice(1, 1), ["y"] * 5),
    ("len", lambda: col("store").str.len_chars(), [1, 1, 1, None, 1]),
    ("year", lambda: col("day").dt.year(), [2020, 2020, 2021, None, None]),
    ("month", lambda: col("day").dt.month(), [1, 2, 2, None, None]),
    ("when", lambda: when(col("qty") > 5).then(lit("big")).when(col("qty") > 1).then(lit("mid"))
     .otherwise(lit("small")), ["mid", "small", "big", "small", "mid"]),
    ("lit", lambda: lit(3), [3] * 5),
    ("money", lambda: col("price") * 2,
     [Decimal("3.00"), Decimal("4.00"), None, Decimal("8.50"), Decimal("0.00")]),
    ("date", lambda: col("day") >= dt.date(2020, 2, 1), [False, True, True, None, None]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), [e[1:] for e in EXPRESSIONS],
                         ids=[e[0] for e in EXPRESSIONS])  # fmt: skip
def test_expressions(sales: RemoteFrame, make: Callable[[], Any], expected: list[Any]) -> None:
    assert column(sales, make()) == expected


def test_select_and_with_columns(sales: RemoteFrame) -> None:
    assert sales.select("qty", "item").columns == ["qty", "item"]
    assert sales.select("qty", double=col("qty") * 2).columns == ["qty", "double"]
    changed = sales.with_columns(col("qty") * 2, new=col("item") + 1)
    assert changed.columns == [*sales.columns, "new"]
    assert rows(changed.select("qty")) == [(10,), (None,), (14,), (2,), (4,)]
    replaced = sales.with_columns((col("qty") + 1).alias("qty"))
    assert replaced.columns == sales.columns
    assert rows(replaced.select("qty")) == [(6,), (None,), (8,), (2,), (3,)]
    assert sales.rename({"qty": "amount"}).columns == ["item", "store", "amount", "price", "day"]
    assert sales.drop("day", "price").columns == ["item", "store", "qty"]
    assert sales.schema.field("price").type == pa.decimal32(7, 2)


@pytest.mark.parametrize("type", [pa.int8(), pa.int16(), pa.uint8()])
def test_narrow_integers_beside_constants(executor: LocalExecutor, type: pa.DataType) -> None:
    data = from_arrow(pa.table({"a": pa.array([100], type)}), executor)
    frame = data.select(x=col("a") * 2000, y=col("a") + 100, z=col("a") - -100, m=2 * col("a"))
    assert frame.collect().schema == frame.schema
    assert frame.dtypes == [pa.int32()] * 4
    assert rows(frame) == [(200_000, 200, 200, 200)]


@pytest.mark.parametrize("number", [1.5, "2", True, None, -1])
def test_numbers_of_rows_are_whole(sales: RemoteFrame, number: Any) -> None:
    ordered = sales.sort("day")
    for cut in (sales.head, sales.limit, ordered.tail, sales.slice):
        if cut == sales.slice and number == -1:
            continue
        with pytest.raises(ExpressionError, match=f"{cut.__name__}.*{number!r}|negative"):
            cut(number)
    assert sales.head(np.int64(2)).collect().num_rows == 2
    assert ordered.slice(-2, 1).collect().num_rows == 1


def test_a_frame_is_no_sequence_of_rows(sales: RemoteFrame) -> None:
    with pytest.raises(ExpressionError, match=r"to_dicts\(\).*columns"):
        list(sales)


def test_filter_sort_limit_unique(sales: RemoteFrame) -> None:
    assert rows(sales.filter(col("qty") > 1, col("store") == "a").select("qty").sort("qty")) == [
        (2,), (5,), (7,)
    ]  # fmt: skip
    assert rows(sales.select("qty").sort("qty", descending=True).head(2)) == [(7,), (5,)]
    assert rows(sales.select("qty").sort("qty", nulls_last=False).limit(1)) == [(None,)]
    assert rows(sales.select("qty").sort("qty").limit(2, offset=3)) == [(7,), (None,)]
    assert rows(sales.sort("store", "qty", descending=[True, False]).select("store", "qty")) == [
        ("b", None), ("a", 2), ("a", 5), ("a", 7), (None, 1)
    ]  # fmt: skip
    assert rows(sales.select("store").unique().sort("store")) == [("a",), ("b",), (None,)]


def test_group_by(sales: RemoteFrame) -> None:
    got = (
        sales.group_by("store")
        .agg(
            count(),
            col("qty").sum(),
            col("qty").mean().alias("mean"),
            per_item=col("qty").sum() / col("item").n_unique(),
            span=col("qty").max() - col("qty").min(),
            known=col("qty").count(),
        )
        .sort("store")
    )
    assert got.columns == ["store", "count", "qty", "mean", "per_item", "span", "known"]
    assert rows(got) == [
        ("a", 3, 14, 14 / 3, 7.0, 5, 3),
        ("b", 1, None, None, None, None, 0),
        (None, 1, 1, 1.0, 1.0, 0, 1),
    ]
    by_expression = sales.group_by(year=col("day").dt.year()).agg(n=count()).sort("year")
    assert rows(by_expression) == [(2020, 2), (2021, 1), (None, 2)]
    assert rows(sales.group_by("store").agg().sort("store")) == [("a",), ("b",), (None,)]


def test_select_of_aggregates_has_one_row(sales: RemoteFrame) -> None:
    assert rows(sales.select(col("qty").sum(), n=count() + 1)) == [(15, 6)]
    assert rows(sales.filter(lit(False)).select(col("qty").sum(), count())) == [(None, 0)]


LEFT = pa.table({"k": [1, 2, 2, None], "v": ["a", "b", "c", "d"]})
RIGHT = pa.table({"k": [2, 3, None], "v": ["x", "y", "z"], "w": [10, 20, 30]})
JOINS = {
    "inner": [(2, "b", "x", 10), (2, "c", "x", 10)],
    "left": [(1, "a", None, None), (2, "b", "x", 10), (2, "c", "x", 10), (None, "d", None, None)],
    "right": [(2, "b", "x", 10), (2, "c", "x", 10), (3, None, "y", 20), (None, None, "z", 30)],
    "full": [(1, "a", None, None), (2, "b", "x", 10), (2, "c", "x", 10), (3, None, "y", 20),
             (None, "d", None, None), (None, None, "z", 30)],
    "semi": [(2, "b"), (2, "c")],
    "anti": [(1, "a"), (None, "d")],
}  # fmt: skip


@pytest.mark.parametrize("how", JOINS)
def test_joins_on_a_shared_name(executor: LocalExecutor, how: Any) -> None:
    left = RemoteFrame(from_arrow(LEFT).plan, executor)
    got = join(left, from_arrow(RIGHT), on="k", how=how)
    assert got.columns == (["k", "v"] if how in ("semi", "anti") else ["k", "v", "v_right", "w"])
    assert sorted(rows(got), key=repr) == sorted(JOINS[how], key=repr)
    swapped = left.join(from_arrow(RIGHT.rename_columns(["r", "x", "w"])), left_on="k",
                        right_on="r", how=how)  # fmt: skip
    expected = {
        "inner": ["k", "v", "x", "w"],
        "left": ["k", "v", "x", "w"],
        "right": ["v", "r", "x", "w"],
        "full": ["k", "v", "r", "x", "w"],
        "semi": ["k", "v"],
        "anti": ["k", "v"],
    }[how]
    assert swapped.columns == expected
    assert len(rows(swapped)) == len(JOINS[how])


def test_cross_join_and_self_join(executor: LocalExecutor) -> None:
    left = RemoteFrame(from_arrow(LEFT).plan, executor)
    assert len(rows(left.join(from_arrow(RIGHT), how="cross"))) == 12
    mine = left.join(left, on="v", suffix="_2")
    assert mine.columns == ["k", "v", "k_2"]
    assert len(rows(mine)) == 4


@given(
    left=st.lists(st.tuples(st.none() | st.integers(0, 5), st.integers(0, 9)), max_size=15),
    right=st.lists(st.tuples(st.none() | st.integers(0, 5), st.integers(0, 9)), max_size=15),
    how=st.sampled_from(["inner", "left", "right", "semi", "anti"]),
)
@settings(max_examples=40, deadline=None)
def test_joins_agree_with_polars(executor: LocalExecutor, left: Any, right: Any, how: Any) -> None:
    def table(data: Any, name: str) -> pa.Table:
        keys, values = [r[0] for r in data], [r[1] for r in data]
        return pa.table({"k": pa.array(keys, pa.int64()), name: pa.array(values, pa.int64())})

    one, two = table(left, "a"), table(right, "b")
    frame = RemoteFrame(from_arrow(one).plan, executor)
    mine = frame.join(from_arrow(two), on="k", how=how).collect()
    theirs = pl.from_arrow(one).join(pl.from_arrow(two), on="k", how=how)
    assert mine.column_names == list(theirs.columns) or how == "right"
    assert sorted(map(repr, mine.select(sorted(mine.column_names)).to_pylist())) == sorted(
        map(repr, theirs.select(sorted(theirs.columns)).to_dicts())
    )


BAD: list[tuple[str, Callable[[RemoteFrame], Any], type[Exception], str]] = [
    (
        "unknown",
        lambda f: f.select("qtx"),
        ColumnNotFoundError,
        "no column 'qtx'; did you mean 'qty'",
    ),
    (
        "unknown in filter",
        lambda f: f.filter(col("zzz") > 1),
        ColumnNotFoundError,
        "the columns are",
    ),
    ("type", lambda f: f.select(col("store") + 1), ExpressionError, "store"),
    ("comparison", lambda f: f.filter(col("day") > 1.5), ExpressionError, "day"),
    ("filter type", lambda f: f.filter(col("qty")), ExpressionError, "boolean"),
    ("truth", lambda f: f.filter(col("qty") > 1 and col("qty") < 5), ExpressionError, "&"),
    ("aggregate twice", lambda f: f.select(col("qty").sum().max()), ExpressionError, "already"),
    (
        "bare column in agg",
        lambda f: f.group_by("store").agg(col("qty")),
        ExpressionError,
        "neither a key nor aggregated",
    ),
    (
        "unknown in agg",
        lambda f: f.group_by("store").agg(col("qtyy").sum()),
        ColumnNotFoundError,
        "qty",
    ),
    ("sum of strings", lambda f: f.select(col("store").sum()), ExpressionError, "sum"),
    ("twice", lambda f: f.select("qty", col("item").alias("qty")), AmbiguousColumnError, "'qty'"),
    ("agg twice", lambda f: f.group_by("qty").agg(col("qty").sum()), AmbiguousColumnError, "'qty'"),
    ("nothing", lambda f: f.select(), ExpressionError, "at least one"),
    ("not an expression", lambda f: f.select(5), ExpressionError, "not 5"),
    ("no keys", lambda f: f.group_by(), ExpressionError, "at least one key"),
    ("drop all", lambda f: f.drop(*f.columns), ExpressionError, "no column"),
    ("negative limit", lambda f: f.limit(-1), ExpressionError, "negative"),
    ("cast", lambda f: f.select(col("qty").cast("int65")), ExpressionError, "int65"),
    ("open when", lambda f: when(col("qty") > 1).otherwise(1), ExpressionError, "then"),
    ("join how", lambda f: f.join(f, on="qty", how="outer"), ExpressionError, "one of inner"),
    ("join no keys", lambda f: f.join(f), ExpressionError, "keys are needed"),
    ("join both", lambda f: f.join(f, on="qty", left_on="qty"), ExpressionError, "either"),
    (
        "join counts",
        lambda f: f.join(f, left_on=["qty", "item"], right_on=["qty"]),
        ExpressionError,
        "2 left keys and 1 right",
    ),
    ("join unknown", lambda f: f.join(f, on="quantity"), ColumnNotFoundError, "quantity"),
    (
        "join types",
        lambda f: f.join(f, left_on="day", right_on="qty"),
        ExpressionError,
        "'day' = 'qty'",
    ),
    ("join suffix", lambda f: f.join(f, on="qty", suffix=""), AmbiguousColumnError, "suffix"),
    ("cross keys", lambda f: f.join(f, on="qty", how="cross"), ExpressionError, "no keys"),
    ("join what", lambda f: f.join(SALES, on="qty"), ExpressionError, "RemoteFrame"),
    (
        "sort flags",
        lambda f: f.sort("qty", descending=[True, False]),
        ExpressionError,
        "descending",
    ),
    ("slice", lambda f: f.select(col("store").str.slice(1, -1)), ExpressionError, "negative"),
    ("rename", lambda f: f.rename({"qty": "item"}), AmbiguousColumnError, "item"),
]


@pytest.mark.parametrize(("use", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_mistakes_are_named_before_anything_runs(
    use: Callable[[RemoteFrame], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        use(from_arrow(SALES))
    assert isinstance(caught.value, FrameError)


def test_ambiguous_names_are_refused_only_when_used() -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    frame = from_arrow(twice)
    with pytest.raises(AmbiguousColumnError, match="2 columns are called 'a'"):
        frame.select("a")


def test_columns_of_one_name_keep_their_values() -> None:
    names = ["a", "a", "A", "a_2", "b", "", "unnamed"]
    data = [pa.array([10 * i + 1, 10 * i + 2]) for i in range(len(names))]
    frame = from_arrow(pa.Table.from_arrays(data, names))
    for one in (frame, frame.filter(col("b") > 0), frame.sort("b").head(2)):
        found = one.collect()
        assert found.column_names == names
        assert [c.to_pylist() for c in found.columns] == [c.to_pylist() for c in data]
    assert frame.select("A", "a_2").to_dict() == {"A": [21, 22], "a_2": [31, 32]}


def test_frames_of_different_executors_do_not_mix() -> None:
    class Elsewhere:
        def collect(self, plan: Any) -> pa.Table:
            raise AssertionError

        def explain(self, plan: Any, *, analyze: bool = False) -> str:
            return f"elsewhere{' and run' * analyze}"

    frame = from_arrow(SALES)
    here, there = Elsewhere(), Elsewhere()
    other = RemoteFrame(frame.plan, here)
    assert other.explain() == "elsewhere"
    assert other.explain(analyze=True) == "elsewhere and run"
    with pytest.raises(FrameError, match="different executors"):
        RemoteFrame(frame.plan, there).join(other, on="item")
    bound = RemoteFrame(frame.plan, LocalExecutor(object()))
    with pytest.raises(FrameError, match="different executors"):
        bound.join(other, on="item")
    # What this process has, anybody can take over; but not a statement that it has bound.
    assert frame.join(other, on="item").executor is here
    assert other.join(frame, on="item").executor is here
    assert concat([frame, other, frame]).executor is here
    with pytest.raises(FrameError, match=r"sql\(\)"):
        other.join(frame.sql("select * from self"), on="item")


def test_nothing_is_computed_before_collect_and_texts_are_readable() -> None:
    class Counting:
        calls = 0

        def collect(self, plan: Any) -> pa.Table:
            self.calls += 1
            return pa.table({"qty": [1]})

        def explain(self, plan: Any) -> str:
            return ""

    executor = Counting()
    frame = RemoteFrame(from_arrow(SALES).plan, executor)
    built = frame.filter(col("qty") > 1).group_by("store").agg(col("qty").sum()).sort("qty").head()
    assert executor.calls == 0
    assert repr(built).splitlines() == [
        "RemoteFrame of 2 columns, computed by Counting",
        "  store  string",
        "  qty    decimal128(38, 0)",
        "from Arrow data (5 rows)",
    ]
    assert "<th>store</th><td>string</td>" in built._repr_html_()
    assert repr(col("a") + 1) == "(a + 1)"
    assert repr((col("a").sum() > 2).alias("b")) == "(a.sum() > 2) as b"
    assert pa.table(built).num_rows == 1
    assert executor.calls == 1


def test_pruning_changes_no_answer(executor: LocalExecutor) -> None:
    frame = from_arrow(SALES)
    other = from_arrow(SALES).select("item", "qty", "day")
    frames = [
        frame.select("qty"),
        frame.filter(col("qty") > 1).select("store"),
        frame.join(other, on="item", how="left").select("store", "qty_right"),
        frame.join(other, on="item", how="semi").select("price"),
        frame.group_by("store").agg(col("qty").sum()).select("qty"),
        frame.sort("day").head(2).select("item"),
        frame.select(count()),
    ]
    for one in frames:
        pruned = RemoteFrame(prune(one.plan), executor)
        assert pruned.plan.schema == one.plan.schema
        kernel = executor.kernel
        fragment = kernel.lower(one.plan)
        unpruned = kernel.table(fragment, {i.source.name: i.source.data for i in fragment.supplied})
        assert sorted(map(repr, pruned.collect().to_pylist())) == sorted(
            map(repr, unpruned.to_pylist())
        )


def test_explain_shows_plan_and_statement() -> None:
    frame = from_arrow(SALES).filter(col("qty") > 1).select("store")
    text = frame.explain()
    assert f"{len(frame.collect())} rows, " in frame.explain(analyze=True)
    assert "SELECT" in text
    assert "qty" in text
