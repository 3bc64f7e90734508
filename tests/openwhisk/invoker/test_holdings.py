"""`Holdings`: what workers hold without what they share."""

from __future__ import annotations

import os
import subprocess

from openwhisk.invoker.holdings import Holdings
from openwhisk.invoker.procfs import anonymous_bytes
from openwhisk.scheduler.messages import RunId
from openwhisk.scheduler.reservations import Reservation
from tests.waiting import until

MiB = 1 << 20
RUN, OTHER = RunId("a", "e", 0, 1), RunId("a", "e", 1, 1)


def test_what_is_shared_is_not_held() -> None:
    holdings = Holdings()
    held = anonymous_bytes(os.getpid())
    shared = held - 2 * MiB
    assert held > 8 * MiB
    try:
        # One process twice: it is beyond these bounds, unless what it shares is left out. The one
        # that is watched last is looked at last.
        bounds = Reservation(64 * MiB, 0, held // 2)
        holdings.begin(1, RUN, os.getpid(), bounds, shared)
        holdings.begin(2, OTHER, os.getpid(), bounds, 0)
        ((run, size),) = told(holdings)
        assert (run, size > held // 2) == (OTHER, True)
        holdings.reserved(1, Reservation(0, 0, 0))
        ((run, size),) = told(holdings)
        assert (run, 0 < size < held // 2) == (RUN, True)
        holdings.end(1)
        holdings.reserved(1, Reservation(0, 0, 0))
        holdings.reserved(2, bounds)
        assert [run for run, _ in told(holdings)] == [OTHER]
    finally:
        holdings.close()


def told(holdings: Holdings) -> list[tuple[RunId, int]]:
    """The next news."""
    found: list[tuple[RunId, int]] = []
    until(lambda: found.extend(holdings.news()) or found)
    return found


def test_a_process_that_is_gone_holds_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert anonymous_bytes(process.pid) == 0
