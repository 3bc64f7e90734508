"""Random plans: DuckDB answers as a plain interpreter over Python rows does."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import build
from operators.codec import plan_from_json, plan_to_json
from operators.duckdb import Kernel, lower
from operators.errors import KernelError, PlanError
from operators.expr import (
    Aggregate,
    Call,
    Case,
    Cast,
    Column,
    Exists,
    Expr,
    InList,
    InSubquery,
    Lit,
    ScalarSubquery,
    SortKey,
)
from operators.printer import format_plan
from operators.rel import (
    Aggregation,
    Filter,
    InputSource,
    Join,
    JoinKind,
    Limit,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
)

Row = tuple[Any, ...]
TABLES = {
    # Names on purpose: duplicates, reserved words, quotes, case.
    "left": (("k", "select", 'od"d'), [(1, 10, None), (1, 20, 5), (2, None, 5), (None, 7, 1)]),
    "Right Side": (("k", "K2", "v"), [(1, 1, 3), (2, 10, 4), (None, 7, None), (2, 10, 4)]),
    "empty": (("k", "x", "y"), []),
}


def arrow(name: str) -> pa.Table:
    names, rows = TABLES[name]
    columns = list(zip(*rows, strict=True)) or [[] for _ in names]
    return pa.table([pa.array(list(c), pa.int32()) for c in columns], names=list(names))


def scan(name: str) -> Scan:
    return build.scan(InputSource(name), arrow(name).schema)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel.open(1, 500_000_000) as k:
        yield k


def answer(kernel: Kernel, plan: Rel) -> list[Row]:
    fragment = lower(plan)
    inputs = {i.source.name: arrow(i.source.name) for i in fragment.supplied}
    table = kernel.table(fragment, inputs)
    assert table.schema.types == list(plan.schema.types)
    assert table.schema.names == list(plan.schema.names)
    return list(zip(*(c.to_pylist() for c in table.columns), strict=True))


# The reference


def value(expr: Expr, row: Row) -> Any:
    match expr:
        case Column(index=i):
            return row[i]
        case Lit(value=v):
            return v
        case Cast(arg=arg):
            return value(arg, row)
        case Case(branches=branches, otherwise=otherwise):
            for condition, result in branches:
                if value(condition, row) is True:
                    return value(result, row)
            return None if otherwise is None else value(otherwise, row)
        case InList(arg=arg, options=options):
            return contained(value(arg, row), [value(o, row) for o in options])
        case InSubquery(arg=arg, rel=rel):
            return contained(value(arg, row), [r[0] for r in rows(rel)])
        case Exists(rel=rel):
            return bool(rows(rel))
        case ScalarSubquery(rel=rel):
            found = rows(rel)
            return found[0][0] if found else None
        case Call(function=name, args=args):
            return call(name, [value(a, row) for a in args])
    raise AssertionError(expr)


def contained(needle: Any, haystack: list[Any]) -> bool | None:
    if not haystack:
        return False
    if needle is None:
        return None
    return True if needle in haystack else None if None in haystack else False


def call(name: str, args: list[Any]) -> Any:
    match name:
        case "and":
            return False if False in args else None if None in args else True
        case "or":
            return True if True in args else None if None in args else False
        case "is_null":
            return args[0] is None
        case "is_not_null":
            return args[0] is not None
        case "is_not_distinct_from":
            return args[0] == args[1]
        case "coalesce":
            return next((a for a in args if a is not None), None)
    if None in args:
        return None
    simple: dict[str, Callable[..., Any]] = {
        "not": lambda a: not a,
        "negate": lambda a: -a,
        "add": lambda a, b: a + b,
        "subtract": lambda a, b: a - b,
        "equal": lambda a, b: a == b,
        "less": lambda a, b: a < b,
        "greater_equal": lambda a, b: a >= b,
        "divide": lambda a, b: a / b if b else None,
    }
    return simple[name](*args)


def rows(rel: Rel) -> list[Row]:
    match rel:
        case Scan(source=InputSource(name=name), columns=columns, predicate=predicate):
            kept = [r for r in TABLES[name][1] if predicate is None or value(predicate, r) is True]
            return [tuple(r[c] for c in columns) for r in kept]
        case Filter(input=below, predicate=predicate):
            return [r for r in rows(below) if value(predicate, r) is True]
        case Project(input=below, exprs=exprs):
            return [tuple(value(e, r) for e in exprs) for r in rows(below)]
        case Join():
            return joined(rel)
        case Aggregation():
            return grouped(rel)
        case Sort(input=below, keys=keys):
            return sorted(rows(below), key=functools.cmp_to_key(order(keys)))
        case Limit(input=below, count=count, offset=offset):
            found = rows(below)[offset:]
            return found if count is None else found[:count]
        case SetOperation(operation="union", all=keep, operands=operands):
            found = [r for o in operands for r in rows(o)]
            return found if keep else list(dict.fromkeys(found))
    raise AssertionError(rel)


def joined(rel: Join) -> list[Row]:
    left, right = rows(rel.left), rows(rel.right)

    def match(a: Row, b: Row) -> bool:
        for i, j, nulls in zip(rel.left_keys, rel.right_keys, rel.null_equal, strict=True):
            if a[i] != b[j] or (a[i] is None and not nulls):
                return False
        return rel.condition is None or value(rel.condition, a + b) is True

    if rel.kind == "semi":
        return [a for a in left if any(match(a, b) for b in right)]
    if rel.kind == "anti":
        return [a for a in left if not any(match(a, b) for b in right)]
    if rel.kind == "mark":
        return [(*a, any(match(a, b) for b in right)) for a in left]
    found = [a + b for a in left for b in right if match(a, b)]
    if rel.kind in ("left", "full"):
        blank = (None,) * len(rel.right.schema)
        found += [a + blank for a in left if not any(match(a, b) for b in right)]
    if rel.kind in ("right", "full"):
        blank = (None,) * len(rel.left.schema)
        found += [blank + b for b in right if not any(match(a, b) for a in left)]
    return found


def grouped(rel: Aggregation) -> list[Row]:
    below = rows(rel.input)
    every = tuple(range(len(rel.keys)))
    found: list[Row] = []
    sets = rel.grouping_sets or (every,)
    for chosen in sets:
        groups: dict[Row, list[Row]] = {}
        if not chosen:
            groups[()] = []
        for r in below:
            groups.setdefault(tuple(value(rel.keys[k], r) for k in chosen), []).append(r)
        for key, members in groups.items():
            values = dict(zip(chosen, key, strict=True))
            out: list[Any] = [values.get(k) for k in every]
            if len(sets) > 1:
                out.append(sum(1 << (len(every) - 1 - k) for k in every if k not in chosen))
            out += [measured(m, members) for m in rel.measures]
            found.append(tuple(out))
    return found


def measured(measure: Aggregate, members: list[Row]) -> Any:
    if measure.filter is not None:
        members = [r for r in members if value(measure.filter, r) is True]
    if not measure.args:
        return len(members)
    values = [v for r in members if (v := value(measure.args[0], r)) is not None]
    if measure.distinct:
        values = list(dict.fromkeys(values))
    if measure.function == "count":
        return len(values)
    functions: dict[str, Callable[[list[Any]], Any]] = {"sum": sum, "min": min, "max": max}
    return functions[measure.function](values) if values else None


def order(keys: tuple[SortKey, ...]) -> Callable[[Row, Row], int]:
    def compare(a: Row, b: Row) -> int:
        for key in keys:
            x, y = value(key.expr, a), value(key.expr, b)
            if x == y:
                continue
            if x is None or y is None:
                return -1 if (x is None) == key.nulls_first else 1
            return (1 if key.descending else -1) * (1 if x < y else -1)
        return 0

    return compare


# Random plans


@st.composite
def numbers(draw: st.DrawFn, rel: Rel, depth: int = 2) -> Expr:
    usable = [i for i, t in enumerate(rel.schema.types) if pa.types.is_integer(t)]
    leaves = [st.integers(-3, 20).map(build.lit)]
    if usable:
        leaves.append(st.sampled_from(usable).map(lambda i: build.col(rel.schema, i)))
    if depth == 0 or draw(st.booleans()):
        return draw(st.one_of(leaves))
    a, b = draw(numbers(rel, depth - 1)), draw(numbers(rel, depth - 1))
    match draw(st.integers(0, 4)):
        case 0:
            return build.call("coalesce", a, b)
        case 1:
            return build.case([(draw(conditions(rel, depth - 1)), a)], b)
        case 2:
            return build.call("negate", a)
    return build.call(draw(st.sampled_from(["add", "subtract"])), a, b)


@st.composite
def conditions(draw: st.DrawFn, rel: Rel, depth: int = 2) -> Expr:
    a, b = draw(numbers(rel, max(depth - 1, 0))), draw(numbers(rel, max(depth - 1, 0)))
    choice = draw(st.integers(0, 9 if depth else 5))
    if choice < 4:
        names = ["equal", "less", "greater_equal", "is_not_distinct_from"]
        return build.call(names[choice], a, b)
    if choice == 4:
        return build.call(draw(st.sampled_from(["is_null", "is_not_null"])), a)
    if choice == 5:
        null = Lit(pa.int32(), None)
        return build.in_list(a, [b, build.lit(5), *([null] if draw(st.booleans()) else [])])
    if choice == 6:
        return build.call("not", draw(conditions(rel, depth - 1)))
    if choice == 7:
        side = build.project(scan(draw(st.sampled_from(list(TABLES)))), [Column(pa.int32(), 0)])
        return draw(st.sampled_from([build.in_subquery(a, side), build.exists(side)]))
    name = draw(st.sampled_from(["and", "or"]))
    return build.call(name, draw(conditions(rel, depth - 1)), draw(conditions(rel, depth - 1)))


@st.composite
def plans(draw: st.DrawFn, depth: int = 4) -> Rel:
    if depth == 0:
        chosen = scan(draw(st.sampled_from(list(TABLES))))
        if draw(st.booleans()):
            return build.scan(
                chosen.source, chosen.source_schema, [2, 0], draw(conditions(chosen, 1))
            )
        return chosen
    below = draw(plans(depth - 1))
    usable = [i for i, t in enumerate(below.schema.types) if pa.types.is_int32(t)]
    match draw(st.integers(0, 6)):
        case 0:
            return build.filter(below, draw(conditions(below)))
        case 1:
            exprs = draw(st.lists(numbers(below), min_size=1, max_size=3))
            names = draw(st.lists(st.sampled_from(["k", "x", "X"]), min_size=3, max_size=3))
            return build.project(below, exprs, names[: len(exprs)])
        case 2 | 3 if usable:
            other = draw(st.sampled_from([below, draw(plans(max(depth - 2, 0)))]))
            theirs = [i for i, t in enumerate(other.schema.types) if pa.types.is_int32(t)]
            kinds = ["inner", "left", "right", "full", "semi", "anti", "mark"]
            kind = draw(st.sampled_from(kinds))
            if theirs:
                pair = (draw(st.sampled_from(usable)), draw(st.sampled_from(theirs)))
                side = draw(st.sampled_from([None, "left", "right"]))
                nulls = [draw(st.booleans())]
                return build.join(below, other, kind, on=[pair], null_equal=nulls, build=side)
        case 4:
            keys = draw(st.lists(numbers(below, 1), max_size=2))
            arg = draw(numbers(below, 1))
            measures = [
                build.aggregate("count", filter=draw(st.none() | conditions(below, 1))),
                build.aggregate("count", arg, distinct=draw(st.booleans())),
                build.aggregate(draw(st.sampled_from(["min", "max"])), arg),
            ]
            sets = None
            if len(keys) == 2 and draw(st.booleans()):
                sets = [(0, 1), (0,), ()]
            return build.aggregation(below, keys, measures, grouping_sets=sets)
        case 5:
            return build.set_operation("union", [below, below], all=draw(st.booleans()))
    # A top-k over all columns, so that ties do not matter.
    keys = [
        build.sort_key(
            build.col(below.schema, i),
            descending=draw(st.booleans()),
            nulls_first=draw(st.booleans()),
        )
        for i in range(len(below.schema))
    ]
    ordered = build.sort(below, keys)
    return build.limit(ordered, draw(st.integers(0, 5)), draw(st.integers(0, 2)))


@settings(max_examples=100, deadline=None)
@given(plans())
def test_random_plans(kernel: Kernel, plan: Rel) -> None:
    assert Counter(answer(kernel, plan)) == Counter(rows(plan)), lower(plan).sql
    assert plan_from_json(plan_to_json(plan)) == plan
    assert format_plan(plan)


# What a random plan would rarely hit


def test_order_is_kept_and_nulls_stand_where_they_are_told(kernel: Kernel) -> None:
    left = scan("left")
    for descending in (False, True):
        for first in (False, True):
            key = build.sort_key(
                build.col(left.schema, 0), descending=descending, nulls_first=first
            )
            tie = build.sort_key(build.col(left.schema, 1))
            plan = build.sort(left, [key, tie])
            assert answer(kernel, plan) == rows(plan)


def test_constants_are_no_positions_in_group_by_and_order_by(kernel: Kernel) -> None:
    one = build.project(scan("left"), [build.lit(1), build.lit("a"), Column(pa.int32(), 0)])
    plan = build.aggregation(
        one, [build.col(one.schema, 0), build.col(one.schema, 1)], [build.aggregate("count")]
    )
    assert answer(kernel, plan) == [(1, "a", 4)]
    keys = [build.sort_key(build.col(one.schema, i)) for i in (0, 1, 2)]
    assert [r[2] for r in answer(kernel, build.sort(one, keys))] == [1, 1, 2, None]


def test_an_aggregate_that_nobody_reads_still_makes_one_row(kernel: Kernel) -> None:
    for name in ("left", "empty"):
        counted = build.aggregation(scan(name), [], [build.aggregate("count")])
        assert answer(kernel, build.project(counted, [build.lit(3)])) == [(3,)]


def test_a_shared_relation_is_written_once(kernel: Kernel) -> None:
    counted = build.aggregation(scan("left"), [Column(pa.int32(), 0)], [build.aggregate("count")])
    plan = build.join(counted, counted, on=[(0, 0)])
    assert lower(plan).sql.count("GROUP BY") == 1
    assert Counter(answer(kernel, plan)) == Counter(rows(plan))


def test_windows_over_aggregates_read_as_one_select(kernel: Kernel) -> None:
    grouped_ = build.aggregation(
        scan("left"), [Column(pa.int32(), 0)], [build.aggregate("sum", Column(pa.int32(), 1))]
    )
    total = build.col(grouped_.schema, 1)
    rank = build.window("rank", order_by=[build.sort_key(total, descending=True)])
    plan = build.project(grouped_, [build.col(grouped_.schema, 0), rank], ["k", "rank"])
    assert lower(plan).sql.count("SELECT") == 1
    assert Counter(answer(kernel, plan)) == Counter([(1, 1), (None, 2), (2, 3)])
    first = build.filter(plan, build.call("equal", build.col(plan.schema, 1), build.lit(1)))
    assert answer(kernel, first) == [(1, 1)]


def test_only_named_columns_are_asked_for() -> None:
    plan = build.scan(
        InputSource("left"),
        arrow("left").schema,
        ["k"],
        build.call("is_not_null", Column(pa.int32(), 2)),
    )
    (one,) = lower(plan).inputs
    assert one.columns == ("k", 'od"d')


def test_a_scalar_subquery_of_two_rows_is_an_error(kernel: Kernel) -> None:
    two = build.project(scan("left"), [Column(pa.int32(), 1)])
    plan = build.project(scan("left"), [build.scalar_subquery(two)])
    with pytest.raises(KernelError, match="More than one row"):
        answer(kernel, plan)
    assert len(answer(kernel, scan("left"))) == 4


def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(PlanError, match="'nope'"):
        build.col(scan("left").schema, "nope")
    with pytest.raises(PlanError, match="column 9"):
        build.filter(scan("left"), build.call("is_null", Column(pa.int32(), 9)))
    with pytest.raises(PlanError, match="'k' is int32"):
        build.project(scan("left"), [Column(pa.string(), 0)])


def test_a_key_in_a_condition_on_groups_stays_one_operand(kernel: Kernel) -> None:
    left = scan("left")
    key = build.call("subtract", build.lit(7, pa.int32()), build.col(left.schema, 0))
    groups = build.aggregation(left, [key], [build.aggregate("count")])
    again = build.call("subtract", build.lit(7, pa.int32()), build.col(groups.schema, 0))
    for bound in range(4):
        plan = build.filter(groups, build.call("equal", again, build.lit(bound, pa.int32())))
        assert Counter(answer(kernel, plan)) == Counter(rows(plan)), lower(plan).sql


def test_equal_keys_of_grouping_sets_are_two(kernel: Kernel) -> None:
    left = scan("left")
    for key in (build.lit(0, pa.int32()), build.col(left.schema, 0)):
        plan = build.aggregation(
            left, [key, key], [build.aggregate("count")], grouping_sets=[(0, 1), (0,), ()]
        )
        assert Counter(answer(kernel, plan)) == Counter(rows(plan)), lower(plan).sql


@pytest.mark.parametrize("kind", ["left", "right", "full"])
@pytest.mark.parametrize("built", ["left", "right", None])
def test_a_constant_is_null_where_an_outer_join_finds_no_partner(
    kernel: Kernel, kind: JoinKind, built: Literal["left", "right"] | None
) -> None:
    constant = build.project(scan("left"), [build.lit(7), build.col(scan("left").schema, 0)])
    other = build.project(
        scan("Right Side"), [build.lit(8), build.col(scan("Right Side").schema, 1)]
    )
    plan = build.join(constant, other, kind, on=[(1, 1)], build=built)
    assert Counter(answer(kernel, plan)) == Counter(rows(plan))


def test_names_that_were_made_are_not_made_again() -> None:
    """A source may have the name that another one's second reading was given."""
    schema = pa.schema([("a", pa.int64())])
    one = build.scan(InputSource("t"), schema)
    again = build.scan(InputSource("t"), schema)
    wanted = build.filter(again, build.call("is_null", build.col(again.schema, 0)))
    other = build.scan(InputSource("t_2"), schema)
    fragment = lower(build.set_operation("union", [one, wanted, other], all=True))
    data = {"t": pa.table({"a": [1, None]}), "t_2": pa.table({"a": [5]})}
    with Kernel.open(1, 1 << 28) as kernel:
        rows = kernel.table(fragment, data).column(0).to_pylist()
    assert rows == [1, None, None, 5]


