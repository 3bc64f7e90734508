"""What a pass comes to: totals, ratios, and who is too slow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.tpcds.results import Pass, Results

__all__ = [
    "SLACK_FACTOR",
    "SLACK_SECONDS",
    "Slow",
    "Totals",
    "Versus",
    "fastest",
    "geometric_mean",
    "ratios",
    "reserved",
    "slow",
    "summary",
    "totals",
    "versus",
]

OURS = "scad"
SLACK_FACTOR, SLACK_SECONDS = 1.5, 0.05
"""No query may take longer than the faster peer by this factor, and so many seconds more."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of medians of one engine.

    Attributes
    ----------
    common
        Seconds over the queries that all engines of the pass answered.
    answered
        Seconds over those that this engine answered.
    failed
        Queries without a right answer of this engine.
    gb_s, core_s
        Reserved, over the common queries; None where nothing is reserved.
    peak_bytes
        The largest.
    """

    common: float
    answered: float
    failed: list[int]
    cpu_seconds: float
    gb_s: float | None
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Versus:
    """Ours against one other, over the queries that both answered.

    Attributes
    ----------
    queries
        How many.
    ratio
        Ours / theirs, of the sums of medians.
    spread
        Half of the range of that ratio over single rounds, relative to it; None with one round.
    """

    queries: int
    ours: float
    theirs: float
    ratio: float
    spread: float | None
    geometric_mean: float


@dataclass(frozen=True, slots=True)
class Slow:
    """A query of ours that takes too long."""

    number: int
    ours: float
    peer: str
    theirs: float


def both(one: Pass, *keys: str) -> list[int]:
    """Queries that all of these engines answered."""
    return [q for q, cells in one.queries.items() if all(cells[key].answered for key in keys)]


def totals(one: Pass) -> dict[str, Totals]:
    """By engine."""
    common = both(one, *one.keys("ours", "peer"))
    found = {}
    for key in one.engines:
        cells = {q: cells[key] for q, cells in one.queries.items()}
        answered = [q for q, cell in cells.items() if cell.answered]
        here = [q for q in common if cells[q].answered]
        reserved = [cells[q].reserved_gb_s for q in here]
        found[key] = Totals(
            common=sum(cells[q].median for q in here),
            answered=sum(cells[q].median for q in answered),
            failed=[q for q in cells if q not in answered],
            cpu_seconds=sum(max(cells[q].cpu_seconds, default=0.0) for q in here),
            gb_s=None if None in reserved else sum(r for r in reserved if r is not None),
            peak_bytes=max((cell.peak_bytes or 0 for cell in cells.values()), default=0),
        )
    return found


def geometric_mean(values: Sequence[float]) -> float:
    """Of positive numbers; NaN of none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def ratios(one: Pass, key: str) -> dict[int, float]:
    """Ours / theirs for every query that both answered."""
    return {
        q: one.queries[q][OURS].median / one.queries[q][key].median for q in both(one, OURS, key)
    }


def versus(one: Pass, key: str) -> Versus | None:
    """Ours against an engine; None without a query that both answered."""
    queries = both(one, OURS, key)
    if not queries:
        return None
    sums = {k: sum(one.queries[q][k].median for q in queries) for k in (OURS, key)}
    rounds = min(len(one.queries[q][k].seconds) for q in queries for k in (OURS, key))
    each = [
        sum(one.queries[q][OURS].seconds[r] for q in queries)
        / sum(one.queries[q][key].seconds[r] for q in queries)
        for r in range(rounds)
    ]
    ratio = sums[OURS] / sums[key]
    return Versus(
        len(queries),
        sums[OURS],
        sums[key],
        ratio,
        (max(each) - min(each)) / 2 / ratio if rounds > 1 else None,
        geometric_mean(list(ratios(one, key).values())),
    )


def fastest(one: Pass) -> str | None:
    """The peer that takes least over the queries that all peers answered."""
    peers = one.keys("peer")
    queries = both(one, *peers)
    if not peers or not queries:
        return None
    return min(peers, key=lambda key: sum(one.queries[q][key].median for q in queries))


def slow(one: Pass) -> list[Slow]:
    """Queries of ours beyond 1.5 x the faster peer and 50 ms, the worst first."""
    found = []
    for number, cells in one.queries.items():
        if not cells[OURS].answered:
            continue
        peers = [key for key in one.keys("peer") if cells[key].answered]
        if not peers:
            continue
        best = min(peers, key=lambda key: cells[key].median)
        ours, theirs = cells[OURS].median, cells[best].median
        if ours > SLACK_FACTOR * theirs + SLACK_SECONDS:
            found.append(Slow(number, ours, best, theirs))
    return sorted(found, key=lambda s: s.theirs - s.ours)


def reserved(
    one: Pass, key: str, *, process: bool = False, held: bool = False
) -> tuple[float, tuple[int, float]] | None:
    """Reserved GB·s, ours / theirs: of the sums, and the best query with its ratio.

    With `process` theirs are those of `Cell.process_gb_s`, with `held` ours those of
    `Cell.held_gb_s`: less nobody could reserve who runs these elements.
    """
    each: dict[int, tuple[float, float]] = {}
    for q in both(one, OURS, key):
        mine, cell = one.queries[q][OURS], one.queries[q][key]
        ours = mine.held_gb_s if held else mine.gb_s
        theirs = cell.process_gb_s if process else cell.gb_s
        if ours and theirs:
            each[q] = statistics.median(ours), statistics.median(theirs)
    if not each:
        return None
    best = min(each, key=lambda q: each[q][0] / each[q][1])
    total = sum(a for a, _ in each.values()) / sum(b for _, b in each.values())
    return total, (best, each[best][0] / each[best][1])


def summary(results: Results) -> dict[str, Any]:
    """All of this as plain data."""
    found: dict[str, Any] = {}
    for name, one in results.passes.items():
        has_ours = OURS in one.engines
        others = [key for key in one.engines if key != OURS] if has_ours else []
        against = {key: versus(one, key) for key in others}
        found[name] = {
            "totals": {key: asdict(value) for key, value in totals(one).items()},
            "common_queries": both(one, *one.keys("ours", "peer")),
            "versus": {key: asdict(value) for key, value in against.items() if value is not None},
            "slow": [asdict(s) for s in slow(one)] if has_ours else [],
        }
    return found
