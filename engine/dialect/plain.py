"""What needs no asking: expressions whose meaning by DuckDB's rules is plain.

A question to DuckDB costs about half a millisecond, and most are of a few kinds: a column compared
with another of its type or with a literal, a constant of a narrow type cast to a wider one. What is
answered here is answered as DuckDB does; everything else is None, and DuckDB is asked.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlglot import exp

from engine.dialect.bound import Term, Translator
from engine.dialect.literals import datafusion_literal
from engine.dialect.oracle import Constant
from engine.dialect.syntax import joined

__all__ = ["plain_condition", "plain_constant"]

_SIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
_COMPARISONS: Mapping[type[exp.Expr], str] = MappingProxyType(
    {exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}
)
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = datetime.date(1970, 1, 1)
_INT32 = 2**31


def plain_condition(node: exp.Expr, leaves: Sequence[Term], translator: Translator) -> Term | None:
    """A comparison, IN list, BETWEEN or IS NULL over placeholders and literals, or such conditions
    joined by AND and OR; None if it is not that plain.

    Parameters
    ----------
    node
        A template over columns ``c0, c1, …``, which stand for `leaves`.
    """
    text = _Conditions(leaves, translator).text(node)
    return None if text is None else Term(text, "BOOLEAN")


class _Conditions:
    def __init__(self, leaves: Sequence[Term], translator: Translator) -> None:
        self._leaves = leaves
        self._translator = translator

    def text(self, node: exp.Expr) -> str | None:
        """DataFusion's SQL of a condition."""
        match node:
            case exp.Paren():
                return self.text(node.this)
            case exp.And() | exp.Or():
                parts = [self.text(n) for n in node.flatten()]
                if None in parts:
                    return None
                word = "AND" if isinstance(node, exp.And) else "OR"
                return joined(word, [p for p in parts if p is not None])
            case exp.Is(expression=exp.Null()):
                asked = self._leaf(node.this)
                return None if asked is None else f"({asked.text} IS NULL)"
            case exp.Not(this=exp.Is(expression=exp.Null()) as inner):
                asked = self._leaf(inner.this)
                return None if asked is None else f"({asked.text} IS NOT NULL)"
            case exp.Not(this=exp.In() as inner):
                return self._in(inner, "NOT IN")
            case exp.In():
                return self._in(node, "IN")
            case exp.Between() if not any(v for k, v in node.args.items() if k not in _BETWEEN):
                low = self._compared(node.this, ">=", node.args["low"])
                high = self._compared(node.this, "<=", node.args["high"])
                return None if low is None or high is None else f"({low} AND {high})"
        compared = _COMPARISONS.get(type(node))
        return None if compared is None else self._compared(node.this, compared, node.expression)

    def _compared(self, left: exp.Expr, word: str, right: exp.Expr) -> str | None:
        one, other = self._leaf(left), self._leaf(right)
        if one is None and other is None:
            return None
        one = one or self._literal(left, other)
        other = other or self._literal(right, one)
        if one is None or other is None:
            return None
        if one.type != other.type:
            if one.type not in _SIGNED or other.type not in _SIGNED:
                return None
            common = _SIGNED[max(_SIGNED.index(one.type), _SIGNED.index(other.type))]
            one, other = self._translator.cast(one, common), self._translator.cast(other, common)
        elif one.type in _UNTYPED:
            return None
        return f"({one.text} {word} {other.text})"

    def _in(self, node: exp.In, word: str) -> str | None:
        needle = self._leaf(node.this)
        if needle is None or any(v for k, v in node.args.items() if k not in _IN):
            return None
        options = [self._literal(o, needle) for o in node.expressions]
        if not options or None in options:
            return None
        listed = ", ".join(o.text for o in options if o is not None)
        return f"({needle.text} {word} ({listed}))"

    def _leaf(self, node: exp.Expr) -> Term | None:
        while isinstance(node, exp.Paren):
            node = node.this
        return self._leaves[int(node.name[1:])] if isinstance(node, exp.Column) else None

    def _literal(self, node: exp.Expr, beside: Term | None) -> Term | None:
        """A literal in the type of what it stands beside."""
        if beside is None:
            return None
        if isinstance(node, exp.Literal) and node.is_string and beside.type == "VARCHAR":
            return Term(datafusion_literal("VARCHAR", str(node.this)), "VARCHAR")
        value = _integer(node)
        if value is None or (beside.type != "BIGINT" and beside.type != "INTEGER"):
            return None
        if beside.type == "INTEGER" and not -_INT32 <= value < _INT32:
            return None
        return Term(datafusion_literal(beside.type, value), beside.type)


_IN = frozenset(("this", "expressions"))
_BETWEEN = frozenset(("this", "low", "high"))
_UNTYPED = frozenset(("NULL", '"NULL"'))


def _integer(node: exp.Expr) -> int | None:
    """The value of an integer literal of at most 18 digits."""
    if isinstance(node, exp.Neg):
        value = _integer(node.this)
        return None if value is None else -value
    if isinstance(node, exp.Literal) and not node.is_string and _INTEGER.fullmatch(node.name):
        return int(node.name)
    return None


def plain_constant(node: exp.Expr) -> Constant | None:
    """Type and value of a sum or difference of small integers, or of a date; None if it is neither,
    or DuckDB has to say whether it is one.
    """
    while isinstance(node, exp.Paren):
        node = node.this
    match node:
        case exp.Add() | exp.Sub():
            one, other = _integer(node.this.unnest()), _integer(node.expression.unnest())
            if one is None or other is None or max(abs(one), abs(other)) >= _INT32:
                return None
            value: Any = one + other if isinstance(node, exp.Add) else one - other
            return ("INTEGER", value) if -_INT32 <= value < _INT32 else None
        case exp.Cast(this=exp.Literal(is_string=True)) if (
            type(node) is exp.Cast and node.to.this == exp.DataType.Type.DATE
        ):
            days = _days(str(node.this.this))
            return None if days is None else ("DATE", days)
    return None


def _days(text: str) -> int | None:
    if not _ISO_DATE.fullmatch(text):
        return None
    try:
        return (datetime.date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        return None
