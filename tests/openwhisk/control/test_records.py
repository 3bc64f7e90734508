"""Records under odd orders of events and chatty elements."""

from __future__ import annotations

import msgspec
import pytest

from openwhisk.app import Application
from openwhisk.app.model import ComputeElement
from openwhisk.control import records
from openwhisk.control.records import ActivationBook
from openwhisk.invoker import Program
from openwhisk.scheduler.messages import Failure, MemoryId, RunId
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


def test_metrics_are_those_of_the_last_attempt(book: ActivationBook) -> None:
    book.started(run(1), 1.0)
    book.measured(run(1), Metrics(recorded={"rows": 3.0, "old": 1.0}), [])
    book.restarted(run(1), "lost")
    book.started(run(2), 2.0)
    book.measured(run(1), Metrics(recorded={"rows": 4.0}), [])  # late
    book.measured(run(2), Metrics(recorded={"rows": 5.0}), [])
    book.ended(run(2), 3.0, "done")
    final = book.finish({"e": [msgspec.msgpack.encode({})]}, None, 4.0, 0.0)
    assert final.elements[0].metrics == {"rows": 5.0}


def test_each_incarnation_of_a_memory_element_has_a_record(book: ActivationBook) -> None:
    fixed, first, second = MemoryId("a", "m", 1), MemoryId("a", "x", 1), MemoryId("a", "x", 2)
    book.memory_created(fixed, 2 * 10**9, 1.0)
    book.memory_created(first, 0, 1.0)
    book.memory_gone(first, 2.0)  # lost: what it held is not known
    book.memory_created(second, 0, 2.0)
    book.memory_gone(second, 4.0, peak=7, byte_seconds=3e9)
    book.memory_gone(second, 9.0, peak=8, byte_seconds=9e9)  # told twice
    m, lost, x = book.snapshot(5.0, 0.0).memory
    assert (m.name, m.generation, m.end, m.peak_bytes) == ("m", 1, None, 2 * 10**9)
    assert (lost.generation, lost.peak_bytes, lost.gb_s) == (1, 0, 0.0)
    assert (x.name, x.generation, x.peak_bytes, x.gb_s) == ("x", 2, 7, 3.0)
    assert x.end is not None
    assert x.end - x.start == pytest.approx(2.0)
    book.memory_gone(fixed, 6.0)
    assert book.snapshot(6.0, 0.0).memory[0].gb_s == pytest.approx(10.0)
