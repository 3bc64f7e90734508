"""The watcher says when a process leaves its bounds, once, and nothing else."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from openwhisk._watcher import Watcher

MiB = 1 << 20
ALL = 1 << 60


class Other:
    """A process that holds as many MiB as it is told to, beside what it has by itself."""

    def __init__(self) -> None:
        told, self._tell = os.pipe()
        self._answer, answers = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            held = []
            while size := os.read(told, 1):
                held[:] = [b"x" * (size[0] * MiB)]
                os.write(answers, size)
            os._exit(0)
        os.close(told)
        os.close(answers)

    def hold(self, size: int) -> None:
        os.write(self._tell, bytes([size]))
        assert os.read(self._answer, 1)

    def memory(self) -> str:
        """What the kernel says of it."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return ", ".join(line for line in lines if line.startswith(("State", "Rss", "VmSwap")))

    def end(self) -> None:
        for fd in (self._tell, self._answer):
            os.close(fd)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def other() -> Iterator[Other]:
    process = Other()
    yield process
    process.end()


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watcher = Watcher(interval=0.001, calm=3)
    yield watcher
    watcher.close()


def news(watcher: Watcher, seconds: float = 30.0) -> list[tuple[int, int]]:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        ready, _, _ = select.select([watcher.fileno()], [], [], left)
        # It may be readable for what was taken already.
        if ready and (found := watcher.take()):
            return found
    return []


def test_a_process_that_leaves_its_bounds_is_news_once(watcher: Watcher, other: Other) -> None:
    other.hold(1)
    watcher.watch(7, other.pid, 0, ALL)
    watcher.bound(7, 0, 0)
    ((key, base),) = news(watcher)
    assert key == 7
    watcher.bound(7, 0, base + 50 * MiB)
    other.hold(100)
    ((key, held),) = news(watcher)
    assert (key, held > base + 50 * MiB) == (7, True)
    other.hold(200)
    assert news(watcher, 0.05) == [], "it has no new bounds yet"
    watcher.bound(7, held, ALL)
    other.hold(1)
    found = news(watcher)
    assert found, f"it had {held >> 20} MiB: {other.memory()}"
    ((key, low),) = found
    assert (key, low < held) == (7, True)


def test_within_its_bounds_it_is_no_news(watcher: Watcher, other: Other) -> None:
    watcher.watch(1, other.pid, 0, ALL)
    other.hold(100)
    assert news(watcher, 0.05) == []
    watcher.bound(1, 0, MiB)
    assert [key for key, _ in news(watcher)] == [1], "but it was looked at all the time"


def test_several_processes_have_bounds_of_their_own(watcher: Watcher) -> None:
    others = [Other() for _ in range(20)]
    try:
        for key, other in enumerate(others, 1):
            watcher.watch(key, other.pid, 0, ALL)
        for key in (3, 17):
            watcher.bound(key, 0, 0)
        found: set[int] = set()
        while found != {3, 17}:
            found |= {key for key, _ in news(watcher)}
        watcher.forget(3)
        watcher.bound(3, 0, 0)  # is no longer known
        watcher.bound(17, 0, 0)
        assert {key for key, _ in news(watcher)} == {17}
    finally:
        for other in others:
            other.end()


def test_one_that_is_dead_is_no_news_and_cannot_be_watched(watcher: Watcher) -> None:
    other = Other()
    watcher.watch(1, other.pid, 0, 0)
    assert news(watcher)
    other.end()
    watcher.bound(1, 0, 0)
    assert news(watcher, 0.05) == []
    with pytest.raises(OSError, match=f"process {other.pid} cannot be watched"):
        watcher.watch(2, other.pid, 0, 0)


def test_what_is_not_possible_is_refused(other: Other) -> None:
    for interval in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="interval"):
            Watcher(interval=interval)
    watcher = Watcher()
    with pytest.raises(ValueError, match="key 0"):
        watcher.watch(0, other.pid, 0, 0)
    watcher.close()
    watcher.close()
    for use in (watcher.fileno, watcher.take, lambda: watcher.forget(1)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_child_of_fork_can_forget_it(watcher: Watcher, other: Other) -> None:
    """It has no thread to wait for."""
    watcher.watch(1, other.pid, 0, ALL)
    child = os.fork()
    if child == 0:
        watcher.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    watcher.bound(1, 0, 0)
    assert news(watcher)
