"""`Session`: queries in, Arrow tables out, by way of an application on disaggregated memory.

A session owns what its queries leave in memory elements, and the control plane if it started one.
It is the `Executor` of the frames that it makes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import pyarrow as pa

import remote_frame
from engine.catalog import Catalog
from engine.codegen import CodegenSettings, ReductionSettings
from engine.connection import LEAST_DEFAULT_MEMORY, PREIMPORT, Connection
from engine.errors import DataError, EngineError
from engine.executor import QueryExecutor, Run
from engine.policy import POLICIES, KernelChoice, Policy, Sizes
from engine.preparation import Preparation
from engine.resident.store import ResidentColumns
from engine.stages import StagePlan
from libd._core import available_memory
from libd.units import format_size, parse_size
from operators.parquet_files import FileSet
from operators.rel import Rel

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.report import QueryProfile
    from openwhisk.api import Activation, ControlPlane
    from remote_frame import RemoteFrame

__all__ = ["PREIMPORT", "Run", "Session"]

# What an element needs before it has read a single row: the worker's own memory and DuckDB's.
LEAST_COMPUTE_MEMORY = 64 << 20

# Seconds without a query after which a session's memory goes; longer where columns are to stay.
_LEASE = 60.0
_RESIDENT_LEASE = 900.0

_POLARS = ("operators.parquet_filter", "operators.polars.kernel")


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
        with the first query, while that is planned.
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
    kernel
        What computes inside of elements: ``duckdb``; ``polars``, wherever it answers as DuckDB
        does; or ``auto``: Polars for files, and for resident columns DuckDB, unless groups and
        windows are so large that Polars is tried once and turns out to be faster. Elements of less
        than 1 GiB and parts of tables are always DuckDB's.
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
        kernel: KernelChoice = "auto",
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
        if kernel not in get_args(KernelChoice):
            raise EngineError(
                f"there is no kernel {kernel!r}: use {', '.join(get_args(KernelChoice))}"
            )
        memory = None if compute_memory is None else parse_size(compute_memory)
        if memory is not None and memory < LEAST_COMPUTE_MEMORY:
            raise EngineError(
                f"compute_memory {format_size(memory)} is too small: "
                f"an element needs at least {format_size(LEAST_COMPUTE_MEMORY)} to start"
            )
        if sizes is None:
            sizes = Sizes()
        self.catalog = Catalog()
        roomy = memory is None or memory >= LEAST_DEFAULT_MEMORY
        # The reader alone takes 44 MB of every worker.
        reduction = ReductionSettings() if roomy and resident is None else None
        self._codegen = CodegenSettings(
            exchange_memory=parse_size(exchange_memory),
            resident=resident is not None,
            reduction=reduction,
        )
        self._connection = Connection(
            apihost,
            control,
            memory,
            lease=_LEASE if resident is None else _RESIDENT_LEASE,
            preimport=_POLARS if roomy else (),
        )
        self._preparation = Preparation(self.catalog)
        columns: ResidentColumns | None = None
        if resident is not None:
            budget = parse_size(resident)
            if apihost is None and control is None and budget > available_memory():
                raise EngineError(
                    f"a resident budget of {format_size(budget)} is more than the "
                    f"{format_size(available_memory())} of memory that are available"
                )
            columns = ResidentColumns(
                budget,
                transport,
                lambda: self.cores,
                lambda: min(self.compute_memory, LEAST_DEFAULT_MEMORY),
            )
        self._executor = QueryExecutor(
            self.catalog,
            self._connection,
            self._preparation,
            self._codegen,
            policy,
            parallelism,
            sizes,
            kernel if roomy else "duckdb",
            transport,
            columns,
            on_progress,
        )

    # Tables and queries

    def register(self, name: str, source: Any) -> None:
        """Make a table known: Parquet, CSV or Arrow files, Arrow data; see `Catalog.register`."""
        self.catalog.register(name, source)

    def read_parquet(
        self,
        path: FileSet,
        name: str | None = None,
        *,
        columns: Sequence[str] | None = None,
        hive_partitioning: bool | None = None,
    ) -> RemoteFrame:
        """A frame over Parquet files; also registered as a table, with all columns, by default
        under the (first) file's name.

        `columns` and `hive_partitioning` are those of `remote_frame.read_parquet`.
        """
        table = name or _first(path).stem
        self.catalog.register(table, path, hive_partitioning=hive_partitioning)
        frame = self._frame(self.catalog.scan(table))
        return frame if columns is None else frame.select(list(columns))

    def read_csv(self, path: FileSet, name: str | None = None, **options: Any) -> RemoteFrame:
        """A frame over CSV files; also registered as a table, by default under the (first)
        file's name.

        `options` are those of `remote_frame.read_csv`.
        """
        from remote_frame.files import spool_csv

        table = name or _first(path).name.split(".")[0]
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

        self._connection.warm_up()
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
        return self._executor.collect(plan)

    @property
    def resident(self) -> ResidentColumns | None:
        """The columns that stay in memory (``session.resident.stats()``); None if none do."""
        return self._executor.resident

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
            last = self._ran()
            return profile(last.plan, last.activation, name=name, sql=sql)
        sql = query if isinstance(query, str) else sql
        plan = self._plan(query)
        if not analyze:
            return profile(self.stages(plan), name=name, sql=sql)
        self.collect(plan)
        last = self._ran()
        return profile(last.plan, last.activation, name=name, sql=sql)

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

        run = self._ran() if run is None else run
        return ReportWriter(directory).add(profile(run.plan, run.activation, name=name))

    def emit(self, query: str | RemoteFrame | Rel, directory: str | os.PathLike[str]) -> list[Path]:
        """Write the elements that a query would run as into a directory: files that ``wskgen`` and
        ``rundisagg`` accept.
        """
        target = Path(directory)
        app = self._executor.application(target.name or "query", self._plan(query))
        target.mkdir(parents=True, exist_ok=True)
        return app.write_directory(target)

    @property
    def last_run(self) -> Run | None:
        """What the last query that succeeded cost; None before it."""
        return self._executor.last

    def stages(self, plan: Rel) -> StagePlan:
        """A plan, optimized and cut into stages."""
        return self._executor.stages(plan)

    @property
    def cores(self) -> int:
        """Cores that elements run on."""
        return self._connection.cores

    @property
    def compute_memory(self) -> int:
        """The most bytes that a compute element may hold."""
        return self._connection.compute_memory

    def _ran(self) -> Run:
        """The last query that succeeded."""
        if self._executor.last is None:
            raise EngineError("no query has run in this session yet")
        return self._executor.last

    def _plan(self, query: str | RemoteFrame | Rel) -> Rel:
        if isinstance(query, str):
            query = self.sql(query)
        return query if isinstance(query, Rel) else query.plan

    # Life

    def close(self) -> None:
        """Give everything back: memory, workers, the control plane if this session started it."""
        self._connection.refuse()
        if self._executor.resident is not None:
            self._executor.resident.close()
        self._preparation.close()
        self.catalog.close()
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _first(source: FileSet) -> Path:
    """The file that a table is called after."""
    if isinstance(source, str | os.PathLike):
        return Path(source)
    if not source:
        raise DataError("no files were given")
    return Path(source[0])
