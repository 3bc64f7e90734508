"""Who computes a frame: the `Executor` protocol, and `LocalExecutor`, which does it here.

`LocalExecutor` is the executor of an element: it lowers a plan to the kernel that the worker keeps
warm and runs it over the opened parts of remote frames. The executor that turns a plan into a DAG
is the engine's session.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from operators.file_versions import check, unchanged
from operators.microseconds import require_whole_microseconds
from operators.rel import InputSource, Query, Rel, Scan, versioned_files, walk
from remote_frame.errors import FrameError
from remote_frame.memory import kernel_memory
from remote_frame.pruning import prune

if TYPE_CHECKING:
    from operators.duckdb import Kernel

__all__ = [
    "KERNEL_RESOURCE",
    "UNNAMED",
    "Executor",
    "FrameSource",
    "LocalExecutor",
    "Resourceful",
    "common_executor",
    "executor_of",
]

KERNEL_RESOURCE = "duckdb"
"""The key under which a worker keeps its one warm kernel (`action.resource`)."""

UNNAMED = "frame"
"""What people call the data of a frame that nobody gave a name."""

_DEFAULT_MEMORY = 1 << 30


class Executor(Protocol):
    """Computes plans.

    Beyond what is required, one may have ``place`` (where that is, for people), ``stream`` (like
    `collect`, as a reader of batches) and ``query`` (see `LocalExecutor.query`).
    """

    def collect(self, plan: Rel) -> pa.Table:
        """The rows of a plan."""

    def explain(self, plan: Rel, *, analyze: bool = False) -> str:
        """How the plan would be computed; with `analyze` it is, and the text says how it went."""


class Resourceful(Protocol):
    """The part of an element's `action` that a warm kernel needs."""

    def resource(self, key: str, factory: Callable[[], Any]) -> Any:
        """What the worker keeps under `key`."""


class ArrowData(Protocol):
    """Re-readable columns: a `FrameReader`, or a table in local memory."""

    @property
    def schema(self) -> pa.Schema:
        """The columns."""

    def select(self, columns: Sequence[int]) -> ArrowData:
        """The same rows with only some columns, by position."""

    def table(self) -> pa.Table:
        """All rows."""

    def arrow_stream(self, columns: Sequence[str]) -> Any:
        """Something with `__arrow_c_stream__` over the named columns."""


@dataclass(frozen=True, slots=True)
class FrameSource(InputSource):
    """A scan's source that carries its data, so that frames can be combined freely.

    ``name`` is what the lowered statement calls it, `label` what people do; `data` and `label` take
    no part in comparisons.
    """

    data: ArrowData = field(compare=False, repr=False)
    label: str = field(default=UNNAMED, compare=False, repr=False)

    @classmethod
    def over(cls, data: ArrowData, label: str = UNNAMED) -> FrameSource:
        """A source whose name is unique among those alive."""
        return cls(f"frame_{id(data):x}", data, label)


class LocalExecutor:
    """Computes plans in this process, on a DuckDB kernel.

    Parameters
    ----------
    action
        The element's `action`: its worker's warm kernel is used, within the element's limits.
        Without one, or with one that keeps no resources (a bare `LibdAction`), a kernel is opened
        when it is first needed and closed with this executor.
    """

    def __init__(self, action: Any = None) -> None:
        self.action = action
        self._lock = threading.Lock()
        self._own: Kernel | None = None
        self._kernel: Kernel | None = None

    @property
    def place(self) -> str:
        """Where frames are computed, for people."""
        return "in this process" if self.action is None else "in this element"

    def query(self, text: str, tables: Mapping[str, Rel]) -> Rel:
        """The plan of a SELECT statement over named plans.

        Raises
        ------
        PlanError
            If it is none, or names something that is not there.
        """
        from operators.duckdb import query

        return query(text, tables)

    def collect(self, plan: Rel) -> pa.Table:
        """The rows of a plan; of a frame that was merely opened, views where the transport maps.

        Raises
        ------
        KernelError
            If the kernel fails; `KernelMemoryError` if the element's memory does not suffice.
        LibdError
            If remote memory cannot be read.
        FileChangedError
            If a file is not what it was when the frame was made; the message names it.
        """
        with unchanged(versioned_files(plan)):
            return self._collect(plan)

    def _collect(self, plan: Rel) -> pa.Table:
        if (data := _merely_opened(plan)) is not None:
            return data.table().rename_columns(list(plan.schema.names)).cast(plan.schema.to_arrow())
        with self._lock:  # a kernel runs one statement at a time
            return self._started(plan).read_all()

    def stream(self, plan: Rel) -> pa.RecordBatchReader:
        """The rows of a plan as the kernel makes them; read it to its end before the next plan."""
        files = list(versioned_files(plan))
        if not files:
            return self._started(plan)
        check(files)
        reader = self._started(plan)

        def batches() -> Iterator[pa.RecordBatch]:
            with unchanged(files):
                yield from reader

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def _started(self, plan: Rel) -> pa.RecordBatchReader:
        kernel = self.kernel
        pruned = prune(plan)
        require_whole_microseconds(pruned)
        fragment = kernel.lower(pruned)
        inputs = {
            one.source.name: one.source.data
            for one in fragment.supplied
            if isinstance(one.source, FrameSource)
        }
        return kernel.run(fragment, inputs)

    def explain(self, plan: Rel, *, analyze: bool = False) -> str:
        """The plan, and the statement that the kernel would run; with `analyze` it runs."""
        from operators.duckdb import lower
        from operators.printer import format_plan

        pruned = prune(plan)
        text = f"{format_plan(pruned)}\n\n{lower(pruned).sql}"
        if not analyze:
            return text
        began = time.perf_counter()
        rows = self.collect(plan)
        seconds = time.perf_counter() - began
        return f"{text}\n\n{rows.num_rows:,} rows, {rows.nbytes:,} bytes, {seconds:.3f} s"

    @property
    def kernel(self) -> Kernel:
        """The kernel, within the limits of the element."""
        if self._kernel is None:
            self._kernel = warm_kernel(self.action)
            if not hasattr(self.action, "resource"):
                self._own = self._kernel
        return self._kernel

    def close(self) -> None:
        """Close the kernel if it is this executor's own."""
        own, self._own, self._kernel = self._own, None, None
        if own is not None:
            own.close()


