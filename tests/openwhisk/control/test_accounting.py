"""Integrals of what is reserved."""

from __future__ import annotations

import pytest

from openwhisk.control.accounting import Integral, Meter
from openwhisk.scheduler.messages import MemoryId, RunId


def test_an_integral_is_exact_between_changes() -> None:
    i = Integral()
    assert i.until(100.0) == 0
    i.add(2.0, 10.0)
    i.add(3.0, 11.0)
    i.add(-5.0, 13.0)
    assert i.until(99.0) == 2.0 + 10.0
    assert i.peak == 5.0


def test_overlapping_runs_and_memory() -> None:
    meter = Meter()
    one, two = RunId("a", "e", 0, 1), RunId("a", "e", 1, 1)
    meter.run_started(one, 10**9, 1.0, 0.0)
    meter.run_started(one, 10**9, 1.0, 0.0)  # told twice, counted once
    meter.run_started(two, 2 * 10**9, 0.5, 1.0)
    fixed, elastic = MemoryId("a", "m", 1), MemoryId("a", "x", 1)
    meter.memory_created(fixed, 4 * 10**9, 0.0)
    meter.memory_created(elastic, 0, 0.0)
    meter.run_ended(one, 2.0)
    meter.run_ended(two, 2.0)
    meter.run_ended(two, 9.0)  # an end of something that is over
    meter.memory_gone(elastic, 2.0, peak=10**9, byte_seconds=0.5e9)
    meter.memory_gone(fixed, 3.0, peak=4 * 10**9, byte_seconds=99e9)  # our own clock counts
    meter.memory_gone(fixed, 9.0)
    usage = meter.usage(10.0, warm_gb_s=0.25)
    assert usage.compute_gb_s == pytest.approx(4.0)
    assert usage.core_s == pytest.approx(2.5)
    assert usage.memory_gb_s == pytest.approx(12.5)
    assert usage.peak_compute_bytes == 3 * 10**9
    assert usage.peak_memory_bytes == 5 * 10**9
    assert usage.warm_gb_s == 0.25
