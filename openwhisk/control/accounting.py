"""`Meter`: reserved bytes and cores over time.

Reserved means reserved: what an element has of its limit, and nobody else can have, counts from the
moment when a worker begins with it until it has committed (or was lost), whether it was touched or
not. Memory elements count from creation until they are freed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from openwhisk.api import Usage
from openwhisk.scheduler.messages import MemoryId, RunId

GB = 1e9


@dataclass(slots=True)
class Integral:
    """A quantity, its integral over time, and its peak."""

    now: float = 0.0
    total: float = 0.0
    peak: float = 0.0
    since: float | None = None

    def add(self, amount: float, time: float) -> None:
        """Change the quantity at `time`."""
        self.total = self.until(time)
        self.since = time
        self.now += amount
        self.peak = max(self.peak, self.now)

    def until(self, time: float) -> float:
        """The integral up to `time`."""
        return self.total if self.since is None else self.total + self.now * (time - self.since)


@dataclass(slots=True)
class Meter:
    """What one activation has reserved, and what it used."""

    compute: Integral = field(default_factory=Integral)
    cores: Integral = field(default_factory=Integral)
    memory: Integral = field(default_factory=Integral)
    elastic_byte_seconds: float = 0.0
    elastic_peak: int = 0
    held_byte_seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    recomputed: list[str] = field(default_factory=list)
    runs: dict[RunId, tuple[int, float]] = field(default_factory=dict)
    memories: dict[MemoryId, int] = field(default_factory=dict)

    def run_started(self, run: RunId, size: int, cores: float, now: float) -> None:
        """A worker begins with a run, for which so many bytes are reserved."""
        if run not in self.runs:
            self.runs[run] = (size, cores)
            self.compute.add(size, now)
            self.cores.add(cores, now)

    def run_reserved(self, run: RunId, size: int, now: float) -> bool:
        """A run has so many bytes reserved from now on. False if it has ended, or never began."""
        if (found := self.runs.get(run)) is None:
            return False
        before, cores = found
        self.runs[run] = (size, cores)
        self.compute.add(size - before, now)
        return True

    def run_ended(self, run: RunId, now: float) -> None:
        """A run is over, however it ended."""
        size, cores = self.runs.pop(run, (0, 0.0))
        self.compute.add(-size, now)
        self.cores.add(-cores, now)

    def memory_created(self, memory: MemoryId, size: int, now: float) -> None:
        """Bytes are reserved for a memory element (0 for an elastic one, which is settled when it
        is freed).
        """
        if memory not in self.memories:
            self.memories[memory] = size
            self.memory.add(size, now)

    def memory_gone(
        self,
        memory: MemoryId,
        now: float,
        peak: int | None = None,
        byte_seconds: float | None = None,
    ) -> None:
        """A memory element was freed, or passed to a session. The server's figures count for an
        elastic one.
        """
        size = self.memories.pop(memory, None)
        if size is None:
            return
        self.memory.add(-size, now)
        if size == 0 and peak is not None and byte_seconds is not None:
            self.elastic_byte_seconds += byte_seconds
            # When each was at its peak is not known: the sum is the most that it can have been.
            self.elastic_peak += peak

    def usage(self, now: float, warm_gb_s: float) -> Usage:
        """What it comes to at `now`."""
        return Usage(
            compute_gb_s=self.compute.until(now) / GB,
            memory_gb_s=(self.memory.until(now) + self.elastic_byte_seconds) / GB,
            held_gb_s=self.held_byte_seconds / GB,
            core_s=self.cores.until(now),
            cpu_s=self.cpu_seconds,
            peak_compute_bytes=int(self.compute.peak),
            peak_memory_bytes=int(self.memory.peak) + self.elastic_peak,
            bytes_read=self.bytes_read,
            bytes_written=self.bytes_written,
            warm_gb_s=warm_gb_s,
            recomputed=list(self.recomputed),
        )
