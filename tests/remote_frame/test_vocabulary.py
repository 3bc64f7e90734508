"""The vocabulary of expressions, word by word: what Polars says of the same words, or what SQL
does.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

import remote_frame
from remote_frame import (
    AmbiguousColumnError,
    ColumnNotFoundError,
    ExpressionError,
    LocalExecutor,
    RemoteFrame,
    col,
    from_arrow,
    from_dict,
    lit,
)
from remote_frame import selectors as cs

NAN, INF = float("nan"), float("inf")
TABLE = pa.table(
    {
        "id": pa.array(range(7), pa.int64()),
        "g": ["x", "y", "x", "x", None, "y", "x"],
        "i": pa.array([3, -5, None, 7, 0, 7, 2], pa.int64()),
        "f": [1.5, -2.25, None, 0.0, 10.0, 3.0, 0.125],
        "odd": [NAN, INF, -INF, None, 0.0, 1.0, -1.0],
        "s": ["Hello", "  a b ", None, "", "é1é22", "-7", "aaa"],
        "b": [True, False, None, True, True, False, False],
        "d": [
            *(dt.date(1969, 12, 31), dt.date(2020, 2, 29), None, dt.date(2021, 1, 3)),
            *(dt.date(1600, 3, 1), dt.date(2024, 12, 30), dt.date(2000, 1, 1)),
        ],
        "t": pa.array(
            [
                dt.datetime(1969, 12, 31, 23, 59, 59, 999_999),
                dt.datetime(2020, 2, 29, 12, 44, 5, 1_234),
                None,
                dt.datetime(2021, 1, 3),
                dt.datetime(1600, 3, 1, 1),
                dt.datetime(2024, 12, 30, 6, 30),
                dt.datetime(2000, 1, 1, 0, 0, 0, 1),
            ],
            pa.timestamp("us"),
        ),
    }
)


@pytest.fixture(scope="module")
def executor() -> Any:
    made = LocalExecutor()
    yield made
    made.close()


@pytest.fixture
def frame(executor: LocalExecutor) -> RemoteFrame:
    return RemoteFrame(from_arrow(TABLE).plan, executor)


def value(cell: Any) -> Any:
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return cell
    return str(cell) if not math.isfinite(cell) else float(f"{cell:.10g}") + 0.0


ALIKE: dict[str, Callable[[Any, Any], Any]] = {
    # c is `col` of either side, m the module.
    "xor": lambda c, m: c("b") ^ (c("i") > 2),
    "bits": lambda c, m: (c("i") & 6) | (c("i") ^ 3),
    "pow": lambda c, m: c("f").pow(2),
    "rpow": lambda c, m: 2.0 ** c("f"),
    "eq_missing": lambda c, m: c("i").eq_missing(m.lit(7)),
    "ne_missing": lambda c, m: c("i").ne_missing(m.lit(7)),
    "not_": lambda c, m: c("b").not_(),
    "is_nan": lambda c, m: c("odd").is_nan(),
    "is_not_nan": lambda c, m: c("odd").is_not_nan(),
    "is_finite": lambda c, m: c("odd").is_finite(),
    "is_infinite": lambda c, m: c("odd").is_infinite(),
    "fill_nan": lambda c, m: c("odd").fill_nan(9.0),
    "is_between none": lambda c, m: c("i").is_between(0, 7, closed="none"),
    "is_between left": lambda c, m: c("i").is_between(0, 7, closed="left"),
    "is_between right": lambda c, m: c("i").is_between(0, 7, closed="right"),
    "cast lax": lambda c, m: c("s").cast(int if m is remote_frame else pl.Int64, strict=False),
    "replace": lambda c, m: c("i").replace({7: 8, 0: None}),
    "replace lists": lambda c, m: c("s").replace(["", "aaa"], ["nothing", "A"]),
    "replace_strict": lambda c, m: c("i").replace_strict({7: "seven"}, default="other"),
    "sign": lambda c, m: c("f").sign(),
    "cbrt": lambda c, m: (c("f") + 5).cbrt(),
    "exp": lambda c, m: c("f").exp(),
    "log": lambda c, m: (c("f") + 5).log(),
    "log 3": lambda c, m: (c("f") + 5).log(3),
    "log10": lambda c, m: (c("f") + 5).log10(),
    "log1p": lambda c, m: (c("f") + 5).log1p(),
    "sin": lambda c, m: c("f").sin(),
    "cos": lambda c, m: c("f").cos(),
    "tan": lambda c, m: c("f").tan(),
    "arcsin": lambda c, m: (c("f") / 20).arcsin(),
    "arccos": lambda c, m: (c("f") / 20).arccos(),
    "arctan": lambda c, m: c("f").arctan(),
    "degrees": lambda c, m: c("f").degrees(),
    "radians": lambda c, m: c("f").radians(),
    "clip": lambda c, m: c("i").clip(0, 5),
    "clip below": lambda c, m: c("i").clip(lower_bound=1),
    "contains": lambda c, m: c("s").str.contains("a.?b|[0-9]{2}"),
    "contains literal": lambda c, m: c("s").str.contains("a", literal=True),
    "extract": lambda c, m: c("s").str.extract("([a-z])([a-z])", 2),
    "replace first": lambda c, m: c("s").str.replace("[aé](.)", "<$1>"),
    "replace all": lambda c, m: c("s").str.replace_all("([aé])", "<${1}>"),
    "replace literal": lambda c, m: c("s").str.replace("a", "\\$1", literal=True),
    "replace all literal": lambda c, m: c("s").str.replace_all("a", "$0", literal=True),
    "strip_chars": lambda c, m: c("s").str.strip_chars(),
    "strip_chars some": lambda c, m: c("s").str.strip_chars("aé"),
    "strip_chars_start": lambda c, m: c("s").str.strip_chars_start(" -"),
    "strip_chars_end": lambda c, m: c("s").str.strip_chars_end(" o2"),
    "strip_prefix": lambda c, m: c("s").str.strip_prefix("aa"),
    "strip_suffix": lambda c, m: c("s").str.strip_suffix("é22"),
    "pad_start": lambda c, m: c("s").str.pad_start(4, "*"),
    "pad_end": lambda c, m: c("s").str.pad_end(4, "*"),
    "zfill": lambda c, m: c("s").str.zfill(4),
    "reverse": lambda c, m: c("s").str.reverse(),
    "slice": lambda c, m: c("s").str.slice(1, 3),
    "slice all": lambda c, m: c("s").str.slice(2),
    "slice end": lambda c, m: c("s").str.slice(-3, 2),
    "head": lambda c, m: c("s").str.head(2),
    "head but": lambda c, m: c("s").str.head(-2),
    "tail": lambda c, m: c("s").str.tail(2),
    "tail but": lambda c, m: c("s").str.tail(-2),
    "len_bytes": lambda c, m: c("s").str.len_bytes(),
    "lower": lambda c, m: c("s").str.to_lowercase(),
    "to_date": lambda c, m: c("d").dt.strftime("%d/%m/%Y").str.to_date("%d/%m/%Y"),
    "to_datetime lax": lambda c, m: c("s").str.to_datetime("%Y", strict=False),
    "quarter": lambda c, m: c("d").dt.quarter(),
    "week": lambda c, m: c("d").dt.week(),
    "weekday": lambda c, m: c("d").dt.weekday(),
    "ordinal_day": lambda c, m: c("d").dt.ordinal_day(),
    "month_start": lambda c, m: c("d").dt.month_start(),
    "month_end": lambda c, m: c("d").dt.month_end(),
    "hour": lambda c, m: c("t").dt.hour(),
    "minute": lambda c, m: c("t").dt.minute(),
    "second": lambda c, m: c("t").dt.second(),
    "millisecond": lambda c, m: c("t").dt.millisecond(),
    "microsecond": lambda c, m: c("t").dt.microsecond(),
    "epoch us": lambda c, m: c("t").dt.epoch("us"),
    "epoch s": lambda c, m: c("t").dt.epoch("s"),
    "epoch d": lambda c, m: c("d").dt.epoch("d"),
    "date": lambda c, m: c("t").dt.date(),
    **{
        f"truncate {every}": lambda c, m, every=every: c("t").dt.truncate(every)
        for every in ("1s", "15m", "6h", "1d", "1w", "2w", "1mo", "1q", "5mo", "1y", "250ms")
    },
    "truncate a date": lambda c, m: c("d").dt.truncate("1mo"),
    "offset_by": lambda c, m: c("t").dt.offset_by("1mo2d3h"),
    "offset_by back": lambda c, m: c("d").dt.offset_by("-1y"),
    "strftime": lambda c, m: c("t").dt.strftime("%Y/%j %H:%M"),
    "coalesce": lambda c, m: m.coalesce("i", "id"),
    "concat_str": lambda c, m: m.concat_str("g", "i", "s", separator="|"),
    "concat_str lax": lambda c, m: m.concat_str("g", "i", separator="|", ignore_nulls=True),
    "max_horizontal": lambda c, m: m.max_horizontal("i", "id"),
    "min_horizontal": lambda c, m: m.min_horizontal("i", c("id") * 2),
    "sum_horizontal": lambda c, m: m.sum_horizontal("i", "f"),
    "mean_horizontal": lambda c, m: m.mean_horizontal("i", "f"),
    "all_horizontal": lambda c, m: m.all_horizontal(c("b"), c("i") > 2),
    "any_horizontal": lambda c, m: m.any_horizontal(c("b"), c("i") > 2),
    # Over rows.
    "len": lambda c, m: c("i").len(),
    "null_count": lambda c, m: c("i").null_count(),
    "any": lambda c, m: c("b").any(),
    "all": lambda c, m: c("b").all(),
    "no rows any": lambda c, m: c("b").filter(c("id") > 99).any(),
    "no rows all": lambda c, m: c("b").filter(c("id") > 99).all(),
    "std": lambda c, m: c("f").std(ddof=0),
    "var": lambda c, m: c("f").var(),
    "quantile": lambda c, m: c("f").quantile(0.3, interpolation="linear"),
    "filtered": lambda c, m: c("i").filter(c("b")).sum(),
    "filtered twice": lambda c, m: c("i").filter(c("b"), c("id") > 2).max(),
    "first of order": lambda c, m: c("s").sort_by("f", descending=True, nulls_last=True).first(),
    "last of order": lambda c, m: c("s").sort_by("id").last(),
    "join": lambda c, m: c("g").sort_by("id").str.join("+"),
    "corr": lambda c, m: m.corr("id", "f"),
    "cov": lambda c, m: m.cov("id", "f"),
    "over": lambda c, m: c("i").max().over("g"),
    "over two": lambda c, m: (c("f").max() / c("id").count()).over("g", "b"),
    "over expression": lambda c, m: c("f").max().over(c("i") > 2),
    "n_unique over": lambda c, m: (
        c("b").drop_nulls().n_unique().over("g") if m is pl else c("b").n_unique().over("g")
    ),
    "filter over": lambda c, m: c("i").filter(c("b")).max().over("g"),
    "broadcast": lambda c, m: (c("f") - c("f").mean()) / c("f").std(),
    "rank of sum": lambda c, m: c("f").sum().over("g").rank("dense"),
    "diff": lambda c, m: c("i").diff().over("g", order_by="id"),
    "pct_change": lambda c, m: c("id").pct_change().over("g", order_by="id"),
    "shift back": lambda c, m: c("i").shift(-2).over("g", order_by="id"),
    "shift fill": lambda c, m: c("i").shift(1, fill_value=0).over("g", order_by="id"),
    "cum_sum": lambda c, m: c("f").cum_sum().over("g", order_by="id"),
    "cum_sum reverse": lambda c, m: c("f").cum_sum(reverse=True).over("g", order_by="id"),
    "cum_min": lambda c, m: c("f").cum_min().over("g", order_by="id"),
    "cum_max": lambda c, m: c("f").cum_max().over("g", order_by="id"),
    "cum_prod": lambda c, m: c("f").cum_prod().over("g", order_by="id"),
    "cum_count": lambda c, m: c("i").cum_count().over("g", order_by="id"),
    "forward_fill": lambda c, m: c("i").forward_fill().over("g", order_by="id"),
    "backward_fill": lambda c, m: c("i").backward_fill().over("g", order_by="id"),
    "descending": lambda c, m: c("id").cum_sum().over("g", order_by="id", descending=True),
    "is_unique": lambda c, m: c("i").is_unique(),
    "is_duplicated": lambda c, m: c("i").is_duplicated(),
    "is_first_distinct": lambda c, m: (
        c("i").is_first_distinct() if m is pl else c("i").is_first_distinct().over(order_by="id")
    ),
    **{
        f"rolling_{name}": lambda c, m, name=name: getattr(c("f"), f"rolling_{name}")(
            3, min_samples=2
        ).over("g", order_by="id")
        for name in ("sum", "mean", "min", "max", "std", "var", "median")
    },
    "rolling center": lambda c, m: (
        c("id").rolling_max(4, min_samples=1, center=True)
        if m is pl
        else c("id").rolling_max(4, min_samples=1, center=True).over(order_by="id")
    ),
    "rolling whole": lambda c, m: c("id").rolling_sum(2).over("g", order_by="id"),
}


@pytest.mark.parametrize("word", ALIKE)
def test_polars_says_the_same(frame: RemoteFrame, word: str) -> None:
    make = ALIKE[word]
    expected = pl.DataFrame(TABLE).with_columns(make(pl.col, pl).alias("x"))["x"].to_list()
    found = frame.with_columns(make(col, remote_frame).alias("x")).sort("id").select("x")
    assert [value(v) for v in found.to_dict()["x"]] == [value(v) for v in expected]


NAMES: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "first column": (lambda c, m: 1 + c("i") * c("f"), ["literal"]),
    "left": (lambda c, m: c("i") * c("f"), ["i"]),
    "alias inside": (lambda c, m: c("i").alias("z") + 1, ["z"]),
    "when": (lambda c, m: m.when(c("b")).then(c("f")).otherwise(c("i")), ["f"]),
    "aggregate": (lambda c, m: c("i").max(), ["i"]),
    "suffix": (lambda c, m: c("i").alias("z").name.suffix("_s"), ["z_s"]),
    "prefix": (lambda c, m: c("i", "f").max().name.prefix("p_"), ["p_i", "p_f"]),
    "keep": (lambda c, m: (c("i") + c("f")).alias("z").name.keep(), ["i"]),
    "map": (lambda c, m: c("i", "f").name.map(lambda n: n * 2), ["ii", "ff"]),
    "upper": (lambda c, m: c("i").name.to_uppercase(), ["I"]),
    "pattern": (lambda c, m: c("^[sb]$"), ["s", "b"]),
    "star": (lambda c, m: c("*").exclude("t", "^[a-f]$")
             if m is pl else m.all().exclude("t", "^[a-f]$"), ["id", "g", "i", "odd", "s"]),
    "exclude": (lambda c, m: m.exclude("t", "s", "d", "b", "g"), ["id", "i", "f", "odd"]),
    "len": (lambda c, m: m.len(), ["len"]),
    "horizontal": (lambda c, m: m.max_horizontal("f", "i"), ["f"]),
    "zip": (lambda c, m: c("i", "id") + c("f", "odd"), ["i", "id"]),
    "over": (lambda c, m: c("i", "f").max().over("g"), ["i", "f"]),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_names_are_those_of_polars(frame: RemoteFrame, case: str) -> None:
    make, expected = NAMES[case]
    assert pl.DataFrame(TABLE).lazy().select(make(pl.col, pl)).collect_schema().names() == expected
    assert frame.select(make(col, remote_frame)).columns == expected


def test_selectors(frame: RemoteFrame) -> None:
    def names(selector: Any) -> list[str]:
        return frame.select(selector).columns

    assert names(cs.numeric()) == ["id", "i", "f", "odd"]
    assert names(cs.integer() | cs.boolean()) == ["id", "i", "b"]
    assert names(cs.numeric() & cs.starts_with("i")) == ["id", "i"]
    assert names(~cs.numeric() - cs.by_name("g")) == ["s", "b", "d", "t"]
    assert names(cs.temporal()) == ["d", "t"]
    assert names(cs.date()) == ["d"]
    assert names(cs.datetime()) == ["t"]
    assert names(cs.string()) == ["g", "s"]
    assert names(cs.float()) == ["f", "odd"]
    assert names(cs.by_dtype("bool", pa.int64())) == ["id", "i", "b"]
    assert names(cs.matches("^.$")) == ["g", "i", "f", "s", "b", "d", "t"]
    assert names(cs.ends_with("d")) == ["id", "odd", "d"]
    assert names(cs.contains("d", "g")) == ["id", "g", "odd", "d"]
    assert names(cs.first() | cs.last()) == ["id", "t"]
    assert names(cs.all().exclude(pa.int64())) == ["g", "f", "odd", "s", "b", "d", "t"]
    assert names(col(pa.int64(), pa.bool_())) == ["id", "i", "b"]
    assert names(cs.decimal() | cs.binary() | cs.first()) == ["id"]
    assert repr(cs.numeric() - cs.first()) == "(cs.numeric() - cs.first())"
    assert repr(cs.integer() + 1) == "(cs.integer() + 1)"
    # An operation on one side that is no selector is one on the values.
    assert frame.select(cs.integer() - 1).filter(col("id") == 2).to_dicts() == [{"id": 2, "i": 6}]
    assert frame.drop(cs.temporal(), "odd").columns == ["id", "g", "i", "f", "s", "b"]
    assert frame.cast({cs.integer(): "int8"}).schema.field("i").type == pa.int8()
    assert frame.filter(cs.integer() > 2).select("id").sort("id").to_dict() == {"id": [3, 5]}
    grouped = frame.group_by("g").agg(cs.numeric().max())
    assert grouped.columns == ["g", "id", "i", "f", "odd"]


def test_sorting_keeps_its_order_through_rows(frame: RemoteFrame) -> None:
    down = frame.sort("id", descending=True)
    centred = down.with_columns(c=col("f") - col("f").mean(), r=col("f").rank())
    assert centred.select("id").to_dict() == {"id": [6, 5, 4, 3, 2, 1, 0]}
    assert down.filter(col("f") > col("f").mean()).select("id").to_dict() == {"id": [5, 4]}
    assert down.head(3).with_columns(m=col("id").max().over("g")).to_dict()["m"] == [6, 5, 4]
    assert down.tail(2).to_dict()["id"] == [1, 0]
    assert down.slice(-3, 2).to_dict()["id"] == [2, 1]
    assert down.reverse().to_dict()["id"] == list(range(7))
    assert down.select("g", k="id").tail(1).to_dict() == {"g": ["x"], "k": [0]}
    assert frame.sort(col("id") % 2, col("f").max() - col("f")).select("id").head(2).to_dict() == {
        "id": [4, 0]
    }


@pytest.mark.parametrize(
    "values",
    [
        [1.0, math.inf, 2.0],
        [math.nan, 1.0, 2.0],
        [math.inf, -math.inf, None],
        [1e308, 1e308, -1e308],
        [1.5, None, 4.0],
        [None],
        [],
    ],
)
def test_a_summary_of_numbers_that_are_none(values: list[float | None]) -> None:
    data = pa.table({"x": pa.array(values, pa.float64()), "f": pa.array(values, pa.float32())})
    if values and max(abs(v or 0) for v in values) == 1e308:
        data = data.select(["x"])
    summary = from_arrow(data).describe([0.5])
    theirs = pl.DataFrame(data).describe([0.5], interpolation="linear")
    for name in data.column_names:
        ours = dict(zip(summary["statistic"].to_pylist(), summary[name].to_pylist(), strict=True))
        for what in ("count", "null_count", "mean", "std"):
            expected = theirs.filter(statistic=what)[name].item()
            assert ours[what] == pytest.approx(expected, nan_ok=True), what


def test_frame_methods(frame: RemoteFrame) -> None:
    some = frame.select("id", "i", "f")
    assert some.top_k(2, by=["i", "id"]).to_dict()["id"] == [5, 3]
    assert some.top_k(2, by=["i", "id"], reverse=[True, False]).to_dict()["id"] == [1, 4]
    assert some.bottom_k(2, by="f").to_dict()["id"] == [1, 3]
    assert some.drop_nulls().select("id").sort("id").to_dict()["id"] == [0, 1, 3, 4, 5, 6]
    assert some.drop_nulls("i").collect().num_rows == 6
    assert frame.drop_nans().collect().num_rows == 6
    assert frame.fill_nan(0.0).filter(odd=0.0).select("id").sort("id").to_dict()["id"] == [0, 4]
    assert frame.remove(col("i") > 2).select("id").sort("id").to_dict()["id"] == [1, 2, 4, 6]
    assert frame.filter(b=True, g="x").select("id").sort("id").to_dict()["id"] == [0, 3]
    assert some.pipe(lambda f, n: f.head(n), 3).collect().num_rows == 3
    assert some.rename(lambda n: n + "_").columns == ["id_", "i_", "f_"]
    assert some.cast("float64").dtypes == [pa.float64()] * 3
    assert some.drop("zz", "f", strict=False).columns == ["id", "i"]
    assert (some.width, some.lazy(), some.collect_schema()) == (3, some, some.schema)
    long = some.unpivot(["i", "f"], index="id", variable_name="n", value_name="v")
    theirs = pl.DataFrame(TABLE).select("id", "i", "f").unpivot(["i", "f"], index="id")
    assert sorted(map(repr, long.collect().to_pylist())) == sorted(
        repr(dict(zip(("id", "n", "v"), (a, b, None if c is None else float(c)), strict=True)))
        for a, b, c in theirs.rows()
    )
    summary = frame.select("i", "s", "b", "d").describe([0.5])
    theirs = pl.DataFrame(TABLE).select("i", "b").describe([0.5], interpolation="linear")
    assert summary.column_names == ["statistic", "i", "s", "b", "d"]
    assert summary["statistic"].to_pylist() == theirs["statistic"].to_list()
    assert [value(v) for v in summary["i"].to_pylist()] == [value(v) for v in theirs["i"].to_list()]
    assert summary["d"].to_pylist() == ["6", "1", None, None, "1600-03-01", None, "2024-12-30"]


def test_group_shortcuts(frame: RemoteFrame) -> None:
    groups = frame.select("g", "id", "f").group_by("g")
    theirs = pl.DataFrame(TABLE).select("g", "id", "f").group_by("g")
    for name in ("len", "min", "max", "mean", "median", "sum", "n_unique"):
        mine = {r["g"]: r for r in getattr(groups, name)().to_dicts()}
        expected = {r["g"]: r for r in getattr(theirs, name)().to_dicts()}
        if name == "n_unique":  # Polars counts null as a value.
            expected["x"]["f"] -= 1
        assert {k: {n: value(v) if n != "g" else v for n, v in r.items()} for k, r in
                _floats(mine).items()} == {
            k: {n: value(v) if n != "g" else v for n, v in r.items()} for k, r in expected.items()
        }  # fmt: skip
    assert groups.first(order_by="id").filter(g="y").to_dicts() == [{"g": "y", "id": 1, "f": -2.25}]
    assert groups.last(order_by="id").filter(g="y").to_dicts() == [{"g": "y", "id": 5, "f": 3.0}]
    assert groups.count().columns == ["g", "len"]


def _floats(rows: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {
        k: {n: float(v) if not isinstance(v, str) and v is not None else v for n, v in r.items()}
        for k, r in rows.items()
    }


def test_joins_beyond_equal_keys(executor: LocalExecutor) -> None:
    left = RemoteFrame(from_dict({"k": [1, None, 3], "a": [1, 2, 3]}).plan, executor)
    right = from_dict({"k": [1, None, 4], "b": [10, 20, 30]})
    equal = left.join(right, on="k", nulls_equal=True).sort("a")
    assert equal.to_dict() == {"k": [1, None], "a": [1, 2], "b": [10, 20]}
    for how in ("inner", "left", "right", "full"):
        kept = left.join(right, on="k", how=how, coalesce=False)  # type: ignore[arg-type]
        assert kept.columns == ["k", "a", "k_right", "b"]
    merged = left.join(right, left_on="k", right_on="k", how="full", coalesce=True)
    assert merged.columns == ["k", "a", "b"]
    assert sorted(merged.to_dict()["k"], key=str) == [1, 3, 4, None, None]
    where = left.join_where(right, col("a") * 10 < col("b"), col("k") != col("k_right"))
    assert where.sort("b").to_dicts() == [
        {"k": 1, "a": 1, "k_right": 4, "b": 30},
    ]
    keyed = left.join_where(right, col("k") == col("k_right"), col("b") > 1)
    assert keyed.select("a", "b").to_dicts() == [{"a": 1, "b": 10}]
    assert left.join(right, left_on=col("k"), right_on=[col("k")]).width == 3
    with pytest.raises(ExpressionError, match="names of columns"):
        left.join(right, left_on=col("k") + 1, right_on="k")
    with pytest.raises(ExpressionError, match="condition is needed"):
        left.join_where(right)
    with pytest.raises(ExpressionError, match="one pair of rows"):
        left.join_where(right, col("a") > col("b").max())


def test_asof_by_and_times(executor: LocalExecutor) -> None:
    base = dt.datetime(2020, 1, 1)
    hours = [base + dt.timedelta(hours=h) for h in (0, 2, 5, 30)]
    left = from_dict({"at": [base + dt.timedelta(hours=h) for h in (1, 3, 4, 29)],
                      "who": ["a", "a", "b", "b"]})  # fmt: skip
    right = from_dict({"at": hours, "who": ["a", "b", "b", "a"], "v": [1, 2, 3, 4]})
    mine = RemoteFrame(left.plan, executor)
    lp, rp = left.to_polars(), right.to_polars()
    for strategy in ("backward", "forward", "nearest"):
        for tolerance in (None, "2h", "1h30m"):
            for by in (None, "who"):
                if by is None:
                    other, theirs = right.drop("who"), rp.drop("who")
                else:
                    other, theirs = right, rp
                found = mine.join_asof(
                    other, on="at", by=by, strategy=strategy, tolerance=tolerance  # type: ignore[arg-type]
                ).sort("at")  # fmt: skip
                expected = lp.join_asof(
                    theirs, on="at", by=by, strategy=strategy, tolerance=tolerance,
                    check_sortedness=False,
                )  # fmt: skip
                assert found.columns == expected.columns
                assert found.to_dicts() == expected.sort("at").to_dicts()
    exact = from_dict({"k": [1, 2]})
    assert exact.join_asof(exact, on="k", allow_exact_matches=False, coalesce=False).sort(
        "k"
    ).to_dict() == {"k": [1, 2], "k_right": [None, 1]}
    named = exact.join_asof(right.select(t="v"), left_on="k", right_on="t", tolerance=0)
    assert named.sort("k").to_dict() == {"k": [1, 2], "t": [1, 2]}


def test_asof_null_keys_match_nothing(executor: LocalExecutor) -> None:
    left = RemoteFrame(from_dict({"k": [None, 5], "g": [1, None]}).plan, executor)
    right = from_dict({"k": [None, 5, 4], "g": [1, None, 1], "v": [1, 2, 3]})
    joined = left.join_asof(right, on="k").sort("k")
    assert joined.select("k", "v").to_dict() == {"k": [5, None], "v": [2, None]}
    by = left.join_asof(right, on="k", by="g").sort("k")
    assert by.to_dict() == {"k": [5, None], "g": [None, 1], "v": [None, None]}


BAD: dict[str, tuple[Callable[[RemoteFrame], Any], type[Exception], str]] = {
    "shift without order": (
        lambda f: f.with_columns(col("i").shift()),
        ExpressionError,
        r"shift\(\) depends on the order of rows.*over\(order_by",
    ),
    "cum_sum over without order": (
        lambda f: f.with_columns(col("i").cum_sum().over("g")), ExpressionError, "cum_sum"),
    "first without order": (
        lambda f: f.group_by("g").agg(col("i").first()), ExpressionError, "first.order_by"),
    "first over without order": (
        lambda f: f.with_columns(col("i").first().over("g")), ExpressionError, "first"),
    "window in agg": (
        lambda f: f.group_by("g").agg(col("i").lag()), ExpressionError, "a group has one"),
    "over in agg": (
        lambda f: f.group_by("g").agg(col("i").sum().over("b")), ExpressionError, "over"),
    "over an aggregate": (
        lambda f: f.select(col("i").sum().over(col("f").max())), ExpressionError, "bare aggregate"),
    "filter without aggregate": (
        lambda f: f.select(col("i").filter(col("b"))), ExpressionError, "aggregate must follow"),
    "sort_by without aggregate": (
        lambda f: f.select(col("i").sort_by("f")), ExpressionError, "aggregate must follow"),
    "unknown in over": (
        lambda f: f.select(col("i").sum().over("gg")), ColumnNotFoundError, "'gg'"),
    "unknown order": (
        lambda f: f.select(col("i").shift().over(order_by="idd")), ColumnNotFoundError, "'id'"),
    "unknown in several": (lambda f: f.select(col("i", "ff")), ColumnNotFoundError, "'ff'"),
    "different widths": (
        lambda f: f.select(cs.numeric() + col("i", "f")), ExpressionError, "2, 4"),
    "several as one": (
        lambda f: f.select(x=cs.numeric()), ExpressionError, "stands for 4 columns"),
    "is_in text": (lambda f: col("s").is_in("abc"), ExpressionError, "list of values"),
    "closed": (lambda f: col("i").is_between(1, 2, closed="up"), ExpressionError, "closed='up'"),
    "clip": (lambda f: col("i").clip(), ExpressionError, "needs a bound"),
    "rank": (lambda f: col("i").rank("best"), ExpressionError, "method='best'"),
    "ddof": (lambda f: col("i").std(ddof=2), ExpressionError, "ddof=2"),
    "quantile": (lambda f: col("i").quantile(2), ExpressionError, "between 0 and 1"),
    "interpolation": (
        lambda f: col("i").quantile(0.5, "nearest"), ExpressionError, "not supported"),
    "rolling": (lambda f: col("i").rolling_sum(0), ExpressionError, "window_size=0"),
    "truncate": (lambda f: col("t").dt.truncate("1 day"), ExpressionError, "span of time"),
    "truncate two": (lambda f: col("t").dt.truncate("1d2h"), ExpressionError, "one positive"),
    "epoch": (lambda f: col("t").dt.epoch("h"), ExpressionError, "time_unit"),
    "year of a string": (lambda f: f.select(col("s").dt.year()), ExpressionError, "s.dt.year"),
    "capitals of a number": (
        lambda f: f.select(col("i").str.to_uppercase()), ExpressionError, "i.str"),
    "pad": (lambda f: col("s").str.pad_start(3, "ab"), ExpressionError, "one character"),
    "zone": (lambda f: col("s").str.to_datetime("%H%%%z"), ExpressionError, "no time zones"),
    "strptime": (lambda f: col("s").str.strptime(int), ExpressionError, "neither a date"),
    "and of numbers": (lambda f: f.filter(col("f") & col("b")), ExpressionError, "condition"),
    "col of a number": (lambda f: col(5), ExpressionError, "names of columns"),
    "iterate": (lambda f: list(col("a")), ExpressionError, "iterated"),
    "type": (lambda f: col("a").cast(5), ExpressionError, "not a type"),
    "frame as a truth": (lambda f: bool(f), ExpressionError, "truth value"),
    "frame by name": (lambda f: f["i"], ExpressionError, "select"),
    "unique keep": (lambda f: f.unique(keep="some"), ExpressionError, "keep='some'"),
    "unique order": (lambda f: f.unique("g", keep="first"), ExpressionError, "order_by"),
    "tail": (lambda f: f.tail(2), ExpressionError, "sort"),
    "negative slice": (lambda f: f.slice(-2), ExpressionError, "sort"),
    "sort flags": (lambda f: f.sort("i", nulls_last=[True, False]), ExpressionError, "nulls_last"),
    "drop an expression": (lambda f: f.drop(col("i") + 1), ExpressionError, "not a column"),
    "rename twice": (lambda f: f.rename(lambda n: "x"), AmbiguousColumnError, "'x'"),
    "agg of a name": (lambda f: f.group_by("g").agg("i"), ExpressionError, "an expression"),
    "horizontal of nothing": (
        lambda f: f.select(remote_frame.max_horizontal(cs.binary())), ExpressionError, "no such"),
    "asof strategy": (
        lambda f: f.join_asof(f, on="i", strategy="up"), ExpressionError, "strategy"),
    "asof without a key": (lambda f: f.join_asof(f, by="g"), ExpressionError, "key is needed"),
    "asof two keys": (lambda f: f.join_asof(f, on=["i", "f"]), ExpressionError, "takes one"),
    "asof tolerance": (
        lambda f: f.join_asof(f, on="i", tolerance="2h"), ExpressionError, "span of time"),
    "asof types": (
        lambda f: f.join_asof(f, left_on="i", right_on="s"), ExpressionError, "join_asof"),
    "sql": (lambda f: f.sql("select nothing from self"), ExpressionError, "nothing"),
    "sql table": (lambda f: f.sql("select * from other"), ExpressionError, "other"),
    "sql file": (lambda f: f.sql("select * from 'a.csv'"), ExpressionError, "a.csv"),
    "sql statement": (lambda f: f.sql("drop table self"), ExpressionError, "SELECT"),
    "sql two": (lambda f: f.sql("select 1; select 2"), ExpressionError, "one SELECT"),
    "sql syntax": (lambda f: f.sql("select from where"), ExpressionError, "syntax"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_named(frame: RemoteFrame, case: str) -> None:
    use, error, message = BAD[case]
    with pytest.raises(error, match=message):
        use(frame)


def test_statements_over_frames(frame: RemoteFrame) -> None:
    small = from_dict({"g": ["x", "y"], "name": ["ex", "why"]})
    text = """
        with best as (select g, max(f) as f from big group by g)
        select upper(name) as name, name, f from best join small using (g) -- the end
    """
    found = remote_frame.sql(text, big=frame.filter(col("i") > 0), small=small)
    assert found.columns[0] == "name"
    assert found.collect().num_rows == 2
    again = frame.sql("select a.id from self a join self b on a.id = b.id + 1 order by 1;")
    assert again.to_dict() == {"id": list(range(1, 7))}
    assert frame.sql("from self select id where id < 2", table_name="self").to_dict() == {
        "id": [0, 1]
    }
    assert remote_frame.sql("select 1 as one").to_dict() == {"one": [1]}
    total = frame.sql("select sum(id) as s from self").filter(col("s") > 20)
    assert total.to_dicts()[0]["s"] == 21
    assert "Query" in total.explain()
    named = frame.sql('select "select".id from "select" where id = 3', table_name="select")
    assert named.to_dict() == {"id": [3]}


def test_the_first_of_the_first(frame: RemoteFrame) -> None:
    """DuckDB's optimizer stumbles over this unless it is told not to."""
    once = frame.drop("odd").unique(["g", "b"], keep="first", order_by="id")
    twice = once.unique(["g", "b"], keep="first", order_by="id")
    assert twice.sort("id").to_dicts() == once.sort("id").to_dicts()


