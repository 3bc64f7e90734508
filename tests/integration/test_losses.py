"""Losses under a real session: what died is computed again, and the answer is right."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import psutil
import pyarrow as pa
import pytest

from engine import Session
from engine.execution import QueryFailedError
from engine.session import PREIMPORT
from openwhisk.control import EmbeddedControlPlane
from tests.waiting import eventually

QUERIES = [
    "select i_brand, d_year, sum(ss_ext_sales_price) as x from store_sales, item, date_dim "
    "where ss_item_sk = i_item_sk and ss_sold_date_sk = d_date_sk group by all order by all",
    "select ss_item_sk, count(*) as c, sum(sr_return_amt) as r from store_sales "
    "left join store_returns on ss_item_sk = sr_item_sk and ss_ticket_number = sr_ticket_number "
    "group by 1 order by 1",
    "select c_customer_id, rank() over (partition by c_birth_year order by c_customer_id) as r "
    "from customer order by 1",
]
SHORT = "select i_category, count(*) as n from item group by i_category order by i_category"


@pytest.fixture(scope="module")
def expected(data: Any) -> dict[str, list[tuple[Any, ...]]]:
    connection = duckdb.connect(config={"threads": 1})
    for path in data.directory.glob("*.parquet"):
        connection.execute(f"create view {path.stem} as from '{path}'")
    return {query: connection.execute(query).fetchall() for query in [*QUERIES, SHORT]}


@pytest.fixture
def control() -> Iterator[EmbeddedControlPlane]:
    """A control plane of the test's own; nothing of it may be left."""
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with EmbeddedControlPlane(cores=2, memory=6 << 30, preimport=PREIMPORT, prewarm=2) as plane:
        yield plane
        info = plane.info()
        assert (info.cores_reserved, info.memory_reserved, info.sessions) == (0, 0, [])
    after = {p.pid for p in psutil.Process().children(recursive=True)}
    assert after <= before


@pytest.fixture(params=["auto", "tcp"])
def session(request: Any, control: EmbeddedControlPlane, data: Any) -> Iterator[Session]:
    with Session(2, "512MB", request.param, control=control) as made:
        for path in data.directory.glob("*.parquet"):
            made.register(path.stem, str(path))
        yield made


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(c.to_pylist() for c in table.columns), strict=True))


def kill_server(control: EmbeddedControlPlane) -> bool:
    server = control.info().memory_server
    if server is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(server, signal.SIGKILL)
    return True


def kill_worker(control: EmbeddedControlPlane, rng: random.Random) -> bool:
    workers = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "openwhisk.worker.zygote" in child.cmdline():
                workers += [p.pid for p in child.children()]
    if not workers:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(rng.choice(workers), signal.SIGKILL)
    return True


# -- the answer itself -----------------------------------------------------------------------------


def losing_answers(
    control: EmbeddedControlPlane, monkeypatch: Any, times: int, *, granted: bool
) -> Callable[[], int]:
    """Kill the memory server when an answer is about to be read: before its address is known, or
    after.
    """
    grant, left = control.grant, [times]

    def deadly(*args: Any, **kwargs: Any) -> str:
        durl = grant(*args, **kwargs) if granted else ""
        if left[0]:
            left[0] -= 1
            server = psutil.Process(control.info().memory_server)
            server.kill()
            assert eventually(lambda: is_dead(server))
            if not granted:
                assert eventually(lambda: control.info().memory_server != server.pid)
        return durl or grant(*args, **kwargs)

    monkeypatch.setattr(control, "grant", deadly)
    return lambda: left[0]


