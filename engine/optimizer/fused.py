"""What the fusion of relations gives: one plan, and what of it belongs to each member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.optimizer.predicates import (
    conjunction,
)
from operators.expr import Column, Expr
from operators.rel import (
    Filter,
    Project,
    Rel,
)
from operators.schema import Field, Schema

__all__ = ["Fused", "Outputs", "together"]


@dataclass(frozen=True, slots=True)
class Fused:
    """A relation and what of it belongs to each member.

    Attributes
    ----------
    plan
        Holds the rows and columns of all.
    columns
        For each member, where in `plan` each of its columns stands.
    own
        For each member, conjuncts over `plan` that hold for its rows and no others; none: all
        rows are.
    """

    plan: Rel
    columns: tuple[tuple[int, ...], ...]
    own: tuple[tuple[Expr, ...], ...]

    def member(self, i: int, schema: Schema) -> Rel:
        """Member `i`, whose columns were `schema`, read from `plan`."""
        rel = self.plan
        predicate = conjunction(self.own[i])
        if predicate is not None:
            rel = Filter(rel.schema, rel, predicate)
        exprs = tuple(
            Column(f.type, c) for f, c in zip(schema.fields, self.columns[i], strict=True)
        )
        return Project(schema, rel, exprs)


class Outputs:
    """Output columns under construction: equal expressions stand once."""

    def __init__(self) -> None:
        self.exprs: list[Expr] = []
        self.fields: list[Field] = []

    def add(self, expr: Expr, field: Field) -> int:
        if expr not in self.exprs:
            self.exprs.append(expr)
            self.fields.append(field)
        position = self.exprs.index(expr)
        if field.nullable and not self.fields[position].nullable:
            self.fields[position] = replace(self.fields[position], nullable=True)
        return position

    def project(self, rel: Rel) -> Project:
        return Project(Schema(tuple(self.fields)), rel, tuple(self.exprs))


def together(own: Sequence[Expr], more: Sequence[Expr]) -> tuple[Expr, ...]:
    return (*own, *(t for t in more if t not in own))
