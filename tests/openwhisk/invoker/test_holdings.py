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
RUN = RunId("a", "e", 0, 1)


def test_what_is_shared_is_not_held() -> None:
    holdings = Holdings()
    held = anonymous_bytes(os.getpid())
    assert held > 4 * MiB
    try:
        shared = held - 2 * MiB
        # With what is shared it would be far beyond; without, it is within its bounds.
        holdings.begin(1, RUN, os.getpid(), Reservation(64 * MiB, 0, held // 2 + MiB), shared)
        assert holdings.news() == []
        kept = b"x" * held
        found: list[tuple[RunId, int]] = []

        def told() -> bool:
            found.extend(holdings.news())
            return bool(found)

        until(told)
        (run, size), *_ = found
        assert run == RUN
        assert held // 2 + MiB < size < held + 16 * MiB
        del kept
        holdings.reserved(1, Reservation(2 * held, 0, 2 * held))
        assert holdings.news() == []
        holdings.end(1)
        holdings.reserved(1, Reservation(0, 0, 0))
        assert holdings.news() == []
    finally:
        holdings.close()


def test_a_process_that_is_gone_holds_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert anonymous_bytes(process.pid) == 0
