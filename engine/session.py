"""`Session`: queries in, Arrow tables out, by way of an application on disaggregated memory.

A session owns what its queries leave in memory elements, and the control plane if it started one.
It is the `Executor` of the frames that it makes.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

import pyarrow as pa

from engine.catalog import Catalog
from engine.codegen import CodegenSettings, build_application
from engine.errors import EngineError
from engine.execution import Execution, QueryFailedError, execute
from engine.local_tables import LocalTables
from engine.optimizer import Estimates, optimize
from engine.policy import POLICIES, Grain, Ladder, Policy, Sizes, stage_need
from engine.resident.needs import columns_wanted
from engine.resident.store import Lease, ResidentColumns, ResidentUse
from engine.running import Attempt, run_under_policy
from engine.stages import CutSettings, StagePlan, cut
from engine.stages.explain import explain_stages
from libd._core import available_memory
from libd.errors import ScadError
from libd.units import format_size, parse_size
from operators.rel import Rel
from operators.shape import shape
from operators.stats import TableStats

if TYPE_CHECKING:
    from openwhisk.api import Activation, ControlPlane, Usage
    from openwhisk.app import Application
    from remote_frame import RemoteFrame

__all__ = ["Run", "Session"]

_LEAST_DEFAULT_MEMORY = 1 << 30

# What an element needs before it has read a single row: the worker's own memory and DuckDB's.
LEAST_COMPUTE_MEMORY = 64 << 20

# Seconds without a query after which a session's memory goes; longer where columns are to stay.
_LEASE = 60.0
_RESIDENT_LEASE = 900.0

# Imported once per worker pool, so that an element starts in milliseconds. DuckDB imports
# pyarrow.dataset and, where it is installed, pandas when it is first given Arrow data: half a
# second of CPU in every worker otherwise.
PREIMPORT = (
    "pandas",
    "pyarrow.dataset",
    "libd.action",
    "remote_frame.executor",
    "operators.duckdb",
    "engine.element",
    "engine.resident.load",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What the last query cost.

    Attributes
    ----------
    activation
        The control plane's record, one entry per compute element among it.
    stages
        Stages that the query was cut into.
    elements
        Compute elements, parallel copies counted one by one.
    grain
        How finely the query was cut, and the most that its elements might hold.
    retries
        Runs before this one that ended because an element's memory did not suffice.
    resident
        What it had of resident columns; None if none are kept.
    """

    activation: Activation
    stages: int
    elements: int
    grain: Grain
    retries: int = 0
    resident: ResidentUse | None = None

    @property
    def usage(self) -> Usage:
        """Reserved and used memory and cores."""
        return self.activation.usage


