"""SQL that is not TPC-DS: planned, cut, run by workers, compared with DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import SqlError, UnsupportedSqlError

if TYPE_CHECKING:
    from conftest import Beside

# What DuckDB can do and the engine cannot, with what the refusal names.
REFUSED = [
    ("select distinct on (page) page, id from event order by page, id", "DISTINCT ON"),
    ("select page from event intersect all select id from page", "INTERSECT ALL"),
    ("select page from event except all select id from page", "EXCEPT ALL"),
    ("select id from page union by name select id from visitor", "UNION BY NAME"),
    ("select page from event where page > all (select id from page)", "ALL"),
    ("select page from event where page = any (select id from page)", "ANY"),
    ("select count(*) from event where (page, kind) in ((1, 2), (3, 4))", "row"),
    ("select id in (select page from event) from page", "IN"),
    ("select id, exists (select 1 from event e where e.page = p.id) from page p", "correlated"),
    ("select * from event e asof join page p on e.id >= p.id", "ASOF"),
    ("select * from unnest([1, 2, 3])", "UNNEST"),
    ("select * from range(5)", "RANGE"),
    (
        "with recursive r as (select 1 n union all select n + 1 from r) select n from r limit 3",
        "recursive",
    ),
    (
        "select sum(id) over (order by id range between 3 preceding and current row) from event",
        "frame",
    ),
    ("select sum(price) filter (where mobile) over (partition by page) from event", "FILTER"),
    ("select lag(price ignore nulls) over (order by id) from event", "IGNORE NULLS"),
    (
        "select grouping_id(kind, mobile), count(*) from event group by cube (kind, mobile)",
        "GROUPING_ID",
    ),
    ("select id from event order by random() limit 3", "random"),
    ("select uuid()", "uuid"),
    ("select bit_count(id) from event", "bit_count"),
    ("select map {'a': 1}", "map"),
    ("select [id] from page", "LIST"),
    ("select {'a': id} from page", "STRUCT"),
    ("select array_agg(id) from page", "array_agg"),
    ("select percentile_cont(0.5) within group (order by price) from event", "WITHIN GROUP"),
    ("select * from page pivot (sum(value) for section in (0, 1))", "PIVOT"),
    ("select * from page p, lateral (select p.id + 1) l", "LATERAL"),
    ("select ts at time zone 'UTC' from event", "TIME ZONE"),
    ("select split_part(tag, 'a', 1) from event", "string_split"),
    ("select * from event using sample 3", "SAMPLE"),
    ("select columns('id|kind') from event", "COLUMNS"),
    ("select id from event limit 10%", "LIMIT"),
    ("create table z (a int)", "CREATE"),
    ("select tag from event order by tag collate nocase", "collation"),
]


def queries() -> list[Any]:
    """Each of corpus.sql, with its section."""
    found, section, number = [], "", 0
    text = (Path(__file__).parent / "corpus.sql").read_text()
    for piece in text.split(";\n"):
        for line in piece.splitlines():
            if line.startswith("-- # "):
                section, number = line.removeprefix("-- # "), 0
        sql = "\n".join(line for line in piece.splitlines() if not line.startswith("--")).strip()
        if sql:
            found.append(pytest.param(section, sql, id=f"{section}-{number}"))
            number += 1
    return found


@pytest.mark.parametrize(("section", "sql"), queries())
def test_query(shop: Beside, section: str, sql: str) -> None:
    shop.check(sql, ordered=section == "ordered")


@pytest.mark.parametrize(("sql", "named"), REFUSED)
def test_what_is_not_covered_is_refused_by_name(shop: Beside, sql: str, named: str) -> None:
    shop.connection.execute(sql)  # it is SQL
    with pytest.raises(UnsupportedSqlError) as caught:
        shop.session.sql(sql)
    assert named.lower() in str(caught.value).lower()
    assert "\n" not in str(caught.value)


def test_what_is_wrong_is_no_construct(shop: Beside) -> None:
    with pytest.raises(SqlError) as caught:
        shop.session.sql("select nosuch(id) from event")
    assert not isinstance(caught.value, UnsupportedSqlError)
