"""SIGKILL of workers and memory servers at random moments while TPC-DS runs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tpcds.data import ensure

FEW = "3,16,42,94,97"


class Murderer:
    """Kills a worker or the memory server after random pauses, at most twice a query.

    An element has three attempts, so that two losses must not fail a query.
    """

    def __init__(self, world: Any, seed: int, longest: float) -> None:
        self.killed = {"worker": 0, "memory": 0}
        self._world = world
        self._rng = random.Random(seed)
        self._longest = longest
        self._left = threading.Semaphore(0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def next_query(self) -> None:
        """Another query is on its way."""
        while self._left.acquire(blocking=False):
            pass
        self._left.release(2)

    def _run(self) -> None:
        while not self._over.wait(self._rng.uniform(0, self._longest)):
            kind = self._rng.choice(["worker", "memory"])
            victims = self._world.find(kind)
            if victims and self._left.acquire(blocking=False):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._rng.choice(victims), signal.SIGKILL)
                    self.killed[kind] += 1

    def __enter__(self) -> Murderer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def watch(process: subprocess.Popen[str], murderer: Murderer) -> str:
    """Read what a run says, and let two be killed for every query of which it says that it is
    over.
    """
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "verified" in line:
            murderer.next_query()
    return "".join(said)


def check(world: Any, process: Any, figures: Path, count: int, longest: float, seed: int) -> None:
    with Murderer(world, seed, longest) as murderer:
        out = watch(process, murderer)
    status, _, err = world.finish(process)
    assert status == 0, out + err
    assert f"{count} of {count} verified" in out
    assert "Traceback" not in err
    assert sum(murderer.killed.values()) > 0, murderer.killed
    recorded = json.loads(figures.read_text())["queries"].values()
    assert all(query["verified"] for query in recorded)
    world.check()


@pytest.mark.parametrize("transport", ["auto", pytest.param("tcp", marks=pytest.mark.slow)])
def test_a_handful(world: Any, transport: str) -> None:
    figures = world.folder / "figures.json"
    process = world.tpcds(
        "--queries", FEW, "--transport", transport, "--json", str(figures)
    )  # fmt: skip
    check(world, process, figures, FEW.count(",") + 1, 0.4, seed=7)


@pytest.mark.slow
@pytest.mark.sf1
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_all_at_scale_1(world: Any, transport: str) -> None:
    """99 right answers; something was computed again; nothing hangs, nothing is left."""
    own = Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")))
    data = ensure(1, root=own / "scad" / "tpcds")
    figures = world.folder / "figures.json"
    process = world.start(
        "-m", "tpcds.run", "--sf", "1", "--transport", transport, "--json", str(figures),
        XDG_CACHE_HOME=str(own),
    )  # fmt: skip
    assert data.directory.is_dir()
    check(world, process, figures, 99, 1.0, seed=11)
    queries = json.loads(figures.read_text())["queries"].values()
    assert sum(len(query["recomputed"]) for query in queries) > 0