def executor_of(where: Any) -> Executor:
    """The executor that is meant: itself (a session), that of an element by its `action`, or for
    None this process.

    Raises
    ------
    FrameError
        If it is none of these.
    """
    if where is None:
        return LocalExecutor()
    if hasattr(where, "collect") and hasattr(where, "explain"):
        executor: Executor = where
        return executor
    if hasattr(where, "get_transport") or hasattr(where, "resource"):
        return LocalExecutor(where)
    raise FrameError(f"{where!r} is neither a session nor an element's action")


def common_executor(frames: Sequence[tuple[Rel, Executor]]) -> Executor:
    """Who computes a plan made of several, given each with its executor.

    What only reads this process's data and files can be computed by any executor; so it goes to
    that of the others.

    Raises
    ------
    FrameError
        If there are two executors that cannot take over from one another.
    """
    chosen = frames[0][1]
    for _, one in frames[1:]:
        if one is chosen or _yields(one, chosen):
            continue
        if not _yields(chosen, one):
            raise FrameError(
                "the frames belong to different executors; collect one of them and open it with "
                "the other's"
            )
        chosen = one
    if not isinstance(chosen, LocalExecutor):
        for plan, executor in frames:
            if isinstance(executor, LocalExecutor) and any(
                isinstance(r, Query) for r in walk(plan)
            ):
                raise FrameError(
                    "a frame that sql() made in this process cannot become part of one that is "
                    "computed elsewhere: make its inputs there, too"
                )
    return chosen


def _yields(one: Executor, other: Executor) -> bool:
    """Whether `other` can compute what `one` does."""
    if not isinstance(one, LocalExecutor):
        return False
    same = isinstance(other, LocalExecutor) and one.action is other.action
    return same or one.action is None


def warm_kernel(action: Any = None) -> Kernel:
    """The worker's kernel, set to the limits of the element; a new one if nothing keeps it warm.

    Without an `action` it may use what the machine has.
    """
    from operators.duckdb import Kernel

    limits = getattr(action, "limits", None)
    if action is None:
        threads, available = len(os.sched_getaffinity(0)), _machine_memory()
    else:
        threads = max(1, int(getattr(limits, "cpu", 1)))
        available = getattr(limits, "mem", 0) or _DEFAULT_MEMORY
    memory = kernel_memory(available)
    if not hasattr(action, "resource"):
        return Kernel.open(threads, memory)
    storage = int(getattr(limits, "storage", 0))
    if storage:
        # A connection that has spilled keeps its directory for good: this one is for one element.
        # It spills what its own limit does not hold; the rest is for what that does not count.
        return Kernel.open(threads, memory // 2, action.scratch(), storage)
    kernel: Kernel = action.resource(KERNEL_RESOURCE, lambda: Kernel.open(threads, memory))
    kernel.limit(threads, memory)
    return kernel


def prepare_worker(resources: Any) -> None:
    """Open a kernel in a worker (`openwhisk.runtime.Resources`) that waits for its first element,
    which would take 20 ms longer.
    """
    from operators.duckdb import Kernel

    resources.get(KERNEL_RESOURCE, lambda: Kernel.open(1, kernel_memory(0)))


def _machine_memory() -> int:
    """Bytes of this machine's memory: what a program that is no element may use."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _merely_opened(plan: Rel) -> ArrowData | None:
    """The data of a plan that only chooses columns of one frame."""
    if isinstance(plan, Scan) and plan.predicate is None and isinstance(plan.source, FrameSource):
        return plan.source.data.select(plan.columns)
    return None