@pytest.mark.timeout(60)
def test_a_large_union_of_scans_and_groups_comes_to_its_end() -> None:
    """DuckDB 1.5.5 waits for ever if it streams it."""
    count = 700_000
    data = pa.table({"a": pa.array(range(count), pa.int64())})
    rel = build.scan(InputSource("t"), data.schema)
    shared = build.limit(rel, count - 1)

    def grouped() -> Rel:
        return build.aggregation(shared, [build.col(rel.schema, 0)], [build.aggregate("count")])

    union = build.set_operation("union", [grouped() for _ in range(4)], all=True)
    kept = build.filter(union, build.call("is_not_null", build.col(union.schema, 0)))
    key = build.col(rel.schema, 0)

    def numbered() -> Rel:
        fewer = build.filter(rel, build.call("greater", key, build.lit(0)))
        row = build.window("row_number", order_by=[SortKey(key)])
        return build.project(fewer, [key, row])

    windows = build.set_operation("union", [numbered() for _ in range(4)], all=True)
    for plan in (union, kept, windows):
        with Kernel.open(1, 1 << 30) as kernel:
            assert kernel.table(lower(plan), {"t": data}).num_rows == 4 * (count - 1)


def test_what_is_limited_below_a_join_is_collected_first() -> None:
    left, right = scan("left"), scan("Right Side")
    first = build.limit(build.sort(left, [SortKey(build.col(left.schema, 0))]), 3)
    joined = build.join(first, right, "inner", on=[(0, 0)])
    assert lower(joined).sql.count("AS MATERIALIZED") == 1
    assert "MATERIALIZED" not in lower(build.limit(build.join(left, right, on=[(0, 0)]), 3)).sql
    assert "MATERIALIZED" not in lower(build.limit(first, 2)).sql


