"""The targets that the engine is held to, and whether a run met them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.tpcds.figures import OURS, SLACK_FACTOR, SLACK_SECONDS, fastest, reserved, slow, versus
from bench.tpcds.results import Pass, Results

__all__ = ["Target", "targets"]

MILLI = 1e-3
PLANNING_MEDIAN_MS, PLANNING_WORST_MS = 30.0, 150.0
SCATTER_CPU_SECONDS = 0.15
RESERVED_TOTAL, RESERVED_BEST = 0.4, 0.1
DISAGGREGATED_MEMORY = 512 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table.

    Attributes
    ----------
    measured
        What this run found; how to find it where it did not look.
    met
        None where this run says nothing about it.
    """

    name: str
    target: str
    measured: str
    met: bool | None


def targets(results: Results) -> list[Target]:
    """All of them, in the order in which the project lists them."""
    cold, resident = results.passes.get("cold"), results.passes.get("resident")
    if cold is not None and OURS not in cold.engines:
        cold = None
    if resident is not None and OURS not in resident.engines:
        resident = None
    sf = results.sf
    return [
        *_answers(results),
        *_cold_large(cold if sf == 10 else None),
        *_resident(resident, sf),
        *_slowest([one for one in (cold, resident) if one is not None]),
        _cold_small(cold if sf == 1 else None),
        _largest_element(results, cold),
        *_planning(results.further.get("planning")),
        _scatter(results.further.get("scatter")),
        *_reserved(cold),
    ]


def _answers(results: Results) -> Iterator[Target]:
    for one in results.passes.values():
        if OURS not in one.engines:
            continue
        right = sum(cells[OURS].answered for cells in one.queries.values())
        asked = len(one.queries)
        checked = bool(results.settings.get("verify"))
        said = f"{right} of {asked} {'equal' if checked else 'answered, not checked'}"
        met = (right == asked if checked else None) if asked == 99 or right < asked else None
        yield Target(
            f"answers, {one.name}, SF {results.sf:g}", "99/99 equal to DuckDB's", said, met
        )


def _cold_large(cold: Pass | None) -> Iterator[Target]:
    name = "SF 10, nothing resident"
    yield _against(f"{name}, gate", cold, "duckdb", 1.0, "DuckDB")
    best = fastest(cold) if cold is not None else None
    yield _against(f"{name}, goal", cold, best, 0.9, "the faster peer")


def _cold_small(cold: Pass | None) -> Target:
    best = fastest(cold) if cold is not None else None
    return _against("SF 1, nothing resident", cold, best, 1.0, "the faster peer")


def _resident(resident: Pass | None, sf: float | None) -> Iterator[Target]:
    at = "" if sf is None or resident is None else f", SF {sf:g}"
    for key, title in (
        ("duckdb-native", "DuckDB, native tables"),
        ("polars-native", "Polars, frames"),
    ):
        yield _against(f"second pass, resident{at}", resident, key, 1.0, title)


def _against(name: str, one: Pass | None, key: str | None, most: float, title: str) -> Target:
    wanted = f"<= {most:g} x {title}"
    if one is None or key is None or key not in one.engines:
        return Target(name, wanted, "not in this run", None)
    found = versus(one, key)
    if found is None:
        return Target(name, wanted, "no query that both answered", None)
    spread = "" if found.spread is None else f" ±{found.spread:.0%}"
    said = (
        f"{found.ratio:.2f} x {one.engines[key].title}{spread} "
        f"({found.ours:.2f} s : {found.theirs:.2f} s, {found.queries} queries)"
    )
    unanswered = [q for q, cells in one.queries.items() if not cells[OURS].answered]
    return Target(name, wanted, said, found.ratio <= most and not unanswered)


