"""What one side is asked to move, and how it is checked."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["KIB", "MIB", "SPAN", "Client", "Job", "Work", "WrongBytesError", "source", "space"]

KIB, MIB = 1 << 10, 1 << 20
SPAN = 64 * MIB
"""Reads go to addresses 0 … SPAN of a peer's memory; writes to SPAN … 2 SPAN."""
Bytes = npt.NDArray[np.uint8]
_writes = itertools.count(1)


class WrongBytesError(Exception):
    """A side moved other bytes than it should."""


def source(address: int, size: int) -> Bytes:
    """What every peer's memory holds at `address` (a multiple of 8): different everywhere."""
    words = np.arange(address // 8 + 1, (address + size + 7) // 8 + 1, dtype=np.uint64)
    words *= np.uint64(0x9E3779B97F4A7C15)  # odd: no two words are equal
    return words.view(np.uint8)[:size]


def space(size: int) -> Bytes:
    """A buffer of the kind that all sides use, its pages touched."""
    return np.zeros(size, np.uint8)


@dataclass(frozen=True, slots=True)
class Job:
    """Reads or writes.

    Parameters
    ----------
    kind
        ``"read"`` or ``"write"``.
    size
        Bytes of each.
    depth
        How many are outstanding.
    way
        How a client keeps them outstanding: ``"one"`` after the other; ``"window"``, a new one as
        soon as the oldest is done; ``"batches"``, two alternating batches of half the depth;
        ``"vector"``, one call for `depth` of them, and then the next; ``"map"``: not moved at all;
        ``"mapcopy"``, copied out of a map.
    count
        Operations that one call stands for.
    scattered
        Random multiples of `size` in 0 … SPAN rather than the same places again and again.
    places
        How many places and buffers are used in turn, if more than `depth`: a side that has one read
        outstanding then touches as much memory as one that has many.
    """

    kind: str
    size: int
    depth: int = 1
    way: str = "one"
    count: int = 1
    scattered: bool = False
    places: int = 0

    @property
    def spots(self) -> int:
        """Places and buffers that are used in turn."""
        return max(self.depth, self.places)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Inverse of `to_json`."""
        return cls(**data)

    def addresses(self) -> list[int]:
        """Where the operations of one call go; the same for every client."""
        base = SPAN if self.kind == "write" else 0
        if self.scattered:
            places = np.random.default_rng(7).integers(0, SPAN // self.size, self.count)
            return [base + int(i) * self.size for i in places]
        return [base + (i % self.spots) * self.size for i in range(self.count)]

    def slots(self) -> list[Bytes]:
        """A buffer for each spot: operation `i` uses slot ``i % spots``.

        Of writes, filled with bytes that no earlier job wrote.
        """
        made = [space(self.size) for _ in range(self.spots)]
        if self.kind == "write":
            seed = [os.getpid(), next(_writes)]
            for slot, data in zip(made, np.random.default_rng(seed).spawn(self.spots), strict=True):
                slot[:] = np.frombuffer(data.bytes(self.size), np.uint8)
        return made

    def last(self) -> list[tuple[int, int]]:
        """Address and slot of operations whose bytes must be there after a call."""
        final: dict[int, int] = {}
        for i, address in enumerate(self.addresses()):
            final[address] = i % self.spots
        if self.kind == "write":
            return list(final.items())
        held = {i % self.spots: a for i, a in enumerate(self.addresses())}
        return [(address, slot) for slot, address in held.items()]


@dataclass(frozen=True, slots=True)
class Work:
    """A job that a client is ready for.

    Parameters
    ----------
    call
        Does `job.count` operations.
    moved
        Pairs of what should be and what is, valid after a call.
    slots
        Buffers that reads fill, spoilt before the call that is checked.
    """

    call: Callable[[], object]
    moved: Callable[[], Iterable[tuple[Any, Any]]]
    slots: Sequence[Bytes] = ()

    def check(self) -> None:
        """Make one call and compare.

        Raises
        ------
        WrongBytesError
            if any byte differs.
        """
        for slot in self.slots:
            slot.fill(0)
        self.call()
        for should, found in self.moved():
            wanted, got = (np.frombuffer(x, np.uint8) for x in (should, found))
            if not np.array_equal(wanted, got):
                raise WrongBytesError(
                    f"{got.size} bytes came, {wanted.size} were due"
                    if got.size != wanted.size
                    else f"{np.count_nonzero(wanted != got)} of {wanted.size} bytes are wrong"
                )


class Client(ABC):
    """One side of a measurement, in a process of its own.

    Subclasses take the address that their server (if they have one) gave.
    """

    def __init__(self, address: dict[str, Any]) -> None:
        self.address = address

    @abstractmethod
    def prepare(self, job: Job) -> Work:
        """Get ready for a job; what the last one needed may be dropped."""

    def close(self) -> None:  # noqa: B027  (most have nothing to leave)
        """Leave nothing behind."""
