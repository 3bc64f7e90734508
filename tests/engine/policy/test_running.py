"""Climbing: which grains are tried, in which order, and with how much memory."""

from __future__ import annotations

from collections.abc import Callable

from engine.codegen import CodegenSettings
from engine.execution import Execution, QueryFailedError
from engine.policy import Grain, Ladder, Sizes
from engine.running import Attempt, Outcome, run_under_policy
from engine.stages import Exchange, Stage, StagePlan
from openwhisk.api import Activation
from operators.rel import Values
from operators.schema import Schema

MiB = 1 << 20
LADDER = Ladder("auto", 2, 1024 * MiB)


def cut(grain: Grain) -> StagePlan:
    """A stage in the grain's copies, and one that cannot be cut."""
    rel = Values(Schema(()), ())
    many = Stage(1, "many", rel, grain.copies, (), (), Exchange("x1", "gather", Schema(())))
    once = Stage(2, "once", rel, 1, (), (), Exchange("result", "result", Schema(())))
    return StagePlan((many, once), Schema(()))


def climb(
    run: Callable[[Attempt], str | None],
    sizes: Sizes | None = None,
    need: float = 0.0,
    ladder: Ladder = LADDER,
    settings: CodegenSettings | None = None,
) -> tuple[list[Attempt], Outcome | QueryFailedError]:
    """Attempts in order, and the end; `run` says which element is stopped by its limit."""
    attempts: list[Attempt] = []

    def attempt(one: Attempt) -> Execution:
        attempts.append(one)
        stopped = run(one)
        if stopped is not None:
            element, _, kind = stopped.partition(": ")
            raise QueryFailedError("out of memory", element, "a", kind=kind or "limit")
        activation = Activation(activation_id="a", name="q", start=0.0)
        return Execution(None, activation)  # type: ignore[arg-type]

    try:
        end: Outcome | QueryFailedError = run_under_policy(
            ladder,
            Sizes() if sizes is None else sizes,
            "q",
            settings or CodegenSettings(),
            cut,
            lambda stage, grain, settings: need / stage.parallelism,
            attempt,
            lambda one, failure: one.settings.kernel != "duckdb" and failure.element == "s1_many",
        )
    except QueryFailedError as error:
        end = error
    return attempts, end


def test_what_fits_runs_once_at_the_coarsest_grain() -> None:
    attempts, end = climb(lambda a: None)
    assert [a.grain for a in attempts] == [Grain(1, 2, 1024 * MiB)]
    assert attempts[0].settings.threads == 2
    assert isinstance(end, Outcome)
    assert end.retries == 0


def test_a_stage_that_is_stopped_is_cut_finer_and_the_next_run_begins_there() -> None:
    sizes = Sizes()

    def run(attempt: Attempt) -> str | None:
        return "s1_many" if attempt.grain.copies < 8 else None

    attempts, end = climb(run, sizes)
    assert [a.grain.copies for a in attempts] == [1, 2, 4, 8]
    assert isinstance(end, Outcome)
    assert end.retries == 3
    again, _ = climb(run, sizes)
    assert [a.grain.copies for a in again] == [8]


def test_a_stage_that_cannot_be_cut_spills_at_once() -> None:
    def run(attempt: Attempt) -> str | None:
        return None if attempt.grain.storage else "s2_once"

    attempts, end = climb(run)
    assert [(a.grain.copies, bool(a.grain.storage)) for a in attempts] == [
        (1, False),
        (2, False),
        (2, True),
    ]
    assert attempts[-1].settings.storage > 0
    assert isinstance(end, Outcome)


def test_what_fails_while_it_may_spill_fails() -> None:
    attempts, end = climb(lambda a: "s1_many")
    assert isinstance(end, QueryFailedError)
    assert attempts[-1].grain.storage > 0
    assert attempts[-1].grain.copies == 64


def test_a_limit_below_what_a_worker_holds_is_not_tried_again() -> None:
    attempts, end = climb(lambda a: "s1_many: minimum")
    assert len(attempts) == 1
    assert isinstance(end, QueryFailedError)


def test_native_code_that_ends_its_worker_is_given_more() -> None:
    attempts, end = climb(lambda a: "s1_many: aborted" if a.grain.copies == 1 else None)
    # First without Polars, which may have been what ended it.
    assert [a.grain.copies for a in attempts] == [1, 1, 2]
    assert attempts[1].settings.reduction is None
    assert isinstance(end, Outcome)


def test_another_failure_is_not_tried_again() -> None:
    calls = []

    def run(attempt: Attempt) -> str | None:
        calls.append(attempt)
        raise QueryFailedError("division by zero", "s1_many", "a", kind="element")

    _, end = climb(run)
    assert len(calls) == 1
    assert isinstance(end, QueryFailedError)
    assert end.kind == "element"


def test_only_an_estimate_far_above_the_limit_is_believed() -> None:
    attempts, _ = climb(lambda a: None, need=4 * 1024 * MiB)
    assert attempts[0].grain.copies == 1
    attempts, _ = climb(lambda a: None, need=1e9 * MiB)
    assert attempts[0].grain.storage > 0


def test_more_memory_is_tried_before_a_finer_cut() -> None:
    ladder = Ladder("auto", 2, 4096 * MiB)

    def run(attempt: Attempt) -> str | None:
        few = attempt.settings.memory_of("s1_many") < 3000 * MiB
        return "s1_many" if few and attempt.grain.copies == 1 else None

    attempts, end = climb(run, ladder=ladder)
    assert [a.grain.copies for a in attempts] == [1, 1]
    assert [a.settings.memory_of("s1_many") // MiB for a in attempts] == [400, 4096]
    assert [a.settings.memory_of("s2_once") // MiB for a in attempts] == [400, 400]
    assert isinstance(end, Outcome)


POLARS = CodegenSettings(kernel="polars")


def test_what_polars_fails_at_runs_in_duckdb_at_once_and_ever_after() -> None:
    sizes = Sizes()

    def run(attempt: Attempt) -> str | None:
        return "s1_many: element" if attempt.settings.kernel == "polars" else None

    attempts, end = climb(run, sizes, settings=POLARS)
    assert [(a.grain.copies, a.settings.kernel) for a in attempts] == [(1, "polars"), (1, "duckdb")]
    assert isinstance(end, Outcome)
    assert end.retries == 1
    assert [a.settings.kernel for a in climb(run, sizes, settings=POLARS)[0]] == ["duckdb"]


def test_what_fails_in_duckdb_too_fails() -> None:
    attempts, end = climb(lambda a: "s1_many: element", settings=POLARS)
    assert [a.settings.kernel for a in attempts] == ["polars", "duckdb"]
    assert isinstance(end, QueryFailedError)
    assert end.kind == "element"


def test_what_fails_outside_of_polars_is_not_tried_again() -> None:
    attempts, end = climb(lambda a: "s2_once: element", settings=POLARS)
    assert len(attempts) == 1
    assert isinstance(end, QueryFailedError)


def test_polars_gets_all_the_memory_there_is_before_duckdb_does() -> None:
    def run(attempt: Attempt) -> str | None:
        polars = attempt.settings.kernel == "polars"
        return "s1_many: aborted" if polars or attempt.settings.reduction else None

    big = Ladder("auto", 2, 4096 * MiB)
    attempts, end = climb(run, ladder=big, settings=POLARS)
    tried = [(a.settings.kernel, a.settings.memory_of("s1_many") // MiB) for a in attempts]
    assert tried == [("polars", 400), ("polars", 4096), ("duckdb", 400)]
    assert all(a.grain.copies == 1 for a in attempts)
    assert isinstance(end, Outcome)
