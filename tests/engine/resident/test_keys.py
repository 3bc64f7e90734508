"""Keys that an element asks for before its statement: which, of what, and that no row is missed."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from engine.codegen.fragment import lower_stage
from engine.codegen.text import element_code
from engine.optimizer import Estimates
from engine.resident import keys as module
from engine.resident.keys import wanted_keys
from operators.duckdb import lower

TABLES = ("r", "s", "t")


@st.composite
def relations(draw: st.DrawFn, depth: int = 3) -> str:
    """A SELECT of columns a, b and c of integers."""

    def below() -> str:
        return draw(relations(depth - 1))

    def column() -> str:
        return draw(st.sampled_from("abc"))

    kinds = ["table", "filter", "filter", "shared", "shared"]
    if depth:
        kinds += ["join"] * 6 + ["semi", "semi", "anti", "group", "union", "window", "limit"]
    match draw(st.sampled_from(kinds)):
        case "table":
            return f"select a, b, c from {draw(st.sampled_from(TABLES))}"
        case "filter":
            table, value = draw(st.sampled_from(TABLES)), draw(st.integers(0, 3))
            compared = draw(st.sampled_from(["=", "<", "<>", "is distinct from"]))
            return f"select a, b, c from {table} where {column()} {compared} {value}"
        case "shared":
            return "select a, b, c from shared"
        case "join":
            kind = draw(st.sampled_from(["join"] * 5 + ["left join", "right join", "full join"]))
            equal = draw(st.sampled_from(["=", "=", "is not distinct from"]))
            on = f"x.{column()} {equal} y.{column()}"
            if draw(st.booleans()):
                compared = draw(st.sampled_from(["=", "<"]))
                on += f" and x.{column()} {compared} y.{column()}"
            return f"select x.a, y.b, x.c from ({below()}) x {kind} ({below()}) y on {on}"
        case "semi" | "anti" as kind:
            on = f"x.{column()} = y.{column()}"
            return f"select x.a, x.b, x.c from ({below()}) x {kind} join ({below()}) y on {on}"
        case "group":
            return f"select a, min(b) b, count(c)::int c from ({below()}) x group by a"
        case "union":
            return f"select a, b, c from ({below()}) x union all select b, a, c from ({below()}) y"
        case "window":
            rank = "rank() over (partition by a order by b nulls last)"
            return f"select a, b, {rank}::int c from ({below()}) x"
        case _:
            return f"select a, b, c from ({below()}) x order by a, b, c limit 5"


@st.composite
def queries(draw: st.DrawFn) -> str:
    """One with a relation that several may read, and at least one join that wants keys."""
    shared, main = draw(relations(2)), draw(relations(3))
    # `shared` cannot read itself.
    shared = shared.replace("from shared", "from r")
    column, table = draw(st.sampled_from("abc")), draw(st.sampled_from(TABLES))
    value = draw(st.integers(0, 3))
    return (
        f"with shared as ({shared}) select x.a, x.b, x.c, count(*) n from ({main}) x "
        f"join (select a from {table} where b <= {value}) y on x.{column} = y.a group by all"
    )


@pytest.mark.parametrize(
    "examples", [200, pytest.param(2_000, marks=pytest.mark.slow)], ids=["some", "many"]
)
@pytest.mark.timeout(3600)
def test_no_row_is_missed(
    differential: Any, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any plan, whatever its rows have in common: all keys are asked for that may be, or those that
    estimates say pay for tables of such sizes.
    """
    for name, value in (("QUICK_ROWS", 10), ("DERIVED_ROWS", 10), ("ZONE_ROWS", 3)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "_LEFT_OUT", 1.0)
    asked: Counter[tuple[bool, bool]] = Counter()

    def table(rng: random.Random) -> pa.Table:
        rows, values = rng.choice([0, 5, 20, 20]), [None, *range(rng.choice([3, 6, 6]))]
        return pa.table(
            {
                name: pa.array(rng.choices(values, k=rows), type)
                for name, type in (("a", pa.int32()), ("b", pa.int64()), ("c", pa.int32()))
            }
        )

    @settings(
        deadline=None,
        max_examples=examples,
        derandomize=examples == 200,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(queries(), st.integers(0, 1_000), st.booleans())
    def check(sql: str, seed: int, estimated: bool) -> None:
        rng = random.Random(seed)
        for name in TABLES:
            differential.add(name, table(rng))
        ours, keys = differential.narrowed(sql, Estimates() if estimated else None)
        asked[estimated, keys > 0] += 1
        event(f"{min(keys, 3)} sets of keys")
        differential.same(ours, differential.theirs(sql), ordered=False, said=sql)

    check()
    for estimated in (False, True):
        assert asked[estimated, True] > asked[estimated, False] / 4, asked


@pytest.fixture
def sales(differential: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tables of which `sales` and `returns` are large."""
    for name, rows in (("QUICK_ROWS", 50), ("DERIVED_ROWS", 100), ("ZONE_ROWS", 60)):
        monkeypatch.setattr(module, name, rows)
    sold = {
        "bill": pa.array(range(400), pa.int64()),
        "item": pa.array([i % 40 for i in range(400)], pa.int32()),
        "day": pa.array([i // 10 for i in range(400)], pa.int32()),
    }
    back = {"bill": pa.array(range(0, 400, 2), pa.int64()), "why": [n % 5 for n in range(200)]}
    differential.add("sales", pa.table(sold))
    differential.add("returns", pa.table(back))
    differential.add("items", pa.table({"id": range(40), "colour": [i % 8 for i in range(40)]}))
    differential.add("days", pa.table({"id": range(40), "year": [i // 10 for i in range(40)]}))
    return differential


def asked(tables: Any, sql: str) -> dict[tuple[str, str], list[str]]:
    """By table and column, what is read for its keys; the answer is the same with them."""
    ours, _ = tables.narrowed(sql)
    tables.same(ours, tables.theirs(sql), ordered=False, said=sql)
    estimates = Estimates()
    (stage,) = tables.plan(sql, 1, estimates).stages
    _, found = wanted_keys(stage, estimates)
    return {(o.source.table, o.column): [i.name for i in lower(o.plan).inputs] for o in found}


OF_DAYS = "(select id from days where year = {})"


def test_scans_of_one_table_have_their_own_keys(sales: Any) -> None:
    both = (
        f"select count(*) from (select item from sales join {OF_DAYS.format(1)} d on day = d.id) a "
        f"join (select item, bill from sales join {OF_DAYS.format(2)} d on day = d.id) b "
        "on a.item = b.item"
    )
    assert asked(sales, both) == {("sales", "day"): ["days"], ("sales_2", "day"): ["days"]}
    alike = f"select item from sales join {OF_DAYS.format(1)} d on day = d.id"
    ordered = f"select count(*) from ({alike} union all {alike.replace('1', '3')}) x"
    assert asked(sales, ordered) == {("sales", "day"): ["days"], ("sales_2", "day"): ["days"]}


def test_a_scan_without_keys_reads_the_table_by_its_name(sales: Any) -> None:
    sql = (
        "select count(*) from sales a join (select item from sales join "
        f"{OF_DAYS.format(2)} d on day = d.id) b on a.item = b.item + 0"
    )
    assert asked(sales, sql) == {("sales_2", "day"): ["days"]}


def test_of_a_relation_that_two_read_no_rows_are_left_out(sales: Any) -> None:
    shared = (
        "with few as (select item, day, bill from sales join items on item = items.id "
        "where colour < bill % 5) "
    )
    twice = (
        f"select sum(bill) from few join {OF_DAYS.format(1)} d on day = d.id "
        "union all select sum(bill + day) from few"
    )
    assert asked(sales, shared + twice) == {}


@pytest.mark.parametrize(
    "rows",
    [
        "select day, rank() over (partition by item order by bill) n from sales",
        "select day, bill n from sales order by bill limit 100",
        "select max(day) as day, count(*) n from sales group by item",
        "select day, n from (select item, bill n from sales) s full join "
        "(select id + 0 as item, id as day from days) i on s.item = i.item",
    ],
)
def test_rows_that_others_depend_on_are_not_left_out(sales: Any, rows: str) -> None:
    sql = f"select day, n from ({rows}) x join {OF_DAYS.format(2)} d on day = d.id"
    assert not [column for table, column in asked(sales, sql) if table == "sales"]


def test_what_is_left_of_a_large_table_is_asked(sales: Any) -> None:
    sql = (
        f"select count(*), sum(why) from sales join {OF_DAYS.format(2)} d on day = d.id "
        "join returns on sales.bill = returns.bill"
    )
    assert asked(sales, sql) == {
        ("sales", "day"): ["days"],
        ("returns", "bill"): ["sales", "days"],
    }


def test_a_large_table_that_is_read_whole_is_not_asked(sales: Any) -> None:
    sql = "select count(*) from sales join returns on sales.bill = returns.bill where item % 9 = 1"
    assert asked(sales, sql) == {}
    ranged = sql.replace("item % 9 = 1", "sales.bill < 40")
    assert asked(sales, ranged)["returns", "bill"] == ["sales"]


def test_keys_come_through_an_outer_join(sales: Any) -> None:
    sql = (
        f"select count(*), sum(x.id) from sales join (select d.id from {OF_DAYS.format(1)} d "
        "left join (select id + 0 as other, colour from items) i on d.id = i.other "
        "where i.colour is distinct from 3) x on day = x.id"
    )
    assert asked(sales, sql)["sales", "day"] == ["days"]


def test_questions_call_tables_as_the_statement_does(sales: Any) -> None:
    """Whatever these are called there, because others read tables of that name."""
    sql = (
        "select sum(bill), max(day) from sales where item & 1 = 0 union all "
        "select sum(bill), max(day) from sales where item & 3 = 3 union all "
        f"select count(*), sum(why)::int from (select * from sales join {OF_DAYS.format(2)} d "
        "on day = d.id) s join returns on s.bill = returns.bill"
    )
    assert ("returns", "bill") in asked(sales, sql)
    estimates = Estimates()
    plan = sales.plan(sql, 1, estimates)
    stage, keys = wanted_keys(plan.stages[0], estimates)
    text = element_code(plan, stage, lower_stage(stage), resident=True, keys=keys)
    element: dict[str, Any] = {}
    exec(text, element)
    opened = set(re.findall(r"'(\w+)': element\.resident", text))
    assert opened == {"sales", "sales_2_2", "days", "returns"}
    read = {name: reads for name, _, reads, _ in element["KEYS"]}
    assert read == {"sales_2_2": ["days"], "returns": ["sales_2_2", "days"]}
    for _, _, reads, question in element["KEYS"]:
        assert set(reads) == set(re.findall(r"(?:FROM|JOIN) (\w+)", question)) & opened
