"""Differential testing: an answer cut into elements beside DuckDB's answer to the same SQL.

The elements' own generated code runs, one copy after the other in this process, over memory
elements on the local transport: front end, optimizer, cutter, generated code, partition kernel,
storage and reader are the ones that workers run. Only the control plane is missing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from engine.catalog import Catalog
from engine.codegen import CodegenSettings, ReductionSettings, build_application
from engine.codegen import Kernel as KernelName
from engine.codegen.fragment import lower_stage
from engine.execution import export
from engine.frontend import plan_sql
from engine.optimizer import Estimates, optimize
from engine.resident.keys import wanted_keys
from engine.stages import CutSettings, StagePlan, cut
from libd import LibdAction, Transport
from operators.duckdb import Fragment, Kernel, lower
from operators.parquet_filter import reader_threads
from operators.rel import InputSource, ParquetSource, Source
from operators.types import canonical
from remote_frame import open_reader

FINE = {"whole_rows": 1.0, "gather_rows": 4.0}
"""Cut settings under which small tables are treated as large ones are."""


EAGER = ReductionSettings(
    large_rows=1.0, large=0.0, statement=-1e6, selective=9.0, least=-9.0, cheap=1e9, scattered=0.0
)
"""Under these, every table that can be is read by its keys."""


def run_elements(
    plan: StagePlan,
    resources: dict[str, Any],
    estimates: Estimates | None = None,
    kernel: KernelName = "duckdb",
) -> pa.Table:
    """The answer of a plan's application, its elements run one after the other.

    `resources` are what a worker would keep warm; hand the same dict in again and again. With
    `estimates` tables are read by their keys (`engine.codegen.reduction`).
    """
    settings = CodegenSettings(reduction=EAGER, kernel=kernel)
    app = build_application("query", plan, settings, estimates=estimates)
    action = LibdAction(
        "query", transports=[f"{m};rdma_local;size,256MB;elastic,true;" for m in app.memory]
    )
    results: dict[str, list[Any]] = {}
    try:
        for stage in plan.stages:
            element = app.compute[stage.name]
            code = compile(element.code, f"{stage.name}.o.py", "exec")
            params = {parent: results[parent] for parent in element.parents}
            results[stage.name] = []
            for index in range(element.parallelism):
                names: dict[str, Any] = {}
                exec(code, names)
                here = _Action(action, index, element.parallelism, resources)
                results[stage.name].append(names["main"](params, here))
        answer = open_reader(results[plan.result.name], action).table()
        sink = pa.BufferOutputStream()  # the columns are views of memory that is about to go
        with pa.ipc.new_stream(sink, answer.schema) as writer:
            writer.write_table(answer)
        del answer
        return export(pa.ipc.open_stream(sink.getvalue()).read_all(), plan.schema)
    finally:
        action.close()


@dataclass
class _Action:
    """What `main` sees of the runtime."""

    libd: LibdAction
    index: int
    count: int
    resources: dict[str, Any]
    limits: Any = field(
        default_factory=lambda: SimpleNamespace(cpu=float(reader_threads()), mem=1 << 40)
    )

    def get_transport(self, name: str, type: str) -> Transport:
        return self.libd.get_transport(name, type)

    def record_metric(self, name: str, value: Any) -> None:
        """Nobody asks here."""

    def resource(self, key: str, factory: Callable[[], Any]) -> Any:
        if key not in self.resources:
            self.resources[key] = factory()
        return self.resources[key]


def comparable(value: Any) -> Any:
    """A cell as something that can be compared and sorted: NaN equals NaN, -0.0 equals 0.0,
    doubles to ten digits.
    """
    if isinstance(value, float):
        return "nan" if math.isnan(value) else float(f"{value:.10g}") + 0.0
    return value


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows with `comparable` cells, in their order."""
    columns = [[comparable(v) for v in c.to_pylist()] for c in table.columns]
    return list(zip(*columns, strict=True))


