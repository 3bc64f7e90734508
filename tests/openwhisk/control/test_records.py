"""Records under odd orders of events and chatty elements."""

from __future__ import annotations

import msgspec
import pytest

from openwhisk.app import Application
from openwhisk.app.model import ComputeElement
from openwhisk.control import records
from openwhisk.control.records import ActivationBook
from openwhisk.invoker import Program
from openwhisk.scheduler.messages import Failure, RunId
from openwhisk.worker.messages import Metrics

MAIN = "def main(params, action):\n    return {}\n"


@pytest.fixture
def book() -> ActivationBook:
    program = Program.compile(Application("app", [ComputeElement("e", MAIN)]))
    return ActivationBook("a", program, "auto", None)


def run(attempt: int) -> RunId:
    return RunId("a", "e", 0, attempt)


def test_the_late_end_of_a_void_run_does_not_touch_the_next(book: ActivationBook) -> None:
    book.started(run(1), 1.0)
    book.restarted(run(1), "lost")
    book.started(run(2), 2.0)
    book.ended(run(1), 3.0, "cancelled")
    (element,) = book.snapshot(3.0, 0.0).elements
    assert (element.status, element.attempts, element.end) == ("running", 2, None)
    book.ended(run(2), 4.0, "done")
    final = book.finish({"e": [msgspec.msgpack.encode({})]}, None, 5.0, 0.0)
    (element,) = final.elements
    assert (element.status, element.error) == ("done", None)
    mem = element.reserved_bytes
    assert final.usage.compute_gb_s == pytest.approx((2.0 + 2.0) * mem / 1e9)
    assert book.final == final


def test_a_void_run_that_ends_before_the_next_begins_waits(book: ActivationBook) -> None:
    book.started(run(1), 1.0)
    book.restarted(run(1), "lost")
    book.ended(run(1), 2.0, "cancelled")
    (element,) = book.snapshot(2.0, 0.0).elements
    assert element.status == "waiting"


def test_a_run_that_never_began_can_fail(book: ActivationBook) -> None:
    book.ended(run(1), 1.0, "failed", Failure("internal", "no worker", element="e"))
    (element,) = book.snapshot(1.0, 0.0).elements
    assert (element.status, element.error) == ("failed", "no worker")


def test_logs_are_bounded_and_say_so(book: ActivationBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LOGS", 1000)
    for _ in range(10):
        book.measured(run(1), Metrics(), ["2026-01-31T23:59:59.123456Z stdout: " + "x" * 300])
    logs = book.snapshot(1.0, 0.0).logs
    assert len(logs) == 3
    assert "left out" in logs[-1]
    assert sum("left out" in line for line in logs) == 1
