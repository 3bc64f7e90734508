"""Basic indexing: from ``a[10:20, ::2]`` to runs of elements in a C-ordered array.

Integers, slices with any step and one ellipsis, as in NumPy. Not index arrays, masks or
``newaxis``: they would make a view of something that is not regular, so read first, index then.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from remote_array.errors import SelectionError

__all__ = ["Run", "Selection", "select"]

Run = tuple[int, int, int]
"""``(first, count, step)``: `count` elements, `step` ≥ 1 apart, from element number `first`."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A regular selection of elements of a C-ordered array.

    Attributes
    ----------
    first
        Number of the first selected element in memory order.
    counts, strides
        Per remaining axis how many elements, and how many elements of the array they are apart
        (never negative: see `flipped`). `counts` is the shape of the result.
    flipped
        Axes (of the result) that the index walks backwards.
    """

    first: int
    counts: tuple[int, ...]
    strides: tuple[int, ...]
    flipped: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of selected elements."""
        size = 1
        for count in self.counts:
            size *= count
        return size

    @property
    def stop(self) -> int:
        """One more than the number of the last selected element in memory order."""
        if not self.size:
            return self.first
        reach = sum((c - 1) * s for c, s in zip(self.counts, self.strides, strict=True))
        return self.first + reach + 1

    @property
    def unflip(self) -> tuple[slice, ...]:
        """An index that turns memory order into the order of the result, and back."""
        return tuple(
            slice(None, None, -1) if axis in self.flipped else slice(None)
            for axis in range(len(self.counts))
        )

    def runs(self) -> Iterator[Run]:
        """The elements in memory order, as few and as long runs as possible."""
        if not self.size:
            return
        axes: list[tuple[int, int]] = []
        for count, stride in zip(self.counts, self.strides, strict=True):
            if count == 1:
                continue
            if axes and axes[-1][1] == stride * count:
                axes[-1] = (axes[-1][0] * count, stride)
            else:
                axes.append((count, stride))
        if not axes:
            yield self.first, 1, 1
            return
        *outer, (count, step) = axes
        offsets = [range(0, n * stride, stride) for n, stride in outer]
        for shift in product(*offsets):
            yield self.first + sum(shift), count, step


def select(key: Any, shape: tuple[int, ...]) -> Selection:
    """Resolve an index against a shape.

    Raises
    ------
    SelectionError
        If it has too many axes, is out of range, or is not of the supported kinds.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    if len(dots) > 1:
        raise SelectionError("an index can have one ellipsis only")
    given = len(keys) - len(dots)
    if given > len(shape):
        raise SelectionError(f"{given} indices for an array of {len(shape)} dimensions")
    at = dots[0] if dots else len(keys)
    keys[at : at + 1] = [slice(None)] * (len(shape) - given)

    strides = [1] * len(shape)
    for axis in range(len(shape) - 1, 0, -1):
        strides[axis - 1] = strides[axis] * shape[axis]

    first = 0
    counts: list[int] = []
    steps: list[int] = []
    flipped: list[int] = []
    for axis, (k, n, stride) in enumerate(zip(keys, shape, strides, strict=True)):
        if isinstance(k, slice):
            chosen = _range(k, n)
            count, step = len(chosen), chosen.step
            start = chosen.start
            if step < 0 and count:
                flipped.append(len(counts))
                start, step = chosen[-1], -step
            first += start * stride if count else 0
            counts.append(count)
            steps.append(abs(step) * stride)
        else:
            first += _position(k, n, axis) * stride
    return Selection(first, tuple(counts), tuple(steps), tuple(flipped))


def _range(key: slice, n: int) -> range:
    try:
        return range(*key.indices(n))
    except (TypeError, ValueError) as error:
        raise SelectionError(f"cannot index with {key}: {error}") from None


def _position(key: Any, n: int, axis: int) -> int:
    if isinstance(key, bool) or getattr(getattr(key, "dtype", None), "kind", None) == "b":
        raise SelectionError("masks are not supported: read the array, then index the copy")
    try:
        index = operator.index(key)
    except TypeError:
        raise SelectionError(
            f"cannot index axis {axis} with {type(key).__name__}: integers, slices and ... are "
            "supported; for anything else read the rows first"
        ) from None
    if not -n <= index < n:
        raise SelectionError(f"index {index} is out of range for axis {axis} of length {n}")
    return index % n
