"""Where bytes are: `Ref`, and the arithmetic of 64-bit addresses (``region << 40 | offset``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from libd.errors import BoundsError, LibdError

__all__ = ["MAX_REGION", "OFFSET_BITS", "Ref", "join_address", "split_address"]

OFFSET_BITS = 40
"""Bits of an address that are the offset in the region: a region has up to 1 TiB."""
MAX_REGION = (1 << (64 - OFFSET_BITS)) - 1
_MAX_EPOCH = (1 << 53) - 1  # exact in JSON readers that know only doubles
_KEYS = {"element", "region", "epoch", "extents"}


def join_address(region: int, offset: int) -> int:
    """Return the address of byte `offset` of `region`."""
    if not 0 <= region <= MAX_REGION or not 0 <= offset < 1 << OFFSET_BITS:
        raise BoundsError(f"no such address: region {region}, offset {offset}")
    return region << OFFSET_BITS | offset


def split_address(addr: int) -> tuple[int, int]:
    """Return ``(region, offset)`` of an address."""
    return addr >> OFFSET_BITS, addr & ((1 << OFFSET_BITS) - 1)


@dataclass(frozen=True, slots=True)
class Ref:
    """Bytes of one region of a memory element; holds nothing secret.

    Attributes
    ----------
    element
        The memory element's name in its application.
    region
        The region's number in the element.
    epoch
        The incarnation of the region, an integer below 2**53 that is never used twice.
    extents
        ``(offset, length)`` pairs in the region, in bytes.
    """

    element: str
    region: int
    epoch: int
    extents: tuple[tuple[int, int], ...]

    def __init__(
        self, element: str, region: int, epoch: int, extents: Iterable[Iterable[int]]
    ) -> None:
        pairs = tuple(tuple(extent) for extent in extents)
        numbers = [region, epoch, *(n for pair in pairs for n in pair)]
        if not isinstance(element, str) or not element:
            raise LibdError("a ref needs the name of its element")
        if any(len(pair) != 2 for pair in pairs) or not all(
            type(n) is int and n >= 0 for n in numbers
        ):
            raise LibdError(
                f"ref to element {element!r}: region, epoch, offsets and lengths must be integers "
                "from 0"
            )
        if (
            region > MAX_REGION
            or epoch > _MAX_EPOCH
            or any(a + b > 1 << OFFSET_BITS for a, b in pairs)
        ):
            raise LibdError(f"ref to element {element!r}: region, epoch or extent out of range")
        for name, value in (
            ("element", element),
            ("region", region),
            ("epoch", epoch),
            ("extents", pairs),
        ):
            object.__setattr__(self, name, value)

    @property
    def size(self) -> int:
        """Sum of the extents' lengths, in bytes."""
        return sum(length for _, length in self.extents)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict of JSON types."""
        return {
            "element": self.element,
            "region": self.region,
            "epoch": self.epoch,
            "extents": [list(extent) for extent in self.extents],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ref:
        """Read what `to_json` gave.

        Raises
        ------
        LibdError
            if a name is missing or unknown, or a value has the wrong type or range.
        """
        if not isinstance(data, Mapping) or set(data) != _KEYS:
            raise LibdError(f"a ref is an object with {sorted(_KEYS)}, not {data!r:.200}")
        extents = data["extents"]
        if not isinstance(extents, (list, tuple)) or not all(
            isinstance(e, (list, tuple)) for e in extents
        ):
            raise LibdError("a ref's extents are a list of [offset, length]")
        return cls(data["element"], data["region"], data["epoch"], extents)
