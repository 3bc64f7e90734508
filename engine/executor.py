"""`QueryExecutor`: runs prepared plans for their answers, under a policy, on resident columns where
there are some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa

from engine.catalog import Catalog
from engine.codegen import CodegenSettings, Kernel
from engine.connection import Connection
from engine.errors import DataError
from engine.execution import Execution, QueryFailedError, execute
from engine.nesting import nesting_is_told
from engine.policy import Grain, KernelChoice, Ladder, Policy, Sizes
from engine.preparation import Preparation, Prepared
from engine.resident.needs import columns_wanted
from engine.resident.store import Lease, ResidentColumns
from engine.resident.use import ResidentUse
from engine.running import Attempt, chosen_settings, run_under_policy, sized_settings
from engine.stages import StagePlan
from operators.errors import FileChangedError
from operators.file_versions import unchanged
from operators.microseconds import require_whole_microseconds
from operators.rel import Rel, versioned_files

if TYPE_CHECKING:
    from openwhisk.api import Activation, Usage
    from openwhisk.app import Application

__all__ = ["QueryExecutor", "Run"]


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


@dataclass(slots=True)
class QueryExecutor:
    """Runs the queries of one session.

    Attributes
    ----------
    parallelism
        Copies of the elements that work on parts of large tables; None leaves it to the policy.
    sizes
        What queries needed when they ran, and how long they took.
    kernel
        What computes in elements.
    resident
        Columns that stay in memory; None if none do.
    on_progress
        See `engine.execution.execute`.
    last
        What the last query that succeeded cost.
    """

    catalog: Catalog
    connection: Connection
    preparation: Preparation
    codegen: CodegenSettings
    policy: Policy
    parallelism: int | None
    sizes: Sizes
    kernel: KernelChoice
    transport: str
    resident: ResidentColumns | None
    on_progress: Callable[[Activation], None] | None
    last: Run | None = None

    def collect(self, plan: Rel) -> pa.Table:
        """Run a plan; see `engine.session.Session.collect`."""
        self.connection.require_open()
        try:
            with unchanged(versioned_files(plan)), nesting_is_told(plan):
                return self._collect(plan)
        except FileChangedError as error:
            raise DataError(str(error)) from error
        except QueryFailedError as error:
            error.args = (self.preparation.named(str(error)),)
            error.traceback = self.preparation.named(error.traceback)
            raise

    def _collect(self, plan: Rel) -> pa.Table:
        query = self.preparation.prepare(plan)
        require_whole_microseconds(query.whole)
        if self.resident is None:
            return self._execute(query, None)
        needs = columns_wanted([query.whole])
        while True:
            control, session = self.connection.control, self.connection.session
            with self.resident.lease(control, session, needs) as lease:
                try:
                    return self._execute(query, lease)
                except QueryFailedError:
                    # Columns that died with their memory server are filled again, once per
                    # server.
                    if self.resident.check(control, session, lease):
                        raise

    def stages(self, plan: Rel) -> StagePlan:
        """A plan, optimized, and cut into stages at the grain at which it would be run now."""
        self.connection.require_open()
        with nesting_is_told(plan):
            query = self.preparation.prepare(plan)
            return query.cut(self._grain(query))

    def application(self, name: str, plan: Rel) -> Application:
        """The application that a plan would be run as now."""
        self.connection.require_open()
        with nesting_is_told(plan):
            query = self.preparation.prepare(plan)
            grain = self._grain(query)
            kernels = self._kernels(query)(grain)
            settings = chosen_settings(self.codegen, self.sizes, query.shape, grain, kernels)
            stages = query.cut(grain).stages
            expected = {s.name: query.need(s, grain, settings) for s in stages}
            sized = sized_settings(settings, grain, expected, self.sizes, query.shape)
            return query.application(name, grain, sized, None)

    def _grain(self, query: Prepared) -> Grain:
        grains = list(self._ladder().rungs())
        too_coarse = self.sizes.too_coarse
        return next((g for g in grains if not too_coarse(query.shape, g)), grains[-1])

    def _execute(self, query: Prepared, lease: Lease | None) -> pa.Table:
        session = self.connection.session
        parameters = None if lease is None else lease.parameters

        def run(attempt: Attempt) -> Execution:
            name = f"query-{uuid4().hex[:12]}"
            app = query.application(name, attempt.grain, attempt.settings, parameters)
            return execute(
                self.connection.control,
                app,
                query.plan.schema,
                sink=attempt.stages.result.name,
                session=session,
                transport=self.transport,
                on_progress=self.on_progress,
                cache=self.connection.arenas,
            )

        def in_polars(attempt: Attempt, failure: QueryFailedError) -> bool:
            return query.in_polars(attempt.grain, failure.element)

        done = run_under_policy(
            self._ladder(),
            self.sizes,
            query.shape,
            self.codegen,
            query.cut,
            query.need,
            run,
            in_polars,
            self._kernels(query),
        )
        stages = done.attempt.stages
        self.last = Run(
            done.execution.activation,
            len(stages.stages),
            stages.elements,
            done.attempt.grain,
            stages,
            done.retries,
            None if lease is None else lease.use,
        )
        return done.execution.table

    def _kernels(self, query: Prepared) -> Callable[[Grain], Sequence[Kernel]]:
        return lambda grain: query.kernels(grain, self.kernel, self.resident is not None)

    def _ladder(self) -> Ladder:
        return Ladder(
            self.policy, self.connection.cores, self.connection.compute_memory, self.parallelism
        )
