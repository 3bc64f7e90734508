"""Ctrl-C at any moment: status 130, one line, nothing left."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

INTERRUPTED = (130, "tpcds.run: interrupted\n")
MANY = ["--queries", "1,3,16,42,94,95,97,1,16,95,3"]


@pytest.fixture
def interrupted(world: Any) -> Any:
    def check(process: Any, says: tuple[int, str] = INTERRUPTED) -> None:
        world.interrupt(process)
        finished = world.finish(process)
        assert (finished.status, finished.err) == says, finished
        world.check()

    return check


def test_when_the_zygote_starts(world: Any, interrupted: Any) -> None:
    process = world.tpcds(*MANY)
    world.await_process("zygote")
    interrupted(process)


@pytest.mark.slow
def test_when_workers_start(world: Any, interrupted: Any) -> None:
    process = world.tpcds(*MANY)
    world.await_process("worker")
    interrupted(process)


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_when_the_memory_server_starts(world: Any, interrupted: Any, transport: str) -> None:
    process = world.tpcds(*MANY, "--transport", transport)
    world.await_process("memory")
    interrupted(process)


@pytest.mark.parametrize("lines", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_between_queries(world: Any, interrupted: Any, lines: int) -> None:
    process = world.tpcds(*MANY)
    for _ in range(lines):
        assert "verified" in process.stdout.readline()
    interrupted(process)


def test_when_data_is_generated(world: Any, interrupted: Any, until: Any) -> None:
    own = world.folder / "cache"
    process = world.start("-m", "tpcds.run", "--sf", "0.3", *MANY, XDG_CACHE_HOME=str(own))
    world.await_process("generator")
    assert until(lambda: bool(list(own.rglob(".tmp-*"))))
    interrupted(process)
    left = [path for path in own.rglob("*") if path.is_file() and path.stat().st_size]
    assert left == []


@pytest.mark.slow
def test_twice_at_once(world: Any) -> None:
    """An impatient user presses again."""
    process = world.tpcds(*MANY)
    process.stdout.readline()
    world.interrupt(process)
    world.interrupt(process)
    finished = world.finish(process)
    assert (finished.status, finished.err) == INTERRUPTED


@pytest.mark.slow
def test_the_client_of_a_control_plane(world: Any, interrupted: Any) -> None:
    """The control plane goes on, and what the client held there is given back."""
    server, url = world.serve()
    process = world.tpcds(*MANY, "--apihost", url)
    assert "verified" in process.stdout.readline()
    world.interrupt(process)
    finished = world.finish(process)
    assert (finished.status, finished.err) == INTERRUPTED
    again = world.finish(world.tpcds("--queries", "16", "--apihost", url))
    assert again.status == 0, again
    interrupted(server, (130, ""))


@pytest.mark.slow
def test_the_control_plane_while_a_client_works(world: Any) -> None:
    server, url = world.serve()
    process = world.tpcds(*MANY, "--apihost", url)
    assert "verified" in process.stdout.readline()
    world.interrupt(server)
    assert world.finish(server).status == 130
    client = world.finish(process)
    assert client.status == 1, client
    assert "Traceback" not in client.err


def test_a_memory_server_by_hand(world: Any) -> None:
    server, _ = world.memory_server("--size", "16MB")
    world.interrupt(server)
    finished = world.finish(server)
    assert "Traceback" not in finished.err
    assert finished.status in (0, 130)


@pytest.mark.parametrize("times", [1, 2])
def test_training(world: Any, times: int) -> None:
    process = world.start("-m", "logistic_regression.run")
    world.await_process("worker")
    for _ in range(times):
        world.interrupt(process)
    finished = world.finish(process)
    assert (finished.status, finished.err) == (130, "logistic_regression.run: interrupted\n")


def test_training_that_is_terminated(world: Any) -> None:
    process = world.start("-m", "logistic_regression.run")
    world.await_process("worker")
    process.terminate()
    finished = world.finish(process)
    assert (finished.status, finished.err) == (128 + signal.SIGTERM, "")


ENDLESS = """\
#@ type: compute

import os
import time

def main(params, action):
    try:
        print("working")
        while True:
            time.sleep(1)
    finally:
        print("putting away")
        while not os.path.exists("go"):
            time.sleep(0.02)
        print("put away")
"""


@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        (signal.SIGINT, 130, "rundisagg: interrupted\n"),
        (signal.SIGTERM, 128 + signal.SIGTERM, ""),
    ],
)
def test_an_element_by_hand(world: Any, number: int, status: int, says: str) -> None:
    (world.home / "e.o.py").write_text(ENDLESS)
    process = world.start("-m", "openwhisk.cli.rundisagg", "e.o.py")
    assert process.stdout.readline() == "working\n"
    process.send_signal(number)
    assert process.stdout.readline() == "putting away\n"
    process.send_signal(signal.SIGINT)  # an impatient user
    process.send_signal(signal.SIGTERM)
    (world.home / "go").touch()
    finished = world.finish(process)
    assert finished == (status, "put away\n", says)


@pytest.mark.slow
def test_sql_at_the_prompt(world: Any, data: Any) -> None:
    table: Path = data.directory
    process = world.start(
        "-m", "scad.cli", "sql", "--table", f"i={table}/inventory.parquet",
        "select count(*) from i a, i b where a.inv_item_sk + b.inv_item_sk < 7",
    )  # fmt: skip
    world.await_process("worker")
    world.interrupt(process)
    finished = world.finish(process)
    assert (finished.status, finished.err) == (130, "scad: interrupted\n")
