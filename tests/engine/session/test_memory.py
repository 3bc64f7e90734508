"""What happens where an element's memory does not suffice, on real workers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import Session
from engine.execution import QueryFailedError
from engine.policy import Sizes
from engine.session import PREIMPORT
from openwhisk.control import EmbeddedControlPlane

ROWS = 3_000_000


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys that are all different, so that a group by holds every row."""
    path = tmp_path_factory.mktemp("data") / "t.parquet"
    rng = np.random.default_rng(7)
    data = pa.table({"k": rng.permutation(ROWS), "v": rng.random(ROWS)})
    pq.write_table(data, path, row_group_size=ROWS // 16)
    return path


@pytest.fixture(scope="module")
def control() -> Iterator[EmbeddedControlPlane]:
    # With what a session's own control plane imports: otherwise elements would, within their limit.
    with EmbeddedControlPlane(cores=2, preimport=PREIMPORT) as plane:
        yield plane


def scratch_left() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("scad-scratch-*"))


GROUPS = "select count(*) as n, sum(c) as c from (select k, count(*) c, max(v) m from t group by k)"


def test_a_query_that_does_not_fit_is_cut_finer_and_remembered(
    table: Path, control: EmbeddedControlPlane
) -> None:
    sizes = Sizes()
    with Session(compute_memory="200MB", control=control, sizes=sizes) as session:
        session.register("t", table)
        assert session.sql(GROUPS).collect().to_pylist() == [{"n": ROWS, "c": ROWS}]
        first = session.last_run
        assert first is not None
        assert first.retries > 0
        assert first.grain.copies > 1
        held = max(e.peak_data_bytes for e in first.activation.elements)
        assert 0 < held <= 200 << 20
        assert session.sql(GROUPS).collect().num_rows == 1
        second = session.last_run
        assert second is not None
        assert second.retries == 0
        assert second.grain == first.grain


def test_what_cannot_be_cut_spills(table: Path, control: EmbeddedControlPlane) -> None:
    # A median over everything needs every value in one place.
    before = scratch_left()
    with Session(compute_memory="256MB", control=control) as session:
        session.register("t", table)
        answer = session.sql("select k, v, row_number() over (order by v) n from t").limit(3)
        assert answer.collect().num_rows == 3
        run = session.last_run
        assert run is not None
        assert run.grain.storage > 0
        assert max(e.spilled_bytes for e in run.activation.elements) > 0
    assert scratch_left() == before


def test_a_limit_that_no_element_can_keep_is_one_clear_error(
    table: Path, control: EmbeddedControlPlane
) -> None:
    with Session(compute_memory="64MB", control=control) as session:
        session.register("t", table)
        with pytest.raises(QueryFailedError, match="too small: a worker holds"):
            session.sql(GROUPS).collect()


def test_the_second_run_reserves_what_the_first_held(
    table: Path, control: EmbeddedControlPlane
) -> None:
    with Session(compute_memory="4GB", control=control) as session:
        session.register("t", table)
        reserved = []
        for _ in range(2):
            session.sql("select sum(v) from t where k > 5").collect()
            run = session.last_run
            assert run is not None
            reserved.append(run.activation.elements[0].limit_bytes)
        assert 500 << 20 < reserved[0] < 1 << 30
        assert 100 << 20 < reserved[1] < 400 << 20
