"""`Preparation`: from a plan to the stages that run, and what of it is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.catalog import Catalog
from engine.codegen import CodegenSettings, Kernel, build_application, runs_in_polars
from engine.local_tables import LocalTables
from engine.optimizer import Estimates, optimize
from engine.optimizer.estimates import KnownTables
from engine.optimizer.expressions import every_relation
from engine.policy import (
    Grain,
    KernelChoice,
    RowsOfWork,
    converted_need,
    decoding_need,
    kernels_to_try,
    stage_need,
)
from engine.recent import Recent
from engine.stages import CutSettings, Stage, StagePlan, cut
from openwhisk.app import Application, ComputeElement
from openwhisk.app.model import Element
from operators.rel import InputSource, Rel, Scan
from operators.shape import shape

__all__ = ["Preparation", "Prepared"]

# A prepared query of TPC-DS holds a few hundred KB in some 700 objects: each full collection of
# Python's garbage looks at them for 0.4 ms.
_KEPT = 128


@dataclass(slots=True)
class Prepared:
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
    whole: Rel
    shape: str
    _estimates: Estimates
    _parted: Rel | None = None
    _cuts: dict[Grain, _Cut] = field(default_factory=dict)

    def cut(self, grain: Grain) -> StagePlan:
        """The stages at a grain."""
        return self._cut(grain).stages

    def kernels(self, grain: Grain, choice: KernelChoice, resident: bool) -> Sequence[Kernel]:
        """What is worth trying at this grain; see `engine.policy.kernels_to_try`."""
        return kernels_to_try(choice, self._cut(grain).rows, resident)

    def need(self, stage: Stage, grain: Grain, settings: CodegenSettings) -> float:
        """Bytes that each copy of a stage, cut at this grain, is expected to hold; more if it may
        run in Polars.
        """
        known = self._cut(grain)
        need = known.needs[stage.name]
        if settings.kernel == "duckdb":
            return need
        if settings.resident:
            return need + converted_need(stage, known.estimates)
        return need + decoding_need(stage, known.estimates, grain.threads)

    def application(
        self,
        name: str,
        grain: Grain,
        settings: CodegenSettings,
        parameters: Mapping[str, Any] | None,
    ) -> Application:
        """The application of the stages at a grain; see `engine.codegen.build_application`.

        What runs again differs in name, and in what its elements reserve.
        """
        known = self._cut(grain)
        made_for = replace(settings, stage_memory={}), parameters
        if known.built is None or known.built[0] != made_for:
            app = build_application(name, known.stages, settings, parameters, known.estimates)
            known.estimates.forget()
            known.built = made_for, app
            return app
        elements = [_reserving(e, settings) for e in known.built[1].elements]
        return Application(name, elements)

    def in_polars(self, grain: Grain, element: str | None) -> bool:
        """Whether an element of the application that was made last runs in Polars."""
        built = self._cut(grain).built
        return built is not None and any(
            isinstance(e, ComputeElement) and e.name == element and runs_in_polars(e.code)
            for e in built[1].elements
        )

    def _cut(self, grain: Grain) -> _Cut:
        known = self._cuts.get(grain)
        if known is None:
            plan = self.whole if grain.whole else self._for_parts()
            estimates = self._estimates.with_own_exchanges()
            settings = CutSettings(parallelism=grain.copies, broadcast_bytes=grain.memory / 4)
            stages = cut(plan, estimates, settings)
            needs = {s.name: stage_need(s, estimates, grain.threads) for s in stages.stages}
            rows = RowsOfWork.expected(stages, estimates)
            known = self._cuts[grain] = _Cut(stages, estimates, needs, rows)
        return known

    def _for_parts(self) -> Rel:
        if self._parted is None:
            self._parted = optimize(self.plan, self._estimates)
        return self._parted


@dataclass(slots=True)
class _Cut:
    stages: StagePlan
    estimates: Estimates
    needs: Mapping[str, float]
    rows: RowsOfWork
    built: tuple[object, Application] | None = None


def _reserving(element: Element, settings: CodegenSettings) -> Element:
    if not isinstance(element, ComputeElement):
        return element
    limits = replace(element.limits, mem=settings.memory_of(element.name))
    return replace(element, limits=limits)


class Preparation:
    """Prepares the plans of one session. Safe to use from several threads.

    A plan that comes again, the same object, over nothing but files is prepared once, until a table
    is registered. Plans over this process's data are not kept: they would keep the data.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._local = LocalTables()
        self._statistics: KnownTables = {}
        self._generation = catalog.generation
        # The plan stands beside what was made of it, so that its identity is not used again.
        self._kept: Recent[int, tuple[Rel, Prepared]] = Recent(_KEPT)

    def prepare(self, plan: Rel) -> Prepared:
        """Optimize a plan.

        Raises
        ------
        DataError
            If data of this process that it reads cannot be made readable for elements.
        """
        generation = self._catalog.generation
        known = self._kept.get(id(plan), generation)
        if known is not None:
            return known[1]
        if generation != self._generation:
            # Registered again, files of the same names may have other contents.
            self._statistics, self._generation = {}, generation
        estimates = Estimates(self._statistics)
        own = _reads_this_process(plan)
        resolved = self._local.resolve(plan) if own else plan
        whole = optimize(resolved, estimates)
        # What is kept for long is walked again and again by Python's garbage collector.
        estimates.forget()
        prepared = Prepared(resolved, whole, shape(whole), estimates)
        if not own:
            self._kept.put(id(plan), generation, (plan, prepared))
        return prepared

    def named(self, text: str) -> str:
        """What an element says, with the names of this process's tables in it."""
        return self._local.named(text)

    def close(self) -> None:
        """Give the memory of this process's data back."""
        self._kept.clear()
        self._local.close()


def _reads_this_process(plan: Rel) -> bool:
    return any(
        isinstance(node, Scan) and isinstance(node.source, InputSource)
        for node in every_relation(plan)
    )
