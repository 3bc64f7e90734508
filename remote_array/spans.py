"""How large spans are, and what is counted about them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MAX_SPAN", "MIN_SPAN", "ArrayCounters", "choose_span"]

MIN_SPAN = 64 << 10
MAX_SPAN = 2 << 20
_WANTED_FRAMES = 16
"""As many frames a budget should make, before spans grow."""


@dataclass(slots=True)
class ArrayCounters:
    """What an array's accesses cost.

    Attributes
    ----------
    hits, misses
        Accesses to a span that was resident, or mapped, and that had to be fetched.
    bytes_in, bytes_out
        Bytes copied from and to the memory element.
    writebacks
        Dirty spans written back, by eviction or by `flush`.
    evictions
        Spans that made room for others.
    """

    hits: int = 0
    misses: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    writebacks: int = 0
    evictions: int = 0


def choose_span(budget: int, nbytes: int) -> int:
    """A power of two from 64 KiB to 2 MiB that gives the budget frames enough to choose from."""
    span = MIN_SPAN
    while span < MAX_SPAN and span * 2 * _WANTED_FRAMES <= budget and span < nbytes:
        span *= 2
    return span
