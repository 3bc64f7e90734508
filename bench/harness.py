"""Runs a case and its peer in turn and reports the ratio.

The machine is shared and noisy, so the two sides alternate round by round: what disturbs one
disturbs the other. A figure is the median over rounds; the ratio is the median of the rounds'
ratios, and the spread their interquartile range relative to it. Before the first round both sides
are warmed up and, where they move bytes, checked: a side that moves wrong ones ends the run.
"""

from __future__ import annotations

import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

__all__ = [
    "Case",
    "Gauge",
    "Options",
    "Row",
    "Side",
    "Suite",
    "Timer",
    "Unavailable",
    "measure",
    "timed",
]

ROUND_SECONDS = 0.02
"""A round of a case that leaves `repeat` to the harness lasts at least so long on either side."""
MOST_CALLS = 1_000_000


class Unavailable(Exception):
    """A suite cannot run on this machine; the message says what it needs."""


class Timer(ABC):
    """A side that keeps its own time: another process, or a program with its own clock."""

    @abstractmethod
    def seconds(self, repeat: int) -> float:
        """Make `repeat` calls; return the seconds that all of them took together."""

    def check(self) -> None:
        """Make one call and raise if it moved other bytes than it should."""
        return


@dataclass(frozen=True, slots=True)
class Gauge:
    """A side that is read off rather than timed: `read` returns the figure in the case's unit."""

    read: Callable[[], float]


Side = Callable[[], object] | Timer | Gauge


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report; `ratio` is ours / peer, so below 1 is faster where `unit` is a time."""

    table: str
    name: str
    x: float | None
    unit: str
    ours: float
    peer_name: str
    peer: float | None
    ratio: float | None
    target: str
    met: bool | None
    spread: float | None

    def to_json(self) -> dict[str, object]:
        """The row as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Case:
    """Something of ours and what it is held against.

    Parameters
    ----------
    name, unit
        What is measured, and in what: ``"us"``, ``"ms"`` or ``"s"`` per operation, ``"GB/s"`` where
        `size` is given, ``"k/s"`` (thousands of operations per second), ``"MB"``, ``"KiB"``.
    ours, peer
        One call each; None for a peer that is not installed here (the row then says so in
        `peer_name`).
    operations, peer_operations
        How many operations one call of either stands for (elements of a DAG, say); the peer's are
        as many as ours unless given.
    size
        Bytes that one operation moves.
    target
        The least ratio ours / peer for rates (GB/s, k/s), the largest for anything else.
    limit
        Upper limit for our own figure in `unit`, whatever the peer does.
    margin
        Upper limit for ours - peer, in `unit`.
    repeat
        Calls per round; 0 leaves it to the harness, for each side by itself.
    rounds
        Rounds at most, whatever is asked for; 0 leaves that open.
    table, x
        The report's table (and plot) that the row belongs to, and where it stands on its axis.
    """

    name: str
    unit: str
    ours: Side
    peer_name: str
    peer: Side | None = None
    operations: int = 1
    peer_operations: int | None = None
    size: int = 0
    target: float | None = None
    limit: float | None = None
    margin: float | None = None
    repeat: int = 1
    rounds: int = 0
    table: str = ""
    x: float | None = None

    @property
    def rate(self) -> bool:
        """Whether more is better."""
        return self.unit in ("GB/s", "k/s")

    @property
    def has_target(self) -> bool:
        """Whether the row says ``met`` or not."""
        return (self.target, self.limit, self.margin) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Options:
    """What a suite is asked for.

    Parameters
    ----------
    peers
        Their keys; None for all.
    quick
        A few small sizes only.
    targets
        Only cases that have a target are looked at: a suite may leave out peers that have none.
    """

    peers: frozenset[str] | None = None
    quick: bool = False
    targets: bool = False

    def wants(self, peer: str) -> bool:
        """Whether a peer takes part."""
        return self.peers is None or peer in self.peers


Suite = Callable[[Options], Iterator[Case]]
"""Yields cases; a case's sides are good until the next one is asked for, and not after it."""


