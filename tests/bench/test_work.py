"""Jobs, their checks, and the processes that do them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bench import placement
from bench.elements import served
from bench.work import SPAN, Job, Work, WrongBytesError, source, space
from bench.worker import JobTimer, Together, Worker, WorkerError

COPY = ("bench.peers.copy", "PeerClient", {"address": {}})


@pytest.mark.parametrize(("address", "size"), [(0, 8), (8, 3), (4096, 4096), (SPAN - 16, 16)])
def test_source_is_the_same_from_everywhere(address: int, size: int) -> None:
    assert np.array_equal(source(0, SPAN)[address : address + size], source(address, size))


def test_source_differs_from_place_to_place() -> None:
    pages = {source(i * 4096, 4096).tobytes() for i in range(100)}
    assert len(pages) == 100


def test_addresses_stay_where_they_belong() -> None:
    job = Job("read", 4096, 16, "batches", 256, scattered=True)
    assert len(set(job.addresses())) > 200
    assert all(0 <= a <= SPAN - 4096 and a % 4096 == 0 for a in job.addresses())
    assert job.addresses() == job.addresses()
    writes = Job("write", 1 << 20, 4, "batches", 8)
    assert sorted(set(writes.addresses())) == [SPAN + i * (1 << 20) for i in range(4)]


def test_last_names_what_is_there_after_a_call() -> None:
    read = Job("read", 8, 2, "window", 5, scattered=True)
    addresses = read.addresses()
    assert sorted(read.last()) == sorted([(addresses[4], 0), (addresses[3], 1)])
    write = Job("write", 8, 2, "window", 4)
    assert write.last() == [(SPAN, 0), (SPAN + 8, 1)]


@pytest.mark.parametrize("wrong", ["nothing", "one bit", "too short"])
def test_check_sees_wrong_bytes(wrong: str) -> None:
    out = space(64)
    right = source(0, 64)

    def call() -> None:
        if wrong != "nothing":
            out[:] = right
        if wrong == "one bit":
            out[63] ^= 1

    found = out[:-1] if wrong == "too short" else out
    with pytest.raises(WrongBytesError):
        Work(call, lambda: [(right, found)], [out]).check()


def test_check_spoils_what_an_earlier_call_left() -> None:
    out = source(0, 64)
    with pytest.raises(WrongBytesError):
        Work(lambda: None, lambda: [(source(0, 64), out)], [out]).check()


def test_worker_does_jobs() -> None:
    with Worker(*COPY) as worker:
        for job in (Job("read", 4096), Job("write", 4096)):
            timer = JobTimer(worker, job)
            timer.check()
            assert timer.seconds(3) > 0
        assert worker.job == job


def test_together_is_as_long_as_the_slowest() -> None:
    with Worker(*COPY) as one, Worker(*COPY) as other:
        timer = Together([one, other], Job("read", 1 << 20))
        timer.check()
        assert timer.seconds(2) > 0


def test_wrong_bytes_in_a_worker_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "liar.py").write_text(
        "from bench.work import Client, Work, source\n"
        "class PeerClient(Client):\n"
        "    def prepare(self, job):\n"
        "        return Work(lambda: None, lambda: [(source(0, job.size), b'x' * job.size)])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker("liar", "PeerClient", {"address": {}}) as worker:
        with pytest.raises(WrongBytesError, match="of 8 bytes are wrong"):
            JobTimer(worker, Job("read", 8)).check()


def test_a_workers_failure_is_told() -> None:
    with pytest.raises(WorkerError, match="no_such_module"):
        Worker("no_such_module", "PeerClient")


@pytest.mark.parametrize("noticed", [False, True])
def test_a_worker_that_dies_is_told_and_leaves_nothing(noticed: bool) -> None:
    with Worker(*COPY) as worker:
        os.kill(worker.pid, 9)
        if noticed:  # its pipe is broken before the next request is sent
            os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(WorkerError, match="ended"):
            JobTimer(worker, Job("read", 8)).seconds(1)
    assert not Path(f"/proc/{worker.pid}").exists()


def test_processes_run_where_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = min(os.sched_getaffinity(0))
    monkeypatch.setattr(placement, "_current", placement.parse(f"{cpu}:{cpu}"))
    with served() as memory, Worker(*COPY) as client:
        assert os.sched_getaffinity(client.pid) == {cpu}
        threads = [int(path.name) for path in Path(f"/proc/{memory.server.pid}/task").iterdir()]
        assert len(threads) > 1
        assert all(os.sched_getaffinity(thread) == {cpu} for thread in threads)


def test_closing_ends_the_process() -> None:
    worker = Worker(*COPY)
    worker.close()
    worker.close()
    assert not Path(f"/proc/{worker.pid}").exists()
