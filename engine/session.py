"""`Session`: queries in, Arrow tables out, by way of an application on disaggregated memory.

A session owns what its queries leave in memory elements, and the control plane if it started one.
It is the `Executor` of the frames that it makes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from uuid import uuid4

import pyarrow as pa

import remote_frame
from engine.catalog import Catalog
from engine.codegen import CodegenSettings, ReductionSettings, build_application
from engine.errors import EngineError
from engine.execution import Execution, QueryFailedError, execute
from engine.local_tables import LocalTables
from engine.optimizer import Estimates, optimize
from engine.policy import POLICIES, Grain, Ladder, Policy, Sizes, stage_need
from engine.resident.needs import columns_wanted
from engine.resident.store import Lease, ResidentColumns, ResidentUse
from engine.running import Attempt, run_under_policy
from engine.stages import CutSettings, StagePlan, cut
from libd._core import available_memory
from libd.errors import ScadError
from libd.units import format_size, parse_size
from operators.rel import Rel
from operators.shape import shape
from operators.stats import TableStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.report import QueryProfile
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
    "remote_frame.opening",
    "remote_frame.storage",
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
    plan
        The stages themselves; with `activation` it makes a profile (`engine.report.profile`).
    """

    activation: Activation
    stages: int
    elements: int
    grain: Grain
    plan: StagePlan = field(repr=False)
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
    on_progress
        Called a few times per second, while a query runs, with the record of its activation so
        far, on the thread that waits for the answer.

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
        on_progress: Callable[[Activation], None] | None = None,
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
        roomy = memory is None or memory >= _LEAST_DEFAULT_MEMORY
        self._codegen = CodegenSettings(
            exchange_memory=parse_size(exchange_memory),
            resident=resident is not None,
            # The reader alone takes 44 MB of every worker.
            reduction=ReductionSettings() if roomy and resident is None else None,
        )
        self._policy: Policy = policy
        self._sizes = Sizes() if sizes is None else sizes
        self._resident: ResidentColumns | None = None
        if resident is not None:
            budget = parse_size(resident)
            if apihost is None and control is None and budget > available_memory():
                raise EngineError(
                    f"a resident budget of {format_size(budget)} is more than the "
                    f"{format_size(available_memory())} of memory that are available"
                )
            self._resident = ResidentColumns(
                budget,
                transport,
                lambda: self.cores,
                lambda: min(self.compute_memory, _LEAST_DEFAULT_MEMORY),
            )
        self._transport = transport
        self._on_progress = on_progress
        self._apihost = apihost
        self._control = control
        self._owns_control = control is None
        self._statistics: dict[tuple[str, ...], TableStats] = {}
        self._lock = threading.RLock()
        self._id: str | None = None
        self._closed = False
        self._last: Run | None = None

    # Tables and queries

    def register(self, name: str, source: Any) -> None:
        """Make a table known: Parquet, CSV or Arrow files, Arrow data; see `Catalog.register`."""
        self.catalog.register(name, source)

    def read_parquet(self, path: str | os.PathLike[str], name: str | None = None) -> RemoteFrame:
        """A frame over Parquet files; also registered as a table, by default under the file's
        name.
        """
        table = name or Path(path).stem
        self.register(table, path)
        return self._frame(self.catalog.scan(table))

    def read_csv(
        self, path: str | os.PathLike[str], name: str | None = None, **options: Any
    ) -> RemoteFrame:
        """A frame over CSV files; also registered as a table, by default under the file's name.

        `options` are those of `remote_frame.read_csv`.
        """
        from remote_frame.files import spool_csv

        table = name or Path(path).name.split(".")[0]
        self.register(table, spool_csv(path, **options))
        return self._frame(self.catalog.scan(table))

    def from_arrow(self, data: Any) -> RemoteFrame:
        """A frame over Arrow data of this process; see `remote_frame.from_arrow`."""
        return remote_frame.from_arrow(data, self)

    def from_pandas(self, data: Any, *, include_index: bool = False) -> RemoteFrame:
        """A frame over a pandas frame; see `remote_frame.from_pandas`."""
        return remote_frame.from_pandas(data, self, include_index=include_index)

    def from_polars(self, data: Any) -> RemoteFrame:
        """A frame over a Polars frame; see `remote_frame.from_polars`."""
        return remote_frame.from_polars(data, self)

    def from_dict(self, data: Mapping[str, Any], *, schema: Any = None) -> RemoteFrame:
        """A frame of columns of Python values; see `remote_frame.from_dict`."""
        return remote_frame.from_dict(data, self, schema=schema)

    def sql(self, text: str, /, **frames: RemoteFrame) -> RemoteFrame:
        """A frame that is what a SELECT statement says. Nothing runs before it is collected.

        Parameters
        ----------
        text
            The statement, over registered tables.
        frames
            Frames that it may name, too; each hides a registered table of its name.

        Raises
        ------
        SqlError
            If it cannot be planned: bad syntax, an unknown table or column, something unsupported.
        """
        if frames:
            return remote_frame.sql(text, self, **frames)
        from engine.frontend import plan_sql

        return self._frame(plan_sql(text, self.catalog))

    def query(self, text: str, tables: Mapping[str, Rel]) -> Rel:
        """The plan of a SELECT statement over named plans and registered tables; see `sql`."""
        from engine.frame_sql import plan_over_frames

        return plan_over_frames(text, tables, self.catalog)

    @property
    def place(self) -> str:
        """Where frames are computed, for people."""
        return "by a session"

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
        query = self._query(plan)
        with self.catalog.unchanged(plan):
            if self._resident is None:
                return self._execute(query, None)
            needs = columns_wanted([query.whole])
            while True:
                control, session = self._ready()
                with self._resident.lease(control, session, needs) as lease:
                    try:
                        return self._execute(query, lease)
                    except QueryFailedError:
                        # Columns that died with their memory server are filled again, once per
                        # server.
                        if self._resident.check(control, session, lease):
                            raise

    def _query(self, plan: Rel) -> _Query:
        estimates = Estimates(self._statistics)
        resolved = self._local.resolve(plan)
        whole = optimize(resolved, estimates)
        return _Query(resolved, estimates, whole, shape(whole))

    def _execute(self, query: _Query, lease: Lease | None) -> pa.Table:
        control, session = self._ready()
        parameters = None if lease is None else lease.parameters()

        def run(attempt: Attempt) -> Execution:
            name = f"query-{uuid4().hex[:12]}"
            app = build_application(
                name, attempt.stages, attempt.settings, parameters, query.estimates
            )
            return execute(
                control,
                app,
                query.plan.schema,
                sink=attempt.stages.result.name,
                session=session,
                transport=self._transport,
                on_progress=self._on_progress,
            )

        done = run_under_policy(
            self._ladder(),
            self._sizes,
            query.shape,
            self._codegen,
            query.cut,
            lambda stage, grain: stage_need(stage, query.estimates, grain.threads),
            run,
        )
        stages = done.attempt.stages
        self._last = Run(
            done.execution.activation,
            len(stages.stages),
            stages.elements,
            done.attempt.grain,
            stages,
            done.retries,
            None if lease is None else lease.use,
        )
        return done.execution.table

    @property
    def resident(self) -> ResidentColumns | None:
        """The columns that stay in memory (``session.resident.stats()``); None if none do."""
        return self._resident

    def explain(self, query: str | RemoteFrame | Rel, *, analyze: bool = False) -> str:
        """The stages of a query as a tree, with estimated rows and bytes, and each stage's plan.

        With `analyze` the query runs, and what its elements did stands beside the estimates.
        """
        from engine.report import format_profile

        return format_profile(self.profile(query, analyze=analyze))

    def profile(
        self,
        query: str | RemoteFrame | Rel | None = None,
        *,
        analyze: bool = False,
        name: str = "query",
        sql: str | None = None,
    ) -> QueryProfile:
        """What `explain` shows, as data: `QueryProfile.to_json()` is for programs.

        Parameters
        ----------
        query
            None stands for the last query that succeeded, as it ran.
        analyze
            Run the query first.
        name, sql
            What people call the query, and its text, where it did not come as one.

        Raises
        ------
        EngineError
            If `query` is None and none has run.
        """
        from engine.report import profile

        if query is None:
            if self._last is None:
                raise EngineError("no query has run in this session yet")
            return profile(self._last.plan, self._last.activation, name=name, sql=sql)
        sql = query if isinstance(query, str) else sql
        plan = self._plan(query)
        if not analyze:
            return profile(self.stages(plan), name=name, sql=sql)
        self.collect(plan)
        assert self._last is not None
        return profile(self._last.plan, self._last.activation, name=name, sql=sql)

    def report(
        self, directory: str | os.PathLike[str], run: Run | None = None, *, name: str = "query"
    ) -> Path:
        """Write a page about a run: the picture of its DAG, its timeline, all figures.

        Parameters
        ----------
        directory
            Gets ``NAME.html``, which stands alone, its pictures and figures, and ``index.html``.
        run
            None is the last one.

        Returns
        -------
        Path
            The page.

        Raises
        ------
        EngineError
            If no query has run.
        MissingLibraryError
            If what the extra ``report`` brings is not installed.
        """
        from engine.report import ReportWriter, profile

        run = self._last if run is None else run
        if run is None:
            raise EngineError("no query has run in this session yet")
        return ReportWriter(directory).add(profile(run.plan, run.activation, name=name))

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
        query = self._query(plan)
        return query.cut(self._grain(query))

    def _grain(self, query: _Query) -> Grain:
        """The grain at which a query would be run now."""
        grains = list(self._ladder().rungs())
        return next((g for g in grains if not self._sizes.too_coarse(query.shape, g)), grains[-1])

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

        reader = () if self._codegen.reduction is None else ("operators.parquet_filter",)
        return EmbeddedControlPlane(preimport=(*PREIMPORT, *reader))

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


@dataclass(slots=True)
class _Query:
    """A plan on its way to being run: optimized, and cut where it has to be.

    Attributes
    ----------
    plan
        With its tables resolved.
    whole
        As a kernel gets it in one piece: joins are left to it, which sees the files.
    shape
        What learnt sizes are kept under.
    """

    plan: Rel
    estimates: Estimates
    whole: Rel
    shape: str
    _parted: Rel | None = None

    def cut(self, grain: Grain) -> StagePlan:
        """The stages at a grain."""
        settings = CutSettings(parallelism=grain.copies, broadcast_bytes=grain.memory / 4)
        if grain.whole:
            return cut(self.whole, self.estimates, settings)
        if self._parted is None:
            self._parted = optimize(self.plan, self.estimates)
        return cut(self._parted, self.estimates, settings)