def timed(side: Side, repeat: int) -> float:
    """Seconds per call, the mean over `repeat` calls in a row; a gauge's figure as it is."""
    if isinstance(side, Gauge):
        return side.read()
    if isinstance(side, Timer):
        return side.seconds(repeat) / repeat
    start = time.perf_counter()
    for _ in range(repeat):
        side()
    return (time.perf_counter() - start) / repeat


def calls_per_round(side: Side, least: float) -> int:
    """How many calls last `least` seconds."""
    if isinstance(side, Gauge):
        return 1
    repeat = 1
    while (spent := timed(side, repeat) * repeat) < least and repeat < MOST_CALLS:
        # At most tenfold, because the first calls are slower than those that follow.
        grown = math.ceil(repeat * min(10.0, 1.1 * least / max(spent, 1e-9)))
        repeat = min(max(grown, repeat + 1), MOST_CALLS)
    return repeat


def in_unit(case: Case, side: Side | None, seconds: float, operations: int) -> float:
    """A time per call as a figure in the case's unit."""
    if isinstance(side, Gauge):
        return seconds
    per_operation = seconds / operations
    match case.unit:
        case "us":
            return per_operation * 1e6
        case "ms":
            return per_operation * 1e3
        case "s":
            return per_operation
        case "GB/s":
            return case.size / per_operation / 1e9
        case "k/s":
            return 1e-3 / per_operation
    raise ValueError(
        f"unit {case.unit!r} of case {case.name!r} is not one that is timed: us, ms, s, GB/s or k/s"
    )


def warmed_up(side: Side, repeat: int, least: float) -> int:
    """Warm a side up and check what it moves; return its calls per round."""
    timed(side, 1)
    if isinstance(side, Timer):
        side.check()
    return repeat or calls_per_round(side, least)


def measure(case: Case, rounds: int = 15, least: float = ROUND_SECONDS) -> Row:
    """Measure a case and its peer alternately, after warm-up and check of both."""
    sides = [(case.ours, case.operations)]
    if case.peer is not None:
        sides.append((case.peer, case.peer_operations or case.operations))
    calls = [warmed_up(side, case.repeat, least) for side, _ in sides]
    figures: list[list[float]] = [[] for _ in sides]
    for number in range(min(rounds, case.rounds or rounds)):
        # Who goes first changes, too: what the first leaves behind (caches, a busy peer's last
        # work) is in the second's way.
        for i in range(len(sides)) if number % 2 == 0 else reversed(range(len(sides))):
            side, operations = sides[i]
            figures[i].append(in_unit(case, side, timed(side, calls[i]), operations))
    return judge(case, figures[0], figures[1] if len(figures) > 1 else None)


def judge(case: Case, ours: list[float], peers: list[float] | None) -> Row:
    """The row of a case from the figures of its rounds."""
    figure = statistics.median(ours)
    peer = ratio = spread = None
    wanted: list[str] = []
    verdicts: list[bool] = []
    if case.limit is not None:
        wanted.append(f"<= {case.limit:g} {case.unit}")
        verdicts.append(figure <= case.limit)
    if peers is not None:
        peer = statistics.median(peers)
        ratios = [a / b for a, b in zip(ours, peers, strict=True)]
        ratio = statistics.median(ratios)
        low, _, high = statistics.quantiles(ratios, n=4)
        spread = (high - low) / ratio
    if case.target is not None:
        wanted.append(f"{'>=' if case.rate else '<='} {case.target:g} x peer")
        if ratio is not None:
            verdicts.append(ratio >= case.target if case.rate else ratio <= case.target)
    if case.margin is not None:
        wanted.append(f"<= peer + {case.margin:g} {case.unit}")
        if peers is not None:
            beyond = statistics.median(a - b for a, b in zip(ours, peers, strict=True))
            verdicts.append(beyond <= case.margin)
    return Row(
        table=case.table,
        name=case.name,
        x=case.x,
        unit=case.unit,
        ours=figure,
        peer_name=case.peer_name,
        peer=peer,
        ratio=ratio,
        target=", ".join(wanted),
        met=all(verdicts) if verdicts else None,
        spread=spread,
    )
