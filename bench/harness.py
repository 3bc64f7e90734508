"""Runs a case and its peer in turn and reports the ratio.

The machine is shared and noisy, so the two sides alternate round by round: what disturbs one
disturbs the other. A figure is the median over rounds; the spread is the interquartile range of
the rounds' ratios, relative to the median ratio.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass

__all__ = ["Case", "Row", "Side", "Suite", "measure", "timed"]

Side = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a report; `ratio` is ours / peer, so below 1 is faster where `unit` is a time."""

    name: str
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
        What is measured, and in what: ``"us"`` or ``"ms"`` per operation, ``"GB/s"`` where `size`
        is given.
    ours, peer
        One operation each; None for a peer that is not installed here (the row then says so in
        `peer_name`).
    operations
        How many operations one call of `ours` stands for (elements of a DAG, say); `peer` alike.
    size
        Bytes that one operation moves.
    target
        Upper limit for the ratio of times ours / peer, or None for no target.
    limit
        Upper limit for our own figure in `unit`, whatever the peer does.
    repeat
        Calls per round; short operations need many to be seen by the clock.
    """

    name: str
    unit: str
    ours: Side
    peer_name: str
    peer: Side | None = None
    operations: int = 1
    size: int = 0
    target: float | None = None
    limit: float | None = None
    repeat: int = 1


Suite = Callable[[], AbstractContextManager[list[Case]]]


def timed(call: Side, repeat: int) -> float:
    """Seconds per call, the mean over `repeat` calls in a row."""
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


def in_unit(case: Case, seconds: float) -> float:
    """A time per call as a figure in the case's unit."""
    per_operation = seconds / case.operations
    match case.unit:
        case "us":
            return per_operation * 1e6
        case "ms":
            return per_operation * 1e3
        case "s":
            return per_operation
        case "GB/s":
            return case.size / per_operation / 1e9
    raise ValueError(f"unit {case.unit!r} of case {case.name!r} is unknown: us, ms, s or GB/s")


def measure(case: Case, rounds: int = 15) -> Row:
    """Measure a case and its peer alternately, after one warm-up call each."""
    case.ours()
    if case.peer is not None:
        case.peer()
    ours, peers = [], []
    for _ in range(rounds):
        ours.append(timed(case.ours, case.repeat))
        if case.peer is not None:
            peers.append(timed(case.peer, case.repeat))
    figure = in_unit(case, statistics.median(ours))
    met = None if case.limit is None else figure <= case.limit
    wanted = [] if case.limit is None else [f"<= {case.limit:g} {case.unit}"]
    if not peers:
        return Row(
            case.name,
            case.unit,
            figure,
            case.peer_name,
            None,
            None,
            wanted[0] if wanted else "",
            met,
            None,
        )
    times = [a / b for a, b in zip(ours, peers, strict=True)]
    time_ratio = statistics.median(times)
    low, _, high = statistics.quantiles(times, n=4)
    ratio = 1 / time_ratio if case.unit == "GB/s" else time_ratio
    if case.target is not None:
        met = (met is not False) and time_ratio <= case.target
        wanted.append(
            f">= {1 / case.target:.3g} x peer"
            if case.unit == "GB/s"
            else f"<= {case.target:g} x peer"
        )
    return Row(
        case.name,
        case.unit,
        figure,
        case.peer_name,
        in_unit(case, statistics.median(peers)),
        ratio,
        ", ".join(wanted),
        met,
        (high - low) / time_ratio,
    )


@contextmanager
def joined(*suites: Suite) -> Iterator[list[Case]]:
    """Several suites as one."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield [case for suite in suites for case in stack.enter_context(suite())]
