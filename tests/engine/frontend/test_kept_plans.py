"""Plans of texts that come again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.catalog import Catalog
from engine.errors import TableNotFoundError
from engine.frontend import FrontEnd, plan_sql
from engine.recent import Recent
from engine.session import Session


@pytest.fixture
def catalog() -> Catalog:
    catalog = Catalog()
    catalog.register("t", pa.table({"a": [1, 2], "b": ["x", "y"]}))
    return catalog


def test_the_same_text_is_planned_once(catalog: Catalog) -> None:
    first = plan_sql("select a from t where b = 'x'", catalog)
    assert plan_sql("select a from t where b = 'x'", catalog) is first
    assert plan_sql("select a from t where b = 'y'", catalog) is not first


def test_registering_a_table_again_forgets_plans(catalog: Catalog) -> None:
    first = plan_sql("select * from t", catalog)
    catalog.register("t", pa.table({"c": [1.5]}))
    again = plan_sql("select * from t", catalog)
    assert tuple(first.schema.names) == ("a", "b")
    assert tuple(again.schema.names) == ("c",)


def test_a_dropped_table_is_missing(catalog: Catalog) -> None:
    plan_sql("select a from t", catalog)
    catalog.drop("t")
    with pytest.raises(TableNotFoundError):
        plan_sql("select a from t", catalog)


@pytest.mark.parametrize(
    "text",
    [
        "select a, current_date from t",
        "select a from t where date '2000-01-01' < current_localtimestamp()",
        "select localtimestamp",
    ],
)
def test_what_depends_on_the_time_is_planned_again(catalog: Catalog, text: str) -> None:
    front_end = FrontEnd(catalog)
    first = front_end.plan(text)
    assert front_end.plan(text) is not first


def test_plans_are_bounded(catalog: Catalog) -> None:
    front_end = FrontEnd(catalog, kept=2)
    plans = [front_end.plan(f"select a + {i} from t") for i in range(3)]
    assert front_end.plan("select a + 2 from t") is plans[2]
    assert front_end.plan("select a + 1 from t") is plans[1]
    assert front_end.plan("select a + 0 from t") is not plans[0]


def test_recent_forgets_the_one_that_was_not_asked_for_longest() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 0, 1)
    recent.put("b", 0, 2)
    assert recent.get("a", 0) == 1
    recent.put("c", 0, 3)
    assert [recent.get(k, 0) for k in "abc"] == [1, None, 3]
    assert recent.get("a", "another state") is None
    assert len(recent) == 0


def test_a_file_that_changed_is_read_anew_once_it_is_registered_again(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1, 2, 3]}), path)
    with Session() as session:
        session.read_parquet(path)
        assert session.sql("select sum(a) as s from t").collect().to_pylist() == [{"s": 6}]
        pq.write_table(pa.table({"a": [10, 20, 30], "b": [1, 2, 3]}), path)
        session.read_parquet(path)
        assert session.sql("select sum(a) as s from t").collect().to_pylist() == [{"s": 60}]
        assert session.sql("select sum(a) as s from t").collect().to_pylist() == [{"s": 60}]


def test_data_of_the_program_is_not_kept_by_its_plans() -> None:
    with Session() as session:
        assert session.from_dict({"a": [1, 2, 3]}).collect().num_rows == 3
        assert len(session._preparation._kept) == 0


def test_a_query_over_files_is_prepared_once(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1, 2, 3]}), path)
    with Session() as session:
        session.read_parquet(path)
        prepared = [
            session._preparation.prepare(session.sql("select sum(a) as s from t").plan)
            for _ in range(2)
        ]
        assert prepared[0] is prepared[1]
        session.read_parquet(path, "u")
        plan = session.sql("select sum(a) as s from t").plan
        assert session._preparation.prepare(plan) is not prepared[0]
