"""Policies as ladders of grains.

A *grain* says into how many parts a plan's large inputs are cut, how many cores and how many bytes
each compute element has, and whether it may use local disk. A policy is the order in which grains
are tried: a query begins at the first one whose elements are expected to stay within their memory,
and climbs to the next one when an element was stopped by its limit. The last rung lets operators
that cannot be cut (a global median) spill.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

__all__ = ["POLICIES", "Grain", "Ladder", "Policy", "spilling"]

Policy = Literal["auto", "aggregate", "disaggregate"]
"""`aggregate`: as few elements as the memory limit allows. `disaggregate`: every exchange is a
memory element and elements are as small as is useful. `auto`: by cost."""

POLICIES: tuple[Policy, ...] = get_args(Policy)

# Finer than this, elements cost more to start than they save; what still does not fit spills.
_MOST_COPIES = 64
# Of an operator's data: hash tables and sorted runs go to disk once, with room to rewrite them.
_SPILL = 64 << 30


@dataclass(frozen=True, slots=True)
class Grain:
    """How finely to cut.

    Attributes
    ----------
    copies
        Parts of large inputs, and so copies of the stages that work on them; 1 leaves the whole
        query in one element.
    threads
        Cores of each compute element.
    memory
        Most bytes that a compute element may hold.
    storage
        Most bytes of local disk that a compute element may use; 0 forbids it.
    """

    copies: int
    threads: int
    memory: int
    storage: int = 0

    @property
    def whole(self) -> bool:
        """Whether the query stays in one piece."""
        return self.copies == 1


@dataclass(frozen=True, slots=True)
class Ladder:
    """The grains of a policy, coarsest first.

    Parameters
    ----------
    policy
        Which policy.
    cores
        Cores of the machines that run elements.
    memory
        Bytes that each compute element may hold (`--compute-memory`).
    copies
        Parts to begin with where somebody asked for a number; None leaves it to the policy.
    """

    policy: Policy
    cores: int
    memory: int
    copies: int | None = None

    def rungs(self) -> Iterator[Grain]:
        """All grains, in the order in which they are tried."""
        grain = Grain(1, self.cores, self.memory)
        if self.copies is not None:
            threads = self.cores if self.copies == 1 else 1
            grain = Grain(self.copies, threads, self.memory)
        elif self.policy == "disaggregate":
            grain = Grain(max(2, self.cores), 1, self.memory)
        yield grain
        while grain.copies < _MOST_COPIES:
            copies = max(2 * grain.copies, self.cores)
            grain = Grain(min(copies, _MOST_COPIES), 1, self.memory)
            yield grain
        yield spilling(grain)


def spilling(grain: Grain) -> Grain:
    """The same grain with local disk to spill to."""
    return replace(grain, storage=_SPILL)
