"""Where the two sides of a join must be.

Four ways, of which the cheapest that is right for the kind of join is taken: leave both where they
are, let every copy see the whole of one side, scatter both by the join keys, gather both.

A *streaming* side may be parted while the other is whole: each of its rows meets all that it can
match, and no row of the whole side is put out more than once on its own account. That is what
rules out, say, a parted right side of a left join: every copy would put out the left rows that
find no match among its own part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.optimizer.expressions import with_inputs
from engine.stages.fragments import Fragment, Keys, Workshop, remap
from operators.rel import Join
from operators.types import same_type

if TYPE_CHECKING:
    from engine.stages.cutter import Cutter

__all__ = ["cut_join"]

_LEFT_STREAMS = frozenset({"inner", "left", "semi", "anti", "mark", "cross", "asof"})
_RIGHT_STREAMS = frozenset({"inner", "right", "cross"})
# Kinds whose keys may be scattered. A mark is three-valued in general: it must see every row of
# the right side.
_SCATTERED = frozenset({"inner", "left", "right", "full", "semi", "anti", "asof"})


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to bring the sides together and what it moves, in bytes written and read again."""

    cost: float
    sides: Callable[[], tuple[Fragment, Fragment]]


def cut_join(cutter: Cutter, rel: Join, wish: Keys | None) -> Fragment:
    """Place a join; its inputs have not been visited."""
    width = len(rel.left.schema)
    pairs = dict(zip(rel.left_keys, rel.right_keys, strict=True))
    wanted = _wanted_keys(rel, wish)
    left = cutter.visit(rel.left, tuple(rel.left_keys[i] for i in wanted) or _side(wish, 0, width))
    right = cutter.visit(
        rel.right, tuple(rel.right_keys[i] for i in wanted) or _side(wish, width, None)
    )
    if left.parted or right.parted:
        left, right = _bring_together(cutter.workshop, rel, left, right, wanted)
    placement = _placement(rel, pairs, left, right)
    return Fragment(with_inputs(rel, [left.rel, right.rel]), placement)


def _side(wish: Keys | None, start: int, stop: int | None) -> Keys | None:
    """The columns of a wish that belong to one side."""
    chosen = [c - start for c in wish or () if c >= start and (stop is None or c < stop)]
    return tuple(chosen) or None


def _wanted_keys(rel: Join, wish: Keys | None) -> list[int]:
    """Numbers of the key pairs to scatter by: those that the consumer wishes for, or else all."""
    width = len(rel.left.schema)
    numbers = [
        i
        for i, (lk, rk) in enumerate(zip(rel.left_keys, rel.right_keys, strict=True))
        if wish and (lk in wish or rk + width in wish)
    ]
    return numbers or list(range(len(rel.left_keys)))


def _bring_together(
    workshop: Workshop, rel: Join, left: Fragment, right: Fragment, wanted: list[int]
) -> tuple[Fragment, Fragment]:
    copies = workshop.settings.parallelism
    cap = workshop.settings.broadcast_bytes
    size_left, size_right = workshop.bytes(left), workshop.bytes(right)

    def seen_whole(fragment: Fragment, size: float) -> float:
        """What it costs that every copy sees a whole side. Beyond the cap it is worse than
        anything else.
        """
        moved = size * (1 + copies) if fragment.parted else size * copies
        return moved if size <= cap else moved * 1e6

    ways = []
    if left.parted and rel.kind in _LEFT_STREAMS:
        ways.append(_Way(seen_whole(right, size_right), lambda: (left, _whole(workshop, right))))
    if right.parted and rel.kind in _RIGHT_STREAMS:
        ways.append(_Way(seen_whole(left, size_left), lambda: (_whole(workshop, left), right)))
    if rel.left_keys and rel.kind in _SCATTERED and _comparable(rel):
        keys_left, keys_right = _scatter_keys(rel, left, right, wanted, size_left, size_right)
        moved = (0.0 if keys_left in left.keys else 2 * size_left) + (
            0.0 if keys_right in right.keys else 2 * size_right
        )
        ways.append(
            _Way(moved, lambda: (workshop.hash(left, keys_left), workshop.hash(right, keys_right)))
        )
    # With everything in one place there is no parallel work left: the last resort unless little
    # moves.
    moved = 2 * (left.parted * size_left + right.parted * size_right) + copies * (
        size_left + size_right
    )
    ways.append(_Way(moved, lambda: (workshop.gather(left), workshop.gather(right))))
    return min(ways, key=lambda way: way.cost).sides()


def _whole(workshop: Workshop, fragment: Fragment) -> Fragment:
    return workshop.replicate(workshop.gather(fragment))


def _comparable(rel: Join) -> bool:
    """Whether equal keys scatter alike: the same type on both sides."""
    return all(
        same_type(rel.left.schema[lk].type, rel.right.schema[rk].type)
        for lk, rk in zip(rel.left_keys, rel.right_keys, strict=True)
    )


def _scatter_keys(
    rel: Join,
    left: Fragment,
    right: Fragment,
    wanted: list[int],
    size_left: float,
    size_right: float,
) -> tuple[Keys, Keys]:
    """The columns to scatter by: as one side already is if the other can follow, the larger side
    first.
    """
    to_right = dict(zip(rel.left_keys, rel.right_keys, strict=True))
    to_left = dict(zip(rel.right_keys, rel.left_keys, strict=True))
    by_left = [(t, tuple(to_right[c] for c in t)) for t in left.within(to_right)]
    by_right = [(tuple(to_left[c] for c in t), t) for t in right.within(to_left)]
    for both in by_left:
        if both in by_right:
            return both
    candidates = by_left + by_right if size_left >= size_right else by_right + by_left
    if candidates:
        return candidates[0]
    return tuple(rel.left_keys[i] for i in wanted), tuple(rel.right_keys[i] for i in wanted)


def _placement(
    rel: Join, pairs: dict[int, int], left: Fragment, right: Fragment
) -> frozenset[Keys] | None:
    """How the join's output is spread.

    Columns that an outer join fills with NULLs say nothing any more about where their rows are.
    """
    if not left.parted and not right.parted:
        return None
    width = len(rel.left.schema)
    placed: set[Keys] = set()
    if left.parted and rel.kind in _LEFT_STREAMS:
        placed |= left.keys
    if right.parted and rel.kind in _RIGHT_STREAMS:
        placed |= remap(right.keys, {c: c + width for c in range(len(rel.right.schema))})
    if rel.kind == "inner" and _comparable(rel):
        to_right = {lk: rk + width for lk, rk in pairs.items()}
        to_left = {rk: lk for lk, rk in to_right.items()}
        for there in (to_right, to_left):
            placed |= {tuple(there.get(c, c) for c in t) for t in placed}
    return frozenset(placed)