def test_only_unions_whose_rows_are_streamed_are_collected_first() -> None:
    left = scan("left")
    key = build.col(left.schema, 0)
    groups = build.aggregation(left, [key], [build.aggregate("count")])
    union = build.set_operation("union", [groups, groups], all=True)
    scans = build.set_operation("union", [left, left], all=True)
    again = build.aggregation(union, [key], [])
    assert "AS MATERIALIZED" in lower(union).sql
    assert "AS MATERIALIZED" in lower(build.limit(union, 2)).sql
    # What stays is the shared operand.
    assert (
        lower(again).sql.count("AS MATERIALIZED") == lower(union).sql.count("AS MATERIALIZED") - 1
    )
    assert "MATERIALIZED" not in lower(scans).sql


@pytest.mark.parametrize(
    "constant",
    [0, 9, -1, None, Decimal("1.5"), "t.k", "it's 1"],
)
def test_constants_are_no_positions(kernel: Kernel, constant: Any) -> None:
    """Columns that are constants, and what is computed from them, order and group nothing."""
    left = scan("left")
    lit = build.lit(constant)
    chosen = build.call("coalesce", lit, lit)
    below = build.project(left, [lit, chosen, build.col(left.schema, 0), build.col(left.schema, 1)])
    of = functools.partial(build.col, below.schema)
    keys = [of(0), of(1), build.call("coalesce", of(0), of(1)), lit]
    if isinstance(constant, int):
        keys.append(build.call("negate", of(0)))
    for key in keys:
        groups = build.aggregation(below, [key], [build.aggregate("count")])
        assert [row[1] for row in answer(kernel, groups)] == [4], lower(groups).sql
        ordered = build.sort(below, [SortKey(key), SortKey(of(3), nulls_first=False)])
        assert [row[3] for row in answer(kernel, ordered)] == [7, 10, 20, None], lower(ordered).sql
    counted = build.aggregation(below, [of(2)], [build.aggregate("count")])
    by_count = build.sort(counted, [SortKey(build.col(counted.schema, 1), descending=True)])
    assert [row[1] for row in answer(kernel, by_count)] == [2, 1, 1]