def _slowest(passes: list[Pass]) -> Iterator[Target]:
    wanted = f"<= {SLACK_FACTOR:g} x the faster peer + {SLACK_SECONDS / MILLI:g} ms"
    if not any(one.keys("peer") for one in passes):
        yield Target("no query slower than", wanted, "not in this run", None)
    for one in passes:
        if not one.keys("peer"):
            continue
        late = slow(one)
        said = f"{len(late)} of {len(one.queries)} are"
        if late:
            worst = late[0]
            said += (
                f"; most time lost in q{worst.number}: {worst.ours:.2f} s : {worst.theirs:.2f} s"
            )
        yield Target(f"no query slower than, {one.name}", wanted, said, not late)


def _largest_element(results: Results, cold: Pass | None) -> Target:
    name, wanted = "peak anonymous memory of an element, SF 10, disaggregate, 512MB", "<= 512 MiB"
    settings = results.settings
    asked = (
        settings.get("policy") == "disaggregate"
        and settings.get("compute_memory") == DISAGGREGATED_MEMORY
    )
    if cold is None or results.sf != 10 or not asked:
        how = "--sf 10 --policy disaggregate --compute-memory 512MiB"
        return Target(name, wanted, f"not in this run ({how})", None)
    peaks = {q: cells[OURS].peak_bytes or 0 for q, cells in cold.queries.items()}
    worst = max(peaks, key=lambda q: peaks[q])
    said = f"{peaks[worst] / (1 << 20):.0f} MiB in q{worst}"
    return Target(name, wanted, said, peaks[worst] <= DISAGGREGATED_MEMORY)


def _planning(found: dict[str, Any] | None) -> Iterator[Target]:
    for what, most in (("median", PLANNING_MEDIAN_MS), ("worst", PLANNING_WORST_MS)):
        wanted = f"<= {most:g} ms"
        if found is None:
            yield Target(f"planning, {what}", wanted, "not in this run (bench planning)", None)
            continue
        figure = float(found[what])
        yield Target(f"planning, {what}", wanted, f"{figure:.1f} ms", figure <= most)


def _scatter(found: dict[str, Any] | None) -> Target:
    name = "scatter of 10 M rows x 5 columns to 16 partitions"
    wanted = f"<= {SCATTER_CPU_SECONDS:g} CPU-s"
    if found is None:
        return Target(name, wanted, "not in this run (bench scatter)", None)
    said = f"{found['ours']:.3f} CPU-s (NumPy {found['peer']:.2f})"
    return Target(name, wanted, said, float(found["ours"]) <= SCATTER_CPU_SECONDS)


def _reserved(cold: Pass | None) -> Iterator[Target]:
    for key, title in (("function", "one function"), ("pipeline", "functions with Redis")):
        wanted = f"<= {RESERVED_TOTAL:g} x in total, <= {RESERVED_BEST:g} x at best"
        name = f"reserved GB·s against {title}"
        found = reserved(cold, key) if cold is not None and key in cold.engines else None
        if found is None:
            yield Target(name, wanted, f"not in this run (--baselines {key})", None)
            continue
        total, (best, ratio) = found
        said = f"{total:.2f} x in total, {ratio:.2f} x at best (q{best})"
        if cold is not None and (whole := reserved(cold, key, process=True)) is not None:
            said += f"; if its process were limited, {whole[0]:.2f} x and {whole[1][1]:.2f} x"
        if cold is not None and (least := reserved(cold, key, held=True)) is not None:
            said += f"; {least[0]:.2f} x if ours reserved just what its elements held"
        if cold is not None and (idle := _idle_share(cold)):
            said += f"; {idle:.0%} of ours are idle workers"
        yield Target(name, wanted, said, total <= RESERVED_TOTAL and ratio <= RESERVED_BEST)


def _idle_share(one: Pass) -> float:
    """Of what Scad reserved in the last round, the share of workers that waited: while the other
    engines had their turns, too.
    """
    parts = [cells[OURS].gb_s_parts for cells in one.queries.values()]
    total = sum(sum(p.values()) for p in parts)
    return sum(p.get("warm", 0.0) for p in parts) / total if total else 0.0
