"""Left joins of which only the rows without a partner are wanted are anti joins.

``L LEFT JOIN R ON L.k = R.k … WHERE R.k IS NULL`` keeps the rows of *L* that have no partner: a
partner's key is equal to something, and so is not NULL. The anti join says so, needs no column of
*R* but its keys, stops at the first partner, and is estimated as what it is.
"""

from __future__ import annotations

from engine.optimizer.expressions import (
    column_refs,
    every_relation,
    map_subqueries,
    with_inputs,
)
from engine.optimizer.predicates import conjunction, conjuncts
from operators.expr import Call, Column, Expr, Lit
from operators.rel import Filter, Join, Project, Rel
from operators.rewrite import substitute

__all__ = ["anti_joins"]


def anti_joins(plan: Rel) -> Rel:
    """`plan` with an anti join for each left join whose partners are all filtered out."""
    if not any(isinstance(r, Join) and r.kind == "left" for r in every_relation(plan)):
        return plan
    done: dict[int, Rel] = {}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            node = map_subqueries(rel, visit)
            node = with_inputs(node, [visit(i) for i in node.inputs()])
            done[id(rel)] = _anti(node) if isinstance(node, Filter) else node
        return done[id(rel)]

    return visit(plan)


def _anti(rel: Filter) -> Rel:
    """`rel` itself unless it leaves of a left join only what has no partner."""
    below: Rel = rel.input
    outputs: tuple[Expr, ...] | None = None
    match below:
        case Project(input=input, exprs=exprs) if all(isinstance(e, Column) for e in exprs):
            below, outputs = input, exprs
    if not (isinstance(below, Join) and below.kind == "left" and below.left_keys):
        return rel
    width = len(below.left.schema)
    flags = below.null_equal or (False,) * len(below.left_keys)
    keys = {k + width for k, null in zip(below.right_keys, flags, strict=True) if not null}
    terms = [t if outputs is None else substitute(t, outputs) for t in conjuncts(rel.predicate)]
    rest = [t for t in terms if not _is_null_of(t, keys)]
    if len(rest) == len(terms):
        return rel
    anti = Join(
        below.left.schema,
        below.left,
        below.right,
        "anti",
        below.left_keys,
        below.right_keys,
        below.null_equal,
        below.condition,
    )
    padded: list[Expr] = list(column_refs(below.left.schema))
    padded += [Lit(f.type, None) for f in below.right.schema]
    predicate = conjunction([substitute(t, padded) for t in rest])
    kept = anti if predicate is None else Filter(anti.schema, anti, predicate)
    given = padded if outputs is None else [substitute(e, padded) for e in outputs]
    return Project(rel.schema, kept, tuple(given))


def _is_null_of(term: Expr, columns: set[int]) -> bool:
    match term:
        case Call(function="is_null", args=(Column(index=i),)):
            return i in columns
    return False
