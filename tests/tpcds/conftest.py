"""A small data set, generated once for all tests of this room, and helpers for processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tpcds.data import DataSet, ensure

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def xdg_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What $XDG_CACHE_HOME is for the programs under test."""
    return tmp_path_factory.mktemp("xdg")


@pytest.fixture(scope="session")
def small(xdg_cache: Path) -> DataSet:
    """TPC-DS at scale factor 0.01."""
    return ensure(0.01, root=xdg_cache / "scad" / "tpcds")


@pytest.fixture(scope="session")
def environment(xdg_cache: Path) -> dict[str, str]:
    """Environment for child processes: the test cache, this source tree, no terminal."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "COLUMNS")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "XDG_CACHE_HOME": str(xdg_cache), "PYTHONPATH": path, "TERM": "dumb"}


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Start ``python ARGUMENTS…``; whatever still runs at the end of the test is killed."""
    running: list[subprocess.Popen[str]] = []

    def run(*arguments: str, **extra: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, **extra},
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def children_of() -> Callable[[int], list[int]]:
    """Direct children of a process."""

    def find(pid: int) -> list[int]:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(word) for word in text.split()]

    return find


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], bool]:
    """Whether a condition comes true before a generous deadline."""

    def wait(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.02)
        return condition()

    return wait
