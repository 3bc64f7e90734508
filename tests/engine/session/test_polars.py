"""Sessions whose elements run in Polars, and in DuckDB where that fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import Session
from engine.execution import QueryFailedError
from openwhisk.app import load_directory
from openwhisk.control import EmbeddedControlPlane

WORDS = ["a", "b", None, "b", "ü", "straße"]


@pytest.fixture(scope="module")
def control() -> Iterator[EmbeddedControlPlane]:
    preimport = ("engine.element", "operators.duckdb", "operators.polars.kernel")
    plane = EmbeddedControlPlane(cores=2, memory=8 << 30, preimport=preimport, prewarm=1)
    yield plane
    plane.close()


@pytest.fixture
def session(control: EmbeddedControlPlane, tmp_path: Path) -> Iterator[Session]:
    words = pa.table({"n": pa.array(range(6), pa.int32()), "word": WORDS})
    pq.write_table(words, tmp_path / "words.parquet")
    with Session(control=control) as made:
        made.read_parquet(tmp_path / "words.parquet")
        yield made


def emitted(session: Session, sql: str, folder: Path) -> str:
    """The code of a query's only element, as it is run."""
    session.sql(sql).collect()
    run = session.last_run
    assert run.elements == 1
    app = session._executor.application("q", session.sql(sql).plan)
    app.write_directory(folder)
    (element,) = load_directory(folder).compute.values()
    return element.code


def test_elements_are_functions_of_lazy_frames(session: Session, tmp_path: Path) -> None:
    sql = "select word, count(*) as many from words where n > 0 group by word order by word"
    assert session.sql(sql).collect().to_pydict() == {
        "word": ["b", "straße", "ü", None],
        "many": [2, 1, 1, 1],
    }
    assert session.last_run.retries == 0
    code = emitted(session, sql, tmp_path / "q")
    assert "import polars as pl" in code
    assert "def query(words):" in code
    assert "SQL" not in code


def test_what_polars_cannot_compute_is_computed_once_more(session: Session) -> None:
    # Upper case beyond ASCII is not the same in both.
    sql = "select upper(word) as word from words where n >= 4 order by n"
    assert session.sql(sql).collect()["word"].to_pylist() == ["Ü", "STRAẞE"]
    assert session.last_run.retries == 1
    again = sql.replace("4", "5")  # of the same shape
    assert session.sql(again).collect()["word"].to_pylist() == ["STRAẞE"]
    assert session.last_run.retries == 0


def test_a_plan_that_polars_panics_over_is_no_empty_answer(
    session: Session, tmp_path: Path
) -> None:
    # Polars 2.1: conditions that contradict each other, above a join of one column with two.
    rows = {"i": [0, 1, None, 2], "l": [1, 2, 3, None], "m": [1, 2, 3, 4], "w": [1, 2, 3, 5]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    session.read_parquet(tmp_path / "t.parquet")
    sql = (
        "select count(a0.i) as m from t a0 join t a1 on a0.l = a1.w and a0.m = a1.w "
        "join t a2 on a0.i = a2.i where a0.i = 0 and a0.i is null "
        "and a0.i >= (select min(x.i) from t x)"
    )
    assert session.sql(sql).collect().to_pydict() == {"m": [0]}


def test_an_error_is_told_in_duckdbs_words(session: Session) -> None:
    with pytest.raises(QueryFailedError, match="Overflow in addition of INT32"):
        session.sql("select n + 2147483647 as m from words").collect()
    with pytest.raises(QueryFailedError, match=r"Conversion Error.*words\.parquet"):
        session.sql("select cast(word as integer) as m from words").collect()


@pytest.mark.parametrize("kernel", ["duckdb", "polars", "auto"])
def test_the_kernel_can_be_chosen(
    control: EmbeddedControlPlane, tmp_path: Path, kernel: str
) -> None:
    pq.write_table(pa.table({"n": pa.array([1, 2], pa.int32())}), tmp_path / "t.parquet")
    with Session(control=control, kernel=kernel) as made:  # type: ignore[arg-type]
        made.read_parquet(tmp_path / "t.parquet")
        code = emitted(made, "select sum(n) as s from t", tmp_path / "q")
        assert ("def query(t):" in code) == (kernel != "duckdb")
        assert made.sql("select sum(n) as s from t").collect()["s"].to_pylist() == [3]