def test_a_window_over_a_window(frame: RemoteFrame) -> None:
    """The inner one is over all rows, as in nested SELECTs."""
    away = (col("f") - col("f").mean().over("g")).abs().max().over("b")
    two_steps = frame.with_columns(away=(col("f") - col("f").mean().over("g")).abs())
    expected = two_steps.with_columns(away=col("away").max().over("b")).sort("id").to_dict()
    assert frame.with_columns(away=away).sort("id").to_dict()["away"] == expected["away"]
    assert frame.select(col("s").str.find("2").alias("at")).filter(col("at") > 0).to_dict() == {
        "at": [3]
    }


def test_a_thousand_conditions(frame: RemoteFrame) -> None:
    some = col("i") == 7
    for i in range(1000):
        some = some | (col("id") == i + 5)
    assert frame.filter(some).select("id").sort("id").to_dict() == {"id": [3, 5, 6]}
    every = col("id") >= 0
    for i in range(1000):
        every = every & (col("id") != i + 2)
    assert frame.filter(every).select("id").sort("id").to_dict() == {"id": [0, 1]}
    assert repr(col("a") | col("b") | col("c") & col("d")) == "(a | b | (c & d))"
    named = (col("b") | (col("i") > 2)).alias("x") | col("b")
    assert frame.select(named).columns == ["x"]


