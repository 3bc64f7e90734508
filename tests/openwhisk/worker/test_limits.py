"""Measuring and limiting this very process."""

from __future__ import annotations

import mmap
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from openwhisk._sampler import Sampler
from openwhisk.worker.limits import LimitTooSmallError, held_data, memory_limit

MiB = 1 << 20
PAGE = mmap.PAGESIZE


def fresh_memory(size: int) -> mmap.mmap:
    """Private memory from the kernel: an allocator might give back what the runner freed before."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def test_the_sampler_sees_a_peak_that_is_gone_again() -> None:
    sampler = Sampler(interval=0.0005)
    try:
        before = sampler.read()
        sampler.start()
        with fresh_memory(40 * MiB) as held:
            held[::PAGE] = bytes(40 * MiB // PAGE)
            samples = sampler.samples
            while sampler.samples < samples + 2:
                pass
        peak = sampler.stop()
        assert peak >= before + 30 * MiB
        sampler.start()
        assert sampler.stop() < peak, "every watch begins anew"
        assert sampler.samples >= 2, "start and stop are samples too"
    finally:
        sampler.close()
    sampler.close()
    for call in (sampler.start, sampler.stop, sampler.read):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_the_sampler_integrates_what_is_held_over_time() -> None:
    sampler = Sampler(interval=0.0005)
    try:
        with fresh_memory(40 * MiB) as held:
            held[::PAGE] = bytes(40 * MiB // PAGE)
            before = sampler.read()
            begin = time.monotonic()
            sampler.start()
            began = time.monotonic()
            while sampler.samples < 10:
                pass
            ends = time.monotonic()
            sampler.stop()
            ended = time.monotonic()
            assert ends - began <= sampler.seconds <= ended - begin
            assert sampler.byte_seconds == pytest.approx(before * sampler.seconds, rel=0.1)
        sampler.start()
        sampler.stop()
        assert sampler.seconds <= ended - begin, "every watch begins anew"
        assert sampler.byte_seconds <= before * sampler.seconds
    finally:
        sampler.close()


@pytest.mark.parametrize("interval", [0.0, -1.0, 1.0, float("nan")])
def test_the_sampler_refuses_a_senseless_interval(interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        Sampler(interval=interval)


def test_a_limit_that_is_held_already_says_what_would_do() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(LimitTooSmallError, match="give it at least") as caught, memory_limit(MiB):
        pytest.fail("it ran")
    assert str(MiB) in str(caught.value)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_limit_holds_and_is_lifted_again() -> None:
    # In a process of its own: what the test runner holds would get in the way.
    program = f"""
import resource
from openwhisk.worker.limits import held_data, memory_limit
before = resource.getrlimit(resource.RLIMIT_DATA)
with memory_limit(held_data() + 50 * {MiB}):
    fits = bytearray(20 * {MiB})
    try:
        bytearray(60 * {MiB})
    except MemoryError:
        print("refused")
bytearray(60 * {MiB})
assert resource.getrlimit(resource.RLIMIT_DATA) == before
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == ("refused\n", "", 0)


def test_held_data_grows_with_what_is_reserved_touched_or_not() -> None:
    before = held_data()
    with fresh_memory(64 * MiB):
        assert held_data() >= before + 60 * MiB