class Session:
    """A place to run queries.

    Parameters
    ----------
    parallelism
        Copies of the elements that work on parts of large tables; None leaves it to the policy.
    compute_memory
        The most that every compute element may hold: bytes, or a text like ``"512MB"``. None is a
        quarter of the control plane's memory, at least 1 GiB.
    transport
        How elements reach memory: ``auto``, ``shm`` or ``tcp``.
    apihost
        ``host:port`` of a control plane (``python -m openwhisk``); None starts one in this process
        with the first query.
    control
        A control plane to use; it is not closed with the session.
    exchange_memory
        The most that one exchange between stages, or an answer, may grow to.
    policy
        How finely queries are cut: ``aggregate`` (as few elements as the memory limit allows),
        ``disaggregate`` (elements as small as is useful, every exchange a memory element) or
        ``auto`` (by cost).
    sizes
        What queries needed when they ran, to be shared between sessions; None begins with nothing.
    resident
        Bytes (or a text like ``"12GB"``) of base-table columns that stay decoded in memory for the
        queries that follow; None keeps none.

    Raises
    ------
    EngineError
        If an argument makes no sense.

    Examples
    --------
    >>> with Session() as s:                                        # doctest: +SKIP
    ...     s.read_parquet("sales.parquet")
    ...     s.sql("select count(*) from sales").collect()
    """

    def __init__(
        self,
        parallelism: int | None = None,
        compute_memory: int | str | None = None,
        transport: Literal["auto", "shm", "tcp", "rdma"] = "auto",
        apihost: str | None = None,
        control: ControlPlane | None = None,
        *,
        exchange_memory: int | str = "8GB",
        policy: Policy = "auto",
        sizes: Sizes | None = None,
        resident: int | str | None = None,
    ) -> None:
        if parallelism is not None and parallelism < 1:
            raise EngineError(f"parallelism must be at least 1, not {parallelism}")
        if transport not in ("auto", "shm", "tcp", "rdma"):
            raise EngineError(f"there is no transport {transport!r}: use auto, shm, tcp or rdma")
        if apihost is not None and control is not None:
            raise EngineError("give either apihost or control, not both")
        if policy not in POLICIES:
            raise EngineError(f"there is no policy {policy!r}: use {', '.join(POLICIES)}")
        memory = None if compute_memory is None else parse_size(compute_memory)
        if memory is not None and memory < LEAST_COMPUTE_MEMORY:
            raise EngineError(
                f"compute_memory {format_size(memory)} is too small: "
                f"an element needs at least {format_size(LEAST_COMPUTE_MEMORY)} to start"
            )
        self.catalog = Catalog()
        self._local = LocalTables(self.catalog)
        self._parallelism = parallelism
        self._cores: int | None = None
        self._compute_memory = memory
        self._codegen = CodegenSettings(
            exchange_memory=parse_size(exchange_memory), resident=resident is not None
        )
        self._policy: Policy = policy
        self._sizes = Sizes() if sizes is None else sizes
        self._transport = transport
        self._apihost = apihost
        self._control = control
        self._owns_control = control is None
        self._resident = None if resident is None else self._keeping(parse_size(resident))
        self._statistics: dict[tuple[str, ...], TableStats] = {}
        self._lock = threading.RLock()
        self._id: str | None = None
        self._closed = False
        self._last: Run | None = None

    def _keeping(self, budget: int) -> ResidentColumns:
        here = self._apihost is None and self._control is None
        if here and budget > available_memory():
            raise EngineError(
                f"a resident budget of {format_size(budget)} is more than the "
                f"{format_size(available_memory())} of memory that are available"
            )
        return ResidentColumns(
            budget,
            self._transport,
            lambda: self.cores,
            lambda: min(self.compute_memory, _LEAST_DEFAULT_MEMORY),
        )

    # Tables and queries

    def register(self, name: str, source: Any) -> None:
        """Make a table known: a Parquet file, several, a directory of them, or Arrow data (see
        `Catalog.register`).
        """
        self.catalog.register(name, source)

    def read_parquet(self, path: str | os.PathLike[str], name: str | None = None) -> RemoteFrame:
        """A frame over Parquet files; also registered as a table, by default under the file's
        name.
        """
        table = name or Path(path).stem
        self.register(table, path)
        return self._frame(self.catalog.scan(table))

    def sql(self, text: str) -> RemoteFrame:
        """A frame that is what a SELECT statement says. Nothing runs before it is collected.

        Raises
        ------
        SqlError
            If it cannot be planned: bad syntax, an unknown table or column, something unsupported.
        """
        from engine.frontend import plan_sql

        return self._frame(plan_sql(text, self.catalog))

    def _frame(self, plan: Rel) -> RemoteFrame:
        from remote_frame import RemoteFrame

        return RemoteFrame(plan, self)

    # The executor of frames

    def collect(self, plan: Rel) -> pa.Table:
        """Run a plan and return its rows, in its order.

        Raises
        ------
        QueryFailedError
            If an element fails; the message names it.
        DataError
            If a data file changed since it was registered.
        """
        estimates = Estimates(self._statistics)
        optimized = optimize(self._local.resolve(plan), estimates)
        with self.catalog.unchanged(plan):
            if self._resident is None:
                return self._run(plan, optimized, estimates, None)
            needs = columns_wanted([optimized])
            while True:
                control, session = self._ready()
                with self._resident.lease(control, session, needs) as lease:
                    try:
                        return self._run(plan, optimized, estimates, lease)
                    except QueryFailedError:
                        # What died with a memory server is filled again, once per server.
                        if self._resident.check(control, session, lease):
                            raise

    def _run(
        self, plan: Rel, optimized: Rel, estimates: Estimates, lease: Lease | None
    ) -> pa.Table:
        control, session = self._ready()
        parameters = None if lease is None else lease.parameters()

        def run(attempt: Attempt) -> Execution:
            app = build_application(
                f"query-{uuid4().hex[:12]}", attempt.stages, attempt.settings, parameters
            )
            return execute(
                control,
                app,
                plan.schema,
                sink=attempt.stages.result.name,
                session=session,
                transport=self._transport,
            )

        done = run_under_policy(
            self._ladder(),
            self._sizes,
            shape(optimized),
            self._codegen,
            lambda grain: _cut(optimized, estimates, grain),
            lambda stage, grain: stage_need(stage, estimates, grain.threads),
            run,
        )
        stages = done.attempt.stages
        self._last = Run(
            done.execution.activation,
            len(stages.stages),
            stages.elements,
            done.attempt.grain,
            done.retries,
            None if lease is None else lease.use,
        )
        return done.execution.table

    @property
    def resident(self) -> ResidentColumns | None:
        """The columns that stay in memory (``session.resident.stats()``); None if none do."""
        return self._resident

    def explain(self, query: str | RemoteFrame | Rel) -> str:
        """The stages of a query, with estimated rows and bytes."""
        return explain_stages(self.stages(self._plan(query)))

    def emit(self, query: str | RemoteFrame | Rel, directory: str | os.PathLike[str]) -> list[Path]:
        """Write a query's elements into a directory: files that ``wskgen`` and ``rundisagg``
        accept.
        """
        target = Path(directory)
        app = self._application(target.name or "query", self.stages(self._plan(query)))
        target.mkdir(parents=True, exist_ok=True)
        return app.write_directory(target)

    @property
    def last_run(self) -> Run | None:
        """What the last query that succeeded cost; None before it."""
        return self._last

    def stages(self, plan: Rel) -> StagePlan:
        """A plan, optimized and cut into stages."""
        estimates = Estimates(self._statistics)
        optimized = optimize(self._local.resolve(plan), estimates)
        return _cut(optimized, estimates, self._grain(optimized))

    def _grain(self, optimized: Rel) -> Grain:
        """The grain at which a plan would be run now."""
        known = shape(optimized)
        grains = list(self._ladder().rungs())
        return next((g for g in grains if not self._sizes.too_coarse(known, g)), grains[-1])

    def _ladder(self) -> Ladder:
        return Ladder(self._policy, self.cores, self.compute_memory, self._parallelism)

    @property
    def cores(self) -> int:
        """Cores that elements run on."""
        if self._cores is None:
            here = self._apihost is None and self._control is None
            self._cores = (
                len(os.sched_getaffinity(0)) if here else int(self._control_plane().info().cores)
            )
        return max(1, self._cores)

    @property
    def compute_memory(self) -> int:
        """The most bytes that a compute element may hold."""
        if self._compute_memory is None:
            memory = self._control_plane().info().memory
            self._compute_memory = max(_LEAST_DEFAULT_MEMORY, memory // 4)
        return self._compute_memory

    def _plan(self, query: str | RemoteFrame | Rel) -> Rel:
        if isinstance(query, str):
            query = self.sql(query)
        return query if isinstance(query, Rel) else query.plan

    def _application(self, name: str, stages: StagePlan) -> Application:
        settings = replace(self._codegen, compute_memory=self.compute_memory)
        if stages.elements == 1:
            settings = replace(settings, threads=self.cores)
        return build_application(name, stages, settings)

    # Life

    def _control_plane(self) -> ControlPlane:
        with self._lock:
            if self._closed:
                raise EngineError("the session is closed")
            if self._control is None:
                self._control = self._start()
            return self._control

    def _start(self) -> ControlPlane:
        if self._apihost is not None:
            from openwhisk.client import HttpControlPlane

            return HttpControlPlane(self._apihost)
        from openwhisk.control import EmbeddedControlPlane

        return EmbeddedControlPlane(preimport=PREIMPORT)

    def _ready(self) -> tuple[ControlPlane, str]:
        """The control plane and the id of a session there whose lease has just begun."""
        from openwhisk.errors import NotFoundError

        control = self._control_plane()
        with self._lock:
            if self._id is not None:
                try:
                    control.renew_session(self._id)
                except NotFoundError:  # idle for longer than its lease
                    self._id = None
            if self._id is None:
                lease = _LEASE if self._resident is None else _RESIDENT_LEASE
                self._id = control.open_session(lease=lease).id
            return control, self._id

    def close(self) -> None:
        """Give everything back: memory, workers, the control plane if this session started it."""
        with self._lock:
            self._closed = True
            if self._resident is not None:
                self._resident.close()
            self._local.close()
            self.catalog.close()
            control, self._control = self._control, None
            session, self._id = self._id, None
            if control is None:
                return
            if session is not None:
                with suppress(ScadError):
                    control.close_session(session)
            if self._owns_control:
                control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _cut(optimized: Rel, estimates: Estimates, grain: Grain) -> StagePlan:
    settings = CutSettings(parallelism=grain.copies, broadcast_bytes=grain.memory / 4)
    return cut(optimized, estimates, settings)
