"""Running a plan under a policy: cut, run, and cut finer where memory did not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.codegen import CodegenSettings, Kernel
from engine.execution import Execution, QueryFailedError
from engine.policy import Grain, Ladder, Sizes, spilling
from engine.stages import Stage, StagePlan

__all__ = ["Attempt", "Outcome", "run_under_policy"]

log = logging.getLogger(__name__)

# An estimate this far above the limit is believed; short of that, trying costs less than a cut
# that was not needed.
_CREDIBLE = 8.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to run a plan: cut at a grain, with what each stage reserves."""

    grain: Grain
    stages: StagePlan
    settings: CodegenSettings


@dataclass(frozen=True, slots=True)
class Outcome:
    """The attempt that succeeded, what came of it, and how many did not."""

    attempt: Attempt
    execution: Execution
    retries: int


def run_under_policy(
    ladder: Ladder,
    sizes: Sizes,
    shape: str,
    settings: CodegenSettings,
    cut: Callable[[Grain], StagePlan],
    need: Callable[[Stage, Grain, CodegenSettings], float],
    run: Callable[[Attempt], Execution],
    in_polars: Callable[[Attempt, QueryFailedError], bool] = lambda attempt, failure: False,
    kernels: Callable[[Grain], Sequence[Kernel]] | None = None,
) -> Outcome:
    """Run a plan at the first grain of `ladder` that holds.

    Parameters
    ----------
    shape
        What `sizes` knows the plan by.
    settings
        What does not depend on the grain, but for the kernel.
    cut, need, run
        Cut the plan at a grain; say how many bytes each copy of a stage is expected to hold with
        some settings; run an attempt.
    in_polars
        Whether an attempt's element that failed ran in Polars.
    kernels
        Those that are worth trying at a grain: the fastest is used as soon as each was tried. By
        default that of the settings.

    Raises
    ------
    QueryFailedError
        If an element fails for another reason, or for want of memory at the last grain, too.
    """
    grains = list(ladder.rungs())
    # The last grain may spill and is tried whatever is known.
    rung = next((i for i, g in enumerate(grains) if not sizes.too_coarse(shape, g)), -1)
    retries = 0
    while True:
        grain = grains[rung]
        stages = cut(grain)
        worth = (settings.kernel,) if kernels is None else kernels(grain)
        chosen = chosen_settings(settings, sizes, shape, grain, worth)
        expected = {s.name: need(s, grain, chosen) for s in stages.stages}
        if grain is not grains[-1] and max(expected.values()) > _CREDIBLE * grain.memory:
            rung += 1
            continue
        try:
            return _run_at(grain, stages, expected, sizes, shape, chosen, run, retries, in_polars)
        except _TooCoarse as stopped:
            retries = stopped.retries
            if grain.storage or stopped.failure.kind == "minimum":
                raise stopped.failure from None
            log.info("cut finer than %d: %s", grain.copies, stopped.failure)
            if not grain.whole and _runs_once(stages, stopped.failure.element):
                # An operator that cannot be cut: more parts would not make it smaller.
                grains = [spilling(grain)]
                rung = 0
            else:
                rung += 1


class _TooCoarse(Exception):
    """An element was stopped by its limit although it had all that its grain allows."""

    def __init__(self, failure: QueryFailedError, retries: int) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.retries = retries


def _run_at(
    grain: Grain,
    stages: StagePlan,
    expected: Mapping[str, float],
    sizes: Sizes,
    shape: str,
    settings: CodegenSettings,
    run: Callable[[Attempt], Execution],
    retries: int,
    in_polars: Callable[[Attempt, QueryFailedError], bool],
) -> Outcome:
    """Run at one grain, giving stages that reserved too little more, up to what it allows."""
    while True:
        sized = sized_settings(settings, grain, expected, sizes, shape)
        memory = sized.stage_memory
        attempt = Attempt(grain, stages, sized)
        try:
            execution = run(attempt)
        except QueryFailedError as failure:
            if _polars(settings) and _blames_polars(
                failure, memory, grain, in_polars(attempt, failure)
            ):
                # It ends the process where DuckDB spills, and computes for rows that need nothing:
                # what is really wrong DuckDB says in its own words.
                log.info("%s goes without Polars: %s", failure.element, failure)
                retries += 1
                sizes.refuse_polars(shape)
                settings = _without_polars(settings)
                continue
            if failure.kind not in ("limit", "minimum", "aborted"):
                raise
            retries += 1
            if not sizes.exceeded(shape, grain, memory, failure.element, settings.kernel):
                raise _TooCoarse(failure, retries) from failure
            log.info("%s had %d bytes: %s", failure.element, memory[failure.element or ""], failure)
        else:
            sizes.learn(shape, grain, execution.activation.elements, settings.kernel)
            return Outcome(attempt, execution, retries)


def chosen_settings(
    settings: CodegenSettings,
    sizes: Sizes,
    shape: str,
    grain: Grain,
    kernels: Sequence[Kernel],
) -> CodegenSettings:
    """The settings with one of the kernels, and without Polars where that failed."""
    if sizes.polars_failed(shape):
        return _without_polars(settings)
    return replace(settings, kernel=sizes.kernel(shape, grain, kernels))


def sized_settings(
    settings: CodegenSettings,
    grain: Grain,
    expected: Mapping[str, float],
    sizes: Sizes,
    shape: str,
) -> CodegenSettings:
    """The settings for the elements of a grain, which reserve what they are `expected` to hold, or
    were seen to.
    """
    return replace(
        settings,
        compute_memory=grain.memory,
        threads=grain.threads,
        storage=grain.storage,
        stage_memory={
            n: sizes.memory(shape, grain, n, e, settings.kernel) for n, e in expected.items()
        },
    )


def _polars(settings: CodegenSettings) -> bool:
    """Whether elements may use Polars, for fragments or to read tables by their keys."""
    return settings.kernel == "polars" or settings.reduction is not None


def _blames_polars(
    failure: QueryFailedError, reserved: Mapping[str, int], grain: Grain, in_polars: bool
) -> bool:
    """Whether DuckDB should be asked instead of giving Polars more memory, or giving up."""
    if failure.kind == "element":
        return in_polars
    most = reserved.get(failure.element or "", 0) >= grain.memory
    return most and (failure.kind == "aborted" or (failure.kind == "limit" and in_polars))


def _without_polars(settings: CodegenSettings) -> CodegenSettings:
    return replace(settings, kernel="duckdb", reduction=None)


def _runs_once(stages: StagePlan, element: str | None) -> bool:
    """Whether an element has one copy however finely the plan is cut."""
    return any(s.name == element and s.parallelism == 1 for s in stages.stages)
