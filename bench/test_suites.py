"""Cases of `python -m bench` under pytest-benchmark: `pytest bench --benchmark-only`.

Those whose peer is always there. A side that keeps its own time in another process is called often
enough for the way to it not to count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.__main__ import SUITES
from bench.dag import NAMES as DAG_NAMES
from bench.harness import Case, Options, Timer, calls_per_round
from bench.scatter import NAMES as SCATTER_NAMES
from bench.sizes import LARGE, SMALL, label

PEERS = frozenset({"copyto", "socket", "ray"})
BY_SIZE = [f"{kind} {label(size)}" for kind in ("read", "write") for size in SMALL + LARGE]
# In the order in which the suites yield them: a case is only good until the next is asked for.
NAMES = [
    *(("local", f"local {name}") for name in BY_SIZE),
    *(("tcp", f"tcp {name}") for name in BY_SIZE),
    *(("dag", name) for name in DAG_NAMES),
    *(("scatter", name) for name in SCATTER_NAMES),
]


class Stage:
    """The suite that runs now and its current case."""

    def __init__(self) -> None:
        self.suite = ""
        self.cases: Iterator[Case] = iter(())
        self.case: Case | None = None

    def go_to(self, suite: str, name: str) -> Case:
        if suite != self.suite:
            self.close()
            self.suite, self.case = suite, None
            self.cases = SUITES[suite](Options(peers=PEERS))
        while self.case is None or self.case.name != name:
            self.case = next(self.cases)
        return self.case

    def close(self) -> None:
        close = getattr(self.cases, "close", None)
        if close is not None:
            close()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


@pytest.mark.parametrize("side", ["ours", "peer"])
@pytest.mark.parametrize(("suite", "name"), NAMES)
def test_case(benchmark: Any, stage: Stage, suite: str, name: str, side: str) -> None:
    case = stage.go_to(suite, name)
    call = case.ours if side == "ours" else case.peer
    if call is None:
        pytest.skip(f"the peer of {name!r} is not installed: {case.peer_name}")
    benchmark.group = name
    benchmark.extra_info["side"] = case.peer_name if side == "peer" else "scad"
    if isinstance(call, Timer):
        timer = call
        calls = calls_per_round(timer, 0.01)
        benchmark.extra_info["calls"] = calls
        benchmark.pedantic(lambda: timer.seconds(calls), rounds=5, warmup_rounds=1)
    else:
        benchmark(call)