def test_thousands_of_columns(executor: LocalExecutor) -> None:
    names = [f"c{i}" for i in range(2000)]
    frame = RemoteFrame(from_dict({n: [i, None] for i, n in enumerate(names)}).plan, executor)
    assert frame.with_columns(cs.all() + 1).select(names[::-1]).columns == names[::-1]
    assert frame.drop(cs.by_name(names[1:])).columns == ["c0"]
    assert frame.select(cs.all().exclude("^c.$").max()).to_dicts()[0]["c1999"] == 1999
    assert frame.group_by("c0").agg(cs.all().max(), cs.all().min().name.suffix("_")).width == 3999
    assert frame.join(frame, on="c0").width == 3999


def test_texts_of_expressions() -> None:
    shown = {
        "a.rank(dense).over(g, order_by=[t])": col("a").rank("dense").over("g", order_by="t"),
        "a.filter(b).sum()": col("a").filter(col("b")).sum(),
        "a.str.contains('x')": col("a").str.contains("x"),
        "a.dt.truncate(1d)": col("a").dt.truncate("1d"),
        "row_number().over(order_by=[a]) as n": remote_frame.row_number()
        .over(order_by="a")
        .alias("n"),
        "max_horizontal(a, b)": remote_frame.max_horizontal("a", "b"),
        "col('a', 'b').max()": col("a", "b").max(),
        "a.is_in([1, 2])": col("a").is_in([1, 2]),
        "~a": ~col("a"),
        "len()": remote_frame.len(),
        "a.fill_null(0)": col("a").fill_null(0),
        "a.cast(int64)": col("a").cast(int),
        "1": lit(1),
    }
    assert {k: repr(v) for k, v in shown.items()} == {k: k for k in shown}
