"""What queries of a shape needed when they ran: where to begin next time, and what to reserve.

A *shape* is a plan without its constants and names (`operators.shape.shape`). Sizes are kept for a
session; a session that is given a file keeps them there for the sessions after it, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from engine.policy.ladder import Grain
from remote_frame.memory import WORKER, element_memory

if TYPE_CHECKING:
    from openwhisk.api import ElementRecord

__all__ = ["KEPT_BY_WORKERS", "Sizes"]

K = TypeVar("K", bound=str)

_MiB = 1 << 20

KEPT_BY_WORKERS = 192 * _MiB
"""Room for what a worker kept of the elements before it, which counts against the limit of the next
one. Without it more than half of TPC-DS's queries at SF 1 whose needs were known found no worker
that was lean enough, and had one forked: 10 ms, and 12 more until it is as warm. What an element
reserves follows what it holds; all of its limit has to be free only when it starts."""

_STEP = 4 * _MiB
# From run to run what a query of TPC-DS at SF 10 holds differs by up to an eighth. This is about
# all that RLIMIT_DATA counts; what DuckDB's own limit is about has a margin already, as that limit
# is only a share of the element's (`kernel_memory`): no second one on top.
_MARGIN = 1.15
# What was too little before, by an allocation that may be large or small.
_MORE = 1.5
# Nobody knows yet, and too little costs a second run: no query of TPC-DS at SF 10 held more than so
# many times what was expected, and so much more.
_GUESS = 1.5
_GUESS_BESIDES = 400 * _MiB
# A grain that allows no more than this is not worth a second run.
_LITTLE = 1 << 30
# Runs of which the fastest counts: one alone may have met a cold worker or a busy machine.
_RUNS = 3


class _Peak(msgspec.Struct):
    """The most that copies of a stage held (touched, and in all) in recent runs, and the largest
    limit at which they failed.
    """

    held: int = 0
    data: int = 0
    failed: int = 0


class _Shape(msgspec.Struct):
    """What is known of a shape: up to how many copies a grain is too coarse, whether Polars failed,
    peaks by grain, kernel and stage, and seconds of the last runs by grain and kernel.
    """

    coarse: int = 0
    polars_failed: bool = False
    peaks: dict[str, _Peak] = msgspec.field(default_factory=dict)
    seconds: dict[str, list[float]] = msgspec.field(default_factory=dict)


class _File(msgspec.Struct):
    version: int = 2
    shapes: dict[str, _Shape] = msgspec.field(default_factory=dict)


@dataclass(slots=True)
class Sizes:
    """Learnt sizes, by query shape. Safe to share between threads.

    Parameters
    ----------
    path
        A JSON file to begin with and to write what was learnt to; None keeps it in memory. A file
        that cannot be read as such is begun anew: it holds nothing that an answer depends on.
    """

    path: Path | None = None
    _shapes: dict[str, _Shape] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.path is not None:
            with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
                file = msgspec.json.decode(self.path.read_bytes(), type=_File)
                if file.version == _File().version:
                    self._shapes = file.shapes

    def too_coarse(self, shape: str, grain: Grain) -> bool:
        """Whether an element was stopped by its limit at `grain`, or at a finer one."""
        known = self._shapes.get(shape)
        return known is not None and not grain.storage and grain.copies <= known.coarse

    def kernel(self, shape: str, grain: Grain, kernels: Sequence[K]) -> K:
        """Of several kernels the next that was not tried yet, and when all were, the fastest.

        What is not chosen keeps its old times: as soon as the chosen one gets slower than those
        (by other constants, or more data), the other one has its turn again.
        """
        with self._lock:
            known = self._shapes.get(shape)
            seconds = {} if known is None else known.seconds

            def fastest(kernel: K) -> float:
                return min(seconds.get(_run(grain, kernel), ()), default=0.0)

            return min(kernels, key=fastest)

    def memory(
        self, shape: str, grain: Grain, stage: str, expected: float, kernel: str = "duckdb"
    ) -> int:
        """The limit of each copy of a stage, in bytes.

        What it held, with a margin and `KEPT_BY_WORKERS`, where that is known, and more than was
        too little before; else a guess from what is `expected`, and all that the grain allows if
        that was too little.
        """
        with self._lock:
            known = self._shapes.get(shape)
            peak = (known and known.peaks.get(_stage(grain, kernel, stage))) or _Peak()
            if peak.held:
                # The worker itself takes what it always takes.
                held, data = (max(p - WORKER, 0) for p in (peak.held, peak.data))
                wanted = max(element_memory(held), WORKER + int(data * _MARGIN))
                wanted += KEPT_BY_WORKERS
            else:
                guess = int(_GUESS * expected) + _GUESS_BESIDES
                wanted = grain.memory if peak.failed or grain.memory <= _LITTLE else guess
            wanted = max(wanted, int(_MORE * peak.failed))
            return min(-(-wanted // _STEP) * _STEP, grain.memory)

    def learn(
        self,
        shape: str,
        grain: Grain,
        elements: Iterable[ElementRecord],
        kernel: str = "duckdb",
    ) -> None:
        """Remember what the elements of a run that succeeded held, and how long they took."""
        with self._lock:
            known = self._shapes.setdefault(shape, _Shape())
            found: dict[str, list[ElementRecord]] = {}
            seconds = 0.0
            for element in elements:
                found.setdefault(_stage(grain, kernel, element.name), []).append(element)
                if element.start is not None and element.end is not None:
                    seconds += element.end - element.start - element.paused_seconds
            runs = known.seconds.setdefault(_run(grain, kernel), [])
            runs[:] = [*runs, seconds][-_RUNS:]
            for key, copies in found.items():
                peak = known.peaks.setdefault(key, _Peak())
                peak.held = _faded(peak.held, max(e.peak_anon_bytes for e in copies))
                peak.data = _faded(peak.data, max(e.peak_data_bytes for e in copies))
        self._write()

    def exceeded(
        self,
        shape: str,
        grain: Grain,
        reserved: Mapping[str, int],
        stage: str | None,
        kernel: str = "duckdb",
    ) -> bool:
        """Remember that an element was stopped by its limit.

        Returns
        -------
        bool
            Whether the same grain is worth another try: the element had less than the grain allows.
        """
        limit = grain.memory if stage is None else reserved.get(stage, grain.memory)
        with self._lock:
            known = self._shapes.setdefault(shape, _Shape())
            if stage is not None and limit < grain.memory:
                peak = known.peaks.setdefault(_stage(grain, kernel, stage), _Peak())
                peak.failed = max(peak.failed, limit)
                again = True
            else:
                known.coarse = max(known.coarse, grain.copies)
                again = False
        self._write()
        return again

    def polars_failed(self, shape: str) -> bool:
        """Whether Polars failed where DuckDB has to be asked."""
        known = self._shapes.get(shape)
        return known is not None and known.polars_failed

    def refuse_polars(self, shape: str) -> None:
        """Remember that it did."""
        with self._lock:
            self._shapes.setdefault(shape, _Shape()).polars_failed = True
        self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        with self._lock:
            data = msgspec.json.encode(_File(shapes=self._shapes))
        beside = self.path.with_name(f"{self.path.name}.{threading.get_ident()}")
        # Nothing depends on it: a disk that is full must not fail a query.
        with suppress(OSError):
            beside.write_bytes(data)
            beside.replace(self.path)


def _faded(before: int, now: int) -> int:
    """What to expect after a run: a peak that comes no more counts half as much each time. A worker
    that served others before holds what it kept of them, and allocators hold more where they may.
    """
    return max(now, (before + now) // 2)


def _run(grain: Grain, kernel: str) -> str:
    return f"{grain.copies}x{grain.threads}/{kernel}"


def _stage(grain: Grain, kernel: str, stage: str) -> str:
    return f"{_run(grain, kernel)}/{stage}"
