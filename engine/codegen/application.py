"""Stages and exchanges as an application: compute elements, memory elements and their
relationships.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.codegen.fragment import Kernel, lower_stage, lower_stage_to_polars
from engine.codegen.reduction import Reduction, ReductionSettings, reduce_scans
from engine.codegen.text import element_code, polars_code
from engine.resident.keys import WantedKeys, wanted_keys
from engine.stages.fragments import Estimator
from engine.stages.model import Exchange, Stage, StagePlan
from openwhisk.app import Application, ComputeElement, Corunning, Limits, MemoryElement
from operators.rel import ParquetSource

__all__ = ["CodegenSettings", "build_application"]

MiB = 1 << 20


@dataclass(frozen=True, slots=True)
class CodegenSettings:
    """What the elements reserve.

    Attributes
    ----------
    compute_memory
        Bytes of anonymous memory of every compute element.
    exchange_memory
        The most that one exchange or the result may grow to, in bytes. Only what is written is
        held and charged.
    timeout
        Seconds that one element may run.
    threads
        Cores of every compute element.
    storage
        Bytes of local disk that every compute element may use.
    stage_memory
        Bytes of anonymous memory of the elements of some stages, by the stage's name, instead of
        `compute_memory`.
    resident
        Whether elements look for base-table columns in resident memory before they read files.
    reduction
        When elements read of large tables only the rows whose keys are wanted; None: never. Has no
        effect on resident tables, or without estimates.
    kernel
        What elements run their fragments in.
    """

    compute_memory: int = 1 << 30
    exchange_memory: int = 8 << 30
    timeout: float = 300.0
    threads: int = 1
    storage: int = 0
    stage_memory: Mapping[str, int] = field(default_factory=dict)
    resident: bool = False
    reduction: ReductionSettings | None = field(default_factory=ReductionSettings)
    kernel: Kernel = "duckdb"

    def memory_of(self, stage: str) -> int:
        """Bytes that each copy of a stage reserves."""
        return self.stage_memory.get(stage, self.compute_memory)


def build_application(
    name: str,
    plan: StagePlan,
    settings: CodegenSettings | None = None,
    parameters: Mapping[str, Any] | None = None,
    estimates: Estimator | None = None,
) -> Application:
    """The application that computes `plan`; the last stage is its only sink, `result` holds the
    answer.

    Parameters
    ----------
    parameters
        For the elements that read base tables.
    estimates
        Of the relations of `plan`; without them elements read large tables whole.

    Raises
    ------
    operators.errors.OperatorError
        If a stage cannot be expressed in the kernel's SQL.
    """
    settings = settings or CodegenSettings()
    compute = [
        _compute(plan, stage, settings, parameters or {}, estimates) for stage in plan.stages
    ]
    memory = [_memory(plan, stage.output, settings) for stage in plan.stages]
    return Application(name, [*compute, *memory])


def _compute(
    plan: StagePlan,
    stage: Stage,
    settings: CodegenSettings,
    parameters: Mapping[str, Any],
    estimates: Estimator | None,
) -> ComputeElement:
    code, tables = _code(plan, stage, settings, estimates)
    memory = dict.fromkeys([*(i.exchange for i in stage.inputs), stage.output.name])
    return ComputeElement(
        stage.name,
        code,
        parents=tuple(p.name for p in plan.parents(stage)),
        dependents=tuple(r.name for r in plan.readers(stage.output.name)),
        corunning={m: Corunning(m) for m in memory},
        parallelism=stage.parallelism,
        limits=Limits(
            cpu=float(settings.threads),
            mem=settings.memory_of(stage.name),
            storage=settings.storage,
            timeout=settings.timeout,
        ),
        parameters=parameters if tables else {},
        checked=True,
    )


def _code(
    plan: StagePlan, stage: Stage, settings: CodegenSettings, estimates: Estimator | None
) -> tuple[str, bool]:
    """The text of a stage's element, and whether it reads base tables."""
    keys: list[WantedKeys] = []
    if settings.resident:
        stage, keys = wanted_keys(stage, estimates)
    if settings.kernel == "polars":
        in_polars = lower_stage_to_polars(stage, estimates)
        if in_polars is not None:
            tables = lower_stage(stage) if settings.resident else None
            return polars_code(plan, stage, in_polars, resident=tables, keys=keys), True
    reductions: dict[str, Reduction] = {}
    if estimates is not None and settings.reduction is not None and not settings.resident:
        stage, reductions = reduce_scans(
            stage, estimates, settings.compute_memory, settings.reduction
        )
    fragment = lower_stage(stage)
    code = element_code(
        plan, stage, fragment, resident=settings.resident, reductions=reductions, keys=keys
    )
    return code, any(isinstance(i.source, ParquetSource) for i in fragment.inputs)


def _memory(plan: StagePlan, exchange: Exchange, settings: CodegenSettings) -> MemoryElement:
    users = [plan.writer(exchange.name), *plan.readers(exchange.name)]
    return MemoryElement(
        exchange.name,
        corunning=tuple(u.name for u in users),
        limits=Limits(cpu=0.0, mem=settings.exchange_memory),
        access="exchange",
        lifetime="session" if exchange.kind == "result" else "application",
        elastic=True,
    )