def is_dead(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("granted", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_an_answer_that_dies_before_it_is_read(
    session: Session,
    control: EmbeddedControlPlane,
    expected: Any,
    monkeypatch: Any,
    times: int,
    granted: bool,
) -> None:
    """The answer belongs to the session; lineage of the application cannot help any more."""
    left = losing_answers(control, monkeypatch, times, granted=granted)
    assert rows(session.sql(SHORT).collect()) == expected[SHORT]
    assert left() == 0
    assert session.last_run is not None
    elements = [f"{e.name}[{e.index}]" for e in session.last_run.activation.elements]
    assert session.last_run.usage.recomputed[: len(elements)] == elements
    assert len(session.last_run.usage.recomputed) >= times * len(elements)


def test_answers_that_always_die(
    session: Session, control: EmbeddedControlPlane, expected: Any, monkeypatch: Any
) -> None:
    with monkeypatch.context() as patched:
        losing_answers(control, patched, 99, granted=True)
        with pytest.raises(QueryFailedError, match=r"lost 3 times") as caught:
            session.sql(SHORT).collect()
    assert "\n" not in str(caught.value)
    assert rows(session.sql(SHORT).collect()) == expected[SHORT]


# -- at random moments -----------------------------------------------------------------------------


class Killer:
    """Kills something a few times while a query runs, from a thread of its own.

    Parameters
    ----------
    kill
        Kills one process, and says whether there was one.
    moments
        Seconds to wait before each kill.
    """

    def __init__(self, kill: Callable[[], bool], moments: list[float]) -> None:
        self.killed = 0
        self._kill = kill
        self._moments = moments
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for moment in self._moments:
            if self._over.wait(moment):
                return
            self.killed += self._kill()

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize("victim", ["worker", "server", "either"])
@pytest.mark.parametrize("rounds", [1, pytest.param(15, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_random_moments(
    session: Session, control: EmbeddedControlPlane, expected: Any, victim: str, rounds: int
) -> None:
    """Two losses at random moments of a query are never too many: an element has three attempts."""
    rng = random.Random(rounds)

    def kill() -> bool:
        chosen = rng.choice(["worker", "server"]) if victim == "either" else victim
        return kill_worker(control, rng) if chosen == "worker" else kill_server(control)

    killed, recomputed = 0, []
    for query in QUERIES * rounds:
        assert rows(session.sql(query).collect()) == expected[query]  # its plan is kept
        begun = time.monotonic()
        assert rows(session.sql(query).collect()) == expected[query]
        usual = time.monotonic() - begun
        with Killer(kill, [rng.uniform(0, usual), rng.uniform(0, usual)]) as killer:
            assert rows(session.sql(query).collect()) == expected[query]
        killed += killer.killed
        assert session.last_run is not None
        recomputed += session.last_run.usage.recomputed
    assert killed
    assert eventually(lambda: control.info().memory_reserved == 0)
    assert rows(session.sql(SHORT).collect()) == expected[SHORT]


@pytest.mark.parametrize("victim", ["worker", "server"])
def test_three_losses_of_one_element(
    control: EmbeddedControlPlane, monkeypatch: Any, victim: str
) -> None:
    """Attempts are bounded, the error says what was lost, and the session goes on."""
    rng = random.Random(1)
    invoke, activations, failed = control.invoke, [], []

    def watched(*args: Any, **kwargs: Any) -> str:
        activations.append(invoke(*args, **kwargs))
        return activations[-1]

    def attempts() -> int:
        elements = control.activation(activations[-1]).elements
        return max([e.attempts for e in elements if e.status == "running"], default=0)

    with Session(2, "512MB", control=control) as session:
        session.register("t", pa.table({"x": range(3000)}))
        count = session.sql("select count(*) as c from t")
        endless = session.sql("select count(*) c from t a, t b, t c where a.x + b.x * c.x < 0")

        def run() -> None:
            try:
                endless.collect()
            except BaseException as error:
                failed.append(error)

        assert count.collect()["c"].to_pylist() == [3000]
        monkeypatch.setattr(control, "invoke", watched)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            # A kill may hit a worker that waits for its first element, and a slow machine may see
            # a loss after the next kill: so the element itself says how many it has had.
            assert eventually(lambda: bool(activations))
            for _ in range(20):
                assert eventually(lambda: bool(failed) or attempts() > 0)
                if failed:
                    break
                attempt = attempts()
                if victim == "worker":
                    kill_worker(control, rng)
                else:
                    kill_server(control)
                patience = 1.0 if victim == "worker" else 30.0
                eventually(lambda: bool(failed) or attempts() != attempt, patience)  # noqa: B023
        finally:
            if activations and thread.is_alive() and not eventually(lambda: bool(failed)):
                control.cancel(activations[-1])
            thread.join(60)
        assert not thread.is_alive()
        (error,) = failed
        assert isinstance(error, QueryFailedError)
        assert "was lost after 3 attempts" in str(error)
        assert "\n" not in str(error)
        record = control.activation(activations[-1])
        assert len(record.usage.recomputed) >= 2
        assert count.collect()["c"].to_pylist() == [3000]
