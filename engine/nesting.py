"""What is told of a plan that nests deeper than Python follows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import NestingError
from engine.optimizer.expressions import every_relation
from operators.expr import Expr
from operators.rel import Rel

__all__ = ["nesting_is_told"]


@contextmanager
def nesting_is_told(plan: Rel) -> Iterator[None]:
    """Make one error of whatever walks too deep into `plan`.

    Raises
    ------
    NestingError
        It says what nests how deeply.
    """
    try:
        yield
    except RecursionError:
        raise NestingError(f"the plan nests too deeply: {_deepest(plan)}") from None


def _deepest(plan: Rel) -> str:
    relations = _levels([plan])
    expressions = _levels([e for rel in every_relation(plan) for e in rel.expressions()])
    longest = max(relations, expressions, key=len)
    (name, times), *_ = Counter(longest).most_common(1)
    return f"{times} of {len(longest)} levels are {name}"


def _levels(roots: list[Rel] | list[Expr]) -> list[str]:
    """A kind for each level below the roots."""
    levels: list[str] = []
    row: list[Rel | Expr] = list(roots)
    while row:
        levels.append(type(row[0]).__name__)
        below: dict[int, Rel | Expr] = {}
        for node in row:
            children = node.inputs() if isinstance(node, Rel) else node.children()
            below.update((id(child), child) for child in children)
        row = list(below.values())
    return levels
