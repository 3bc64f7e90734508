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

MiB = 1 << 20
MAIN = "def main(params, action):\n    return {}\n"


@pytest.fixture
def book() -> ActivationBook:
    program = Program.compile(Application("app", [ComputeElement("e", MAIN)]))
    return ActivationBook("a", program, "auto", None)


def run(attempt: int) -> RunId:
    return RunId("a", "e", 0, attempt)


def test_the_late_end_of_a_void_run_does_not_touch_the_next(book: ActivationBook) -> None:
    book.started(run(1), 1.0, MiB)
    book.restarted(run(1), "lost")
    book.started(run(2), 2.0, MiB)
    book.ended(run(1), 3.0, "cancelled")
    (element,) = book.snapshot(3.0, 0.0).elements
    assert (element.status, element.attempts, element.end) == ("running", 2, None)
    book.ended(run(2), 4.0, "done")
    final = book.finish({"e": [msgspec.msgpack.encode({})]}, None, 5.0, 0.0)
    (element,) = final.elements
    assert (element.status, element.error) == ("done", None)
    assert final.usage.compute_gb_s == pytest.approx((2.0 + 2.0) * MiB / 1e9)
    assert book.final == final


def test_a_void_run_that_ends_before_the_next_begins_waits(book: ActivationBook) -> None:
    book.started(run(1), 1.0, MiB)
    book.restarted(run(1), "lost")
    book.ended(run(1), 2.0, "cancelled")
    (element,) = book.snapshot(2.0, 0.0).elements
    assert element.status == "waiting"


def test_a_run_that_never_began_can_fail(book: ActivationBook) -> None:
    book.ended(run(1), 1.0, "failed", Failure("internal", "no worker", element="e"))
    (element,) = book.snapshot(1.0, 0.0).elements
    assert (element.status, element.error) == ("failed", "no worker")


def test_what_an_element_has_reserved_is_charged_as_it_changes(book: ActivationBook) -> None:
    book.started(run(1), 1.0, 100 * MiB)
    book.reserved(run(1), 300 * MiB, 2.0)
    book.paused(run(1), 3.0)
    book.reserved(run(1), 400 * MiB, 5.0)
    book.reserved(run(1), 50 * MiB, 6.0)
    book.ended(run(1), 8.0, "done")
    book.reserved(run(1), 900 * MiB, 9.0)  # late
    final = book.finish({"e": [msgspec.msgpack.encode({})]}, None, 10.0, 0.0)
    (element,) = final.elements
    expected = (100 * 1 + 300 * 3 + 400 * 1 + 50 * 2) * MiB / 1e9
    assert final.usage.compute_gb_s == pytest.approx(expected)
    assert final.usage.peak_compute_bytes == 400 * MiB
    assert [size // MiB for _, size in element.reserved] == [100, 300, 400, 50]
    assert [round(seconds, 6) for seconds, _ in element.reserved] == [0.0, 1.0, 4.0, 5.0]
    assert element.paused_seconds == pytest.approx(2.0)


def test_one_that_ends_while_it_is_stopped_was_stopped_until_then(book: ActivationBook) -> None:
    book.started(run(1), 1.0, MiB)
    book.paused(run(1), 2.0)
    book.ended(run(1), 5.0, "failed", Failure("cancelled", "enough"))
    assert book.snapshot(6.0, 0.0).elements[0].paused_seconds == pytest.approx(3.0)


def test_a_record_keeps_some_changes_of_many(book: ActivationBook) -> None:
    book.started(run(1), 0.0, 0)
    for i in range(1, 5000):
        book.reserved(run(1), i, float(i))
    kept = book.snapshot(5000.0, 0.0).elements[0].reserved
    assert len(kept) <= records.MAX_CHANGES
    assert kept[0] == (0.0, 0)
    assert kept[-1][1] == 4999
    assert [size for _, size in kept] == sorted(size for _, size in kept)


def test_logs_are_bounded_and_say_so(book: ActivationBook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LOGS", 1000)
    for _ in range(10):
        book.measured(run(1), Metrics(), ["2026-01-31T23:59:59.123456Z stdout: " + "x" * 300])
    logs = book.snapshot(1.0, 0.0).logs
    assert len(logs) == 3
    assert "left out" in logs[-1]
    assert sum("left out" in line for line in logs) == 1


def test_metrics_are_those_of_the_last_attempt(book: ActivationBook) -> None:
    book.started(run(1), 1.0, MiB)
    book.measured(run(1), Metrics(recorded={"rows": 3.0, "old": 1.0}), [])
    book.restarted(run(1), "lost")
    book.started(run(2), 2.0, MiB)
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