def as_sorted(listed: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(listed, key=repr)


@dataclass
class Differential:
    """Tables that both engines see, and the comparison of their answers."""

    folder: Path
    catalog: Catalog = field(default_factory=Catalog)
    duck: duckdb.DuckDBPyConnection = field(
        # Its cache of files does not see all that change within a second (see `Kernel`), and 1.5.5
        # looks for the keys of a join below the limits of its other side (duckdb/duckdb#22963).
        default_factory=lambda: duckdb.connect(
            config={
                "threads": 1,
                "enable_external_file_cache": False,
                "disabled_optimizers": "join_filter_pushdown",
            }
        )
    )
    resources: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, data: pa.Table, *, row_group_size: int | None = None) -> None:
        """Make a table known to both."""
        path = self.folder / f"{name}.parquet"
        pq.write_table(data, path, row_group_size=row_group_size or max(1, len(data) // 5))
        self.catalog.register(name, path)
        quoted = name.replace('"', '""')
        self.duck.execute(f"create or replace view \"{quoted}\" as from '{path}'")

    def ours(
        self,
        sql: str,
        parallelism: int = 3,
        *,
        kernel: KernelName = "duckdb",
        **settings: float,
    ) -> pa.Table:
        estimates = Estimates()
        plan = self.plan(sql, parallelism, estimates, **settings)
        return self.run(plan, estimates, kernel)

    def run(self, plan: StagePlan, estimates: Estimates, kernel: KernelName = "duckdb") -> pa.Table:
        return run_elements(plan, self.resources, estimates, kernel)

    def narrowed(self, sql: str, estimates: Estimates | None = None) -> tuple[pa.Table, int]:
        """The answer of one element that reads only the rows with keys of the tables that theirs
        are joined with; and how many sets of keys there are. Without estimates all are asked for,
        whatever it costs.
        """
        plan = self.plan(sql, 1, estimates)
        (stage,) = plan.stages
        changed, keys = wanted_keys(stage, estimates)
        whole = lower_stage(changed)
        names: dict[Source, str] = {i.source: i.name for i in whole.inputs}
        tables: dict[str, pa.Table] = {
            i.name: pa.concat_tables(map(pq.read_table, i.source.paths))
            for i in whole.inputs
            if isinstance(i.source, ParquetSource)
        }

        def answer(fragment: Fragment) -> pa.Table:
            inputs = [replace(i, source=InputSource(i.name)) for i in fragment.inputs]
            given = {i.name: tables[i.name] for i in fragment.inputs}
            return kernel.table(replace(fragment, inputs=tuple(inputs)), given)

        kernel = self.resources.setdefault("narrowed", Kernel.open(1, 1 << 30))
        for one in keys:
            wanted = answer(lower(one.plan, names)).column(0).drop_null()
            table = tables[names[one.source]]
            of = table.column(one.column).cast(pa.int64())
            tables[names[one.source]] = table.filter(pc.is_in(of, wanted))
        return export(answer(whole), plan.schema), len(keys)

    def plan(
        self,
        sql: str,
        parallelism: int = 3,
        estimates: Estimates | None = None,
        **settings: float,
    ) -> StagePlan:
        estimates = estimates or Estimates()
        optimized = optimize(plan_sql(sql, self.catalog), estimates)
        return cut(optimized, estimates, CutSettings(parallelism, **{**FINE, **settings}))

    def theirs(self, sql: str) -> pa.Table:
        answer = self.duck.execute(sql).to_arrow_table()
        types = [pa.int32() if pa.types.is_null(t) else canonical(t) for t in answer.schema.types]
        columns = [c.cast(t) for c, t in zip(answer.columns, types, strict=True)]
        return export(pa.Table.from_arrays(columns, names=answer.column_names), answer.schema)

    def check(
        self, sql: str, *, copies: Sequence[int] = (1, 3), ordered: bool = False, **settings: float
    ) -> pa.Table:
        """Assert that names, types and rows are DuckDB's; return them.

        ``broadcast_bytes`` is tried as 0 (scatter what can be) and large, unless it is given.
        """
        theirs = self.theirs(sql)
        tried: Mapping[str, Any] = (
            settings
            if "broadcast_bytes" in settings
            else {"broadcast_bytes": [0.0, 1e9], **settings}
        )
        sizes = tried["broadcast_bytes"]
        for parallelism in copies:
            for size in sizes if isinstance(sizes, list) else [sizes]:
                ours = self.ours(sql, parallelism, **{**tried, "broadcast_bytes": size})
                self.same(ours, theirs, ordered=ordered, said=f"{sql}\n{parallelism} copies")
        return theirs

    def same(self, ours: pa.Table, theirs: pa.Table, *, ordered: bool, said: str) -> None:
        assert ours.column_names == theirs.column_names, said
        assert ours.schema.types == theirs.schema.types, said
        got, wanted = rows(ours), rows(theirs)
        if not ordered:
            got, wanted = as_sorted(got), as_sorted(wanted)
        assert got == wanted, said

    def check_failure(self, sql: str, error: type[Exception], match: str) -> None:
        """Assert that both refuse."""
        with pytest.raises(duckdb.Error, match=match):
            self.theirs(sql)
        for parallelism in (1, 3):
            with pytest.raises(error, match=match):
                self.ours(sql, parallelism)

    def close(self) -> None:
        for resource in self.resources.values():
            resource.close()
        self.catalog.close()
        self.duck.close()


@pytest.fixture
def differential(tmp_path: Path) -> Iterator[Differential]:
    made = Differential(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_differential(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Differential]:
    """One for all examples of a property test: opening DuckDB takes longer than an example."""
    made = Differential(tmp_path_factory.mktemp("differential"))
    yield made
    made.close()


def float_of(bits: int) -> float:
    """The double with these bits: there are many NaNs."""
    return float(struct.unpack("<d", struct.pack("<Q", bits))[0])


@pytest.fixture(name="float_of", scope="session")
def float_of_fixture() -> Callable[[int], float]:
    return float_of
