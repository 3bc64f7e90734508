"""Bad files, full memory, cancellation under a real session: a clear line, and it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from engine import Session
from engine.errors import DataError, EngineError
from engine.execution import QueryCancelledError, QueryFailedError
from engine.session import PREIMPORT
from libd.errors import ScadError
from openwhisk.control import EmbeddedControlPlane
from operators.duckdb import Fragment, Kernel
from operators.errors import KernelError
from operators.schema import Field, Schema
from tests.waiting import eventually


@pytest.fixture(scope="module")
def control() -> Iterator[EmbeddedControlPlane]:
    with EmbeddedControlPlane(cores=2, memory=6 << 30, preimport=PREIMPORT, prewarm=2) as plane:
        yield plane


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    table = pa.table({"k": [i % 10 for i in range(5000)], "v": range(5000)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=500)
    return tmp_path


@pytest.fixture
def session(control: EmbeddedControlPlane, folder: Path) -> Iterator[Session]:
    with Session(2, "512MB", control=control) as made:
        made.read_parquet(folder / "t.parquet")
        yield made
    info = control.info()
    assert (info.cores_reserved, info.memory_reserved, info.sessions) == (0, 0, [])


def refuses(session: Session, query: str, error: type[Exception], *says: str) -> str:
    """Check for one clear line, and that the session answers the next query."""
    with pytest.raises(error) as caught:
        session.sql(query).collect()
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 1000
    for word in says:
        assert word in said
    session.register("next", pa.table({"x": [1, 2]}))
    assert session.sql("select sum(x) as s from next").collect()["s"].to_pylist() == [3]
    return said


COUNT = "select k, count(*) as n, sum(v) as s from t group by k"

# -- files that change ----------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    pq.write_table(pa.table({"k": [1], "v": [2]}), path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def other_columns(path: Path) -> None:
    pq.write_table(pa.table({"other": ["x"] * 5000}), path)


def rewrite_in_place(path: Path) -> None:
    """The same number of bytes and rows, other values."""
    content = path.read_bytes()
    path.write_bytes(bytes(content))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def empty(path: Path) -> None:
    path.write_bytes(b"")


CHANGES: list[Callable[[Path], None]] = [
    truncate, replace, other_columns, rewrite_in_place, empty, Path.unlink,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_file_that_changes_after_planning(
    session: Session, folder: Path, change: Callable[[Path], None]
) -> None:
    frame = session.sql(COUNT)
    change(folder / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet: the file (changed|is gone)"):
        frame.collect()
    refuses(session, COUNT, DataError, "t.parquet")


def test_registered_again_it_is_read_again(session: Session, folder: Path) -> None:
    replace(folder / "t.parquet")
    refuses(session, COUNT, DataError, "register it")
    session.read_parquet(folder / "t.parquet")
    assert session.sql(COUNT).collect().to_pylist() == [{"k": 1, "n": 1, "s": 2}]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_a_file_that_changes_while_it_is_read(
    session: Session,
    control: EmbeddedControlPlane,
    folder: Path,
    change: Callable[[Path], None],
    monkeypatch: Any,
) -> None:
    """Whether the elements fail or answer: what they saw was not one file."""
    invoke = control.invoke

    def changing(*args: Any, **kwargs: Any) -> str:
        change(folder / "t.parquet")
        return invoke(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(control, "invoke", changing)
        with pytest.raises(DataError, match=r"t\.parquet: the file (changed|is gone)"):
            session.sql(COUNT).collect()
    refuses(session, COUNT, DataError, "t.parquet")


# -- files that are not what they should be -------------------------------------------------------


def test_files_that_cannot_be_registered(session: Session, folder: Path) -> None:
    (folder / "text.parquet").write_text("no Parquet at all")
    (folder / "nothing.parquet").write_bytes(b"")
    whole = (folder / "t.parquet").read_bytes()
    (folder / "half.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "list.parquet").mkdir()
    pq.write_table(pa.table({"k": [[1]]}), folder / "nested.parquet")
    pyarrow.csv.write_csv(pa.table({"k": [1]}), folder / "t.csv")
    for name in ("text", "nothing", "half", "list", "nested", "missing"):
        with pytest.raises(ScadError, match=name) as caught:
            session.read_parquet(folder / f"{name}.parquet")
        assert "\n" not in str(caught.value)
    pq.write_table(pa.table({"k": [1]}), folder / "a.parquet")
    pq.write_table(pa.table({"k": ["text"]}), folder / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet") as caught:
        session.register("ab", [str(folder / "a.parquet"), str(folder / "b.parquet")])
    assert "a.parquet" in str(caught.value)
    assert session.sql(COUNT).collect().num_rows == 10


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(session: Session, folder: Path) -> None:
    (folder / "t.parquet").chmod(0)
    refuses(session, COUNT, ScadError, "t.parquet", "ermission")
    with pytest.raises(DataError, match=r"t\.parquet.*ermission"):
        session.read_parquet(folder / "t.parquet")


def test_garbage_between_header_and_footer(session: Session, folder: Path) -> None:
    path = folder / "spoilt.parquet"
    content = bytearray((folder / "t.parquet").read_bytes())
    content[4 : len(content) // 2] = os.urandom(len(content) // 2 - 4)
    path.write_bytes(bytes(content))
    session.read_parquet(path)
    refuses(session, "select sum(k), sum(v) from spoilt", QueryFailedError, "spoilt.parquet")


# -- memory that is full --------------------------------------------------------------------------


def test_an_exchange_that_outgrows_its_limit(control: EmbeddedControlPlane, folder: Path) -> None:
    with Session(2, "512MB", control=control, exchange_memory="1MB") as session:
        session.register("wide", pa.table({"s": [f"{i:0100}" for i in range(50_000)]}))
        refuses(session, "select s from wide", QueryFailedError, "'result'", "limit", "1 MiB")
    assert control.info().memory_reserved == 0


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_a_memory_server_that_is_full(transport: Any) -> None:
    """Twelve elements write more than there is; none of them holds more than it may."""
    with EmbeddedControlPlane(cores=1, memory=530 << 20, preimport=PREIMPORT, prewarm=1) as plane:
        with Session(12, "512MB", transport, control=plane) as session:
            session.register("t", pa.table({"x": range(2_400_000)}))
            query = "select x, repeat('x', 240) || x as s from t"
            refuses(session, query, QueryFailedError, "'result'", "limit has")
        assert plane.info().memory_reserved == 0


def test_an_element_that_exceeds_its_memory(control: EmbeddedControlPlane) -> None:
    with Session(1, "208MB", control=control) as session:
        session.register("t", pa.table({"x": range(3000)}))
        # A median holds all values, and does not spill.
        query = "select median(a.x * 3000 + b.x) from t a, t b"
        refuses(session, query, QueryFailedError, "element ", "out of memory", "--compute-memory")
    assert control.info().memory_reserved == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True
    )
    if made.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full_of_spilled_rows(small_disk: Path) -> None:
    """The kernel says so in its own words, leaves no file, and runs the next statement."""
    schema = Schema((Field("n", pa.int64()),))
    spilling = (
        "SELECT count(*) AS n FROM (SELECT hash(i) AS h, count(*) FROM range(3000000) r(i) "
        "GROUP BY h)"
    )
    with Kernel.open(1, 40 << 20, str(small_disk / "spill")) as kernel:
        with pytest.raises(KernelError) as caught:
            kernel.table(Fragment(spilling, (), schema))
        said = str(caught.value).partition("\n")[0]
        assert "space" in said or "memory" in said.lower(), said
        answer = kernel.table(Fragment("SELECT 7::BIGINT AS n", (), schema))
        assert answer["n"].to_pylist() == [7]
    assert list(small_disk.rglob("*.tmp")) == []


# -- cancellation ---------------------------------------------------------------------------------

ENDLESS = "select count(*) from t a, t b, t c where a.v + b.v * c.v < 0"


def in_the_background(session: Session, query: str) -> tuple[threading.Thread, list[BaseException]]:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            session.sql(query).collect()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failed


def test_close_from_another_thread(control: EmbeddedControlPlane, folder: Path) -> None:
    session = Session(2, "512MB", control=control)
    session.read_parquet(folder / "t.parquet")
    thread, failed = in_the_background(session, ENDLESS)
    assert eventually(lambda: control.info().cores_reserved > 0)
    session.close()
    thread.join(30)
    assert not thread.is_alive()
    (error,) = failed
    assert isinstance(error, EngineError)
    assert "closed" in str(error)
    assert "\n" not in str(error)
    assert eventually(lambda: control.info().memory_reserved == 0)
    assert control.info().sessions == []
    with pytest.raises(EngineError, match="the session is closed"):
        session.sql(COUNT).collect()


def test_close_of_a_session_with_its_own_control_plane(folder: Path) -> None:
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    session = Session(2, "512MB")
    session.read_parquet(folder / "t.parquet")
    assert session.sql(COUNT).collect().num_rows == 10
    thread, failed = in_the_background(session, ENDLESS)
    control = session._connection._control
    assert control is not None
    assert eventually(lambda: control.info().cores_reserved > 0)
    session.close()
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(failed[0], ScadError)
    assert "\n" not in str(failed[0])
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def test_a_cancelled_activation(
    session: Session, control: EmbeddedControlPlane, monkeypatch: Any
) -> None:
    invoke, activations = control.invoke, []

    def watched(*args: Any, **kwargs: Any) -> str:
        activations.append(invoke(*args, **kwargs))
        return activations[-1]

    monkeypatch.setattr(control, "invoke", watched)
    thread, failed = in_the_background(session, ENDLESS)
    assert eventually(lambda: control.info().cores_reserved > 0)
    control.cancel(activations[0])
    thread.join(30)
    assert not thread.is_alive()
    assert isinstance(failed[0], QueryCancelledError)
    assert session.sql(COUNT).collect().num_rows == 10


def test_ctrl_c_in_the_middle_of_a_query(session: Session, control: EmbeddedControlPlane) -> None:
    """As an interactive user does: the session is there for the next query."""

    def press() -> None:
        eventually(lambda: control.info().cores_reserved > 0)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        session.sql(ENDLESS).collect()
    thread.join()
    assert eventually(lambda: control.info().cores_reserved == 0)
    assert session.sql(COUNT).collect().num_rows == 10
