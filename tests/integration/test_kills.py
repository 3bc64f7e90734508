"""SIGKILL of one process of every kind: the rest ends, or goes on and the answers are right."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

LIST = "1,3,16,42,94,95,97"
MANY = ["--queries", LIST]
COUNT = LIST.count(",") + 1


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("moment", [pytest.param("start", marks=pytest.mark.slow), "queries"])
def test_the_main_process(world: Any, moment: str) -> None:
    process = world.tpcds(*MANY)
    if moment == "start":
        world.await_process("worker")
    else:
        assert "verified" in process.stdout.readline()
    kill(process.pid)
    assert world.finish(process).status == -signal.SIGKILL
    world.check()


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["shm", "tcp"])
@pytest.mark.parametrize("kind", ["worker", "zygote", "memory"])
def test_queries_go_on(world: Any, kind: str, transport: str) -> None:
    process = world.tpcds(*MANY, "--transport", transport)
    assert "verified" in process.stdout.readline()
    kill(world.await_process(kind))
    assert "verified" in process.stdout.readline()
    if victims := world.find(kind):  # and again
        kill(victims[-1])
    status, out, err = world.finish(process)
    assert status == 0, out + err
    assert "Traceback" not in err
    assert f"{COUNT} of {COUNT} verified" in out


def test_one_after_another(world: Any) -> None:
    """A worker, the memory server and the zygote in one run."""
    process = world.tpcds(*MANY)
    for kind in ("worker", "memory", "zygote"):
        assert "verified" in process.stdout.readline()
        kill(world.await_process(kind))
    status, out, err = world.finish(process)
    assert status == 0, out + err
    assert "tpcds.run: warning: the memory server died\n" in err
    assert all(line.startswith("tpcds.run: warning: ") for line in err.splitlines()), err
    assert f"{COUNT} of {COUNT} verified" in out


@pytest.mark.slow
def test_the_reference(world: Any) -> None:
    """Without it nothing can be verified: said clearly, never taken for success."""
    process = world.tpcds(*MANY)
    assert "verified" in process.stdout.readline()
    kill(world.await_process("oracle"))
    status, out, err = world.finish(process)
    assert "Traceback" not in out + err
    assert status == 1 or f"{COUNT} of {COUNT} verified" in out


@pytest.mark.slow
def test_the_generator(world: Any, one_line: Any) -> None:
    own = world.folder / "cache"
    process = world.start("-m", "tpcds.run", "--sf", "0.3", *MANY, XDG_CACHE_HOME=str(own))
    kill(world.await_process("generator"))
    one_line(world.finish(process), status=1)
    assert [path for path in own.rglob("*.parquet") if path.is_file()] == []


@pytest.mark.slow
def test_the_main_process_while_it_generates(world: Any) -> None:
    own = world.folder / "cache"
    process = world.start("-m", "tpcds.run", "--sf", "0.3", *MANY, XDG_CACHE_HOME=str(own))
    world.await_process("generator")
    kill(process.pid)
    world.finish(process)
    world.check()
    assert [path for path in own.rglob("*.parquet") if path.is_file()] == []


@pytest.mark.slow
def test_the_client_of_a_control_plane(world: Any) -> None:
    """What it held is given back when its lease is over; others are served meanwhile."""
    server, url = world.serve()
    process = world.tpcds(*MANY, "--apihost", url)
    assert "verified" in process.stdout.readline()
    kill(process.pid)
    world.finish(process)
    again = world.finish(world.tpcds("--queries", "16", "--apihost", url))
    assert again.status == 0, again
    server.send_signal(signal.SIGTERM)
    assert world.finish(server).status == 0


@pytest.mark.slow
def test_the_control_plane_of_a_client(world: Any) -> None:
    server, url = world.serve()
    process = world.tpcds(*MANY, "--apihost", url)
    assert "verified" in process.stdout.readline()
    kill(server.pid)
    world.finish(server)
    status, out, err = world.finish(process)
    assert status == 1, out
    assert "Traceback" not in out + err
    world.check()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["worker", "zygote", "memory"])
def test_children_of_a_control_plane(world: Any, kind: str) -> None:
    server, url = world.serve()
    process = world.tpcds(*MANY, "--apihost", url)
    assert "verified" in process.stdout.readline()
    kill(world.await_process(kind))
    status, out, err = world.finish(process)
    assert status == 0, out + err
    assert f"{COUNT} of {COUNT} verified" in out
    server.send_signal(signal.SIGTERM)
    assert world.finish(server).status == 0


def test_a_memory_server_by_hand(world: Any) -> None:
    server, _ = world.memory_server("--size", "16MB")
    kill(server.pid)
    world.finish(server)
    world.check()
