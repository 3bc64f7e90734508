"""From DuckDB's bound expressions to DataFusion's SQL.

DuckDB has resolved every function and spelled out every implied cast. What has the same meaning in
both engines over equal types (comparisons, AND, OR, NOT, IS NULL, IN, CASE, casts that lose
nothing) is written natively, so that DataFusion can reason about it; everything else becomes a
typed stand-in (`engine.dialect.signatures`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, Literal

from engine.dialect.functions import AGGREGATES, DATE_PARTS, NEGATED, SCALARS
from engine.dialect.literals import (
    NOT_PLAIN,
    arrow_cast,
    datafusion_literal,
    duck_literal,
    plain_cast,
    plain_value,
)
from engine.dialect.oracle import Oracle
from engine.dialect.signatures import Signature, Signatures
from engine.dialect.syntax import joined
from engine.dialect.types import ir_type, is_integer_name, lossless, type_of_json
from engine.errors import UnsupportedSqlError
from operators.errors import PlanError
from operators.expr import Column
from operators.functions import scalar_type
from operators.types import same_type

__all__ = ["Term", "Translator"]

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Term:
    """An expression ready for DataFusion.

    Attributes
    ----------
    text
        DataFusion's SQL.
    type
        DuckDB's type.
    constant
        The same in DuckDB's SQL if it is a constant, else None.
    value
        A constant's value, as `Oracle.evaluate` gives it.
    """

    text: str
    type: str
    constant: str | None = None
    value: Any = None


_COMPARISONS: Mapping[str, str] = MappingProxyType(
    {
        "COMPARE_EQUAL": "=",
        "COMPARE_NOTEQUAL": "<>",
        "COMPARE_LESSTHAN": "<",
        "COMPARE_GREATERTHAN": ">",
        "COMPARE_LESSTHANOREQUALTO": "<=",
        "COMPARE_GREATERTHANOREQUALTO": ">=",
        "COMPARE_DISTINCT_FROM": "IS DISTINCT FROM",
    }
)


_OPPOSITES = {
    "COMPARE_IN": "COMPARE_NOT_IN",
    "COMPARE_NOT_IN": "COMPARE_IN",
    "OPERATOR_IS_NULL": "OPERATOR_IS_NOT_NULL",
    "OPERATOR_IS_NOT_NULL": "OPERATOR_IS_NULL",
}


class Translator:
    """Translates bound expressions whose column ``ck`` stands for ``leaves[k]``."""

    def __init__(self, oracle: Oracle, signatures: Signatures, leaves: Sequence[Term]) -> None:
        self._oracle = oracle
        self._signatures = signatures
        self._leaves = leaves

    def __call__(self, node: Node) -> Term:
        """Translate one bound expression.

        Raises
        ------
        UnsupportedSqlError
            If the IR has no such function, type or kind of expression.
        """
        kind = node["expression_class"]
        translate = _BY_CLASS.get(kind)
        if translate is None:
            name = str(kind).removeprefix("BOUND_").lower()
            raise UnsupportedSqlError(f"{name} expressions are not supported here")
        return translate(self, node)

    def call(self, function: str, args: Sequence[Term], result: str) -> Term:
        """A call of an IR function through its stand-in."""
        ir_type(result)
        name = self._signatures.name(
            Signature("scalar", function, tuple(a.type for a in args), result)
        )
        return Term(f"{name}({', '.join(a.text for a in args)})", result)

    def cast(self, term: Term, target: str, try_cast: bool = False) -> Term:
        """A cast to a DuckDB type, folded if its argument is a constant that can be cast."""
        ir_type(target)
        if term.type == target:
            return term
        if term.constant is not None:
            text = f"{'TRY_CAST' if try_cast else 'CAST'}({term.constant} AS {target})"
            value = plain_cast(term.value, term.type, target)
            if value is not NOT_PLAIN:
                return Term(datafusion_literal(target, value), target, text, value)
            evaluated = self._oracle.evaluate(text)
            if evaluated is not None:
                return Term(datafusion_literal(target, evaluated[1]), target, text, evaluated[1])
        if lossless(term.type, target):
            return Term(arrow_cast(term.text, target), target)
        kind = Signature("try_cast" if try_cast else "cast", "", (term.type,), target)
        return Term(f"{self._signatures.name(kind)}({term.text})", target)

    def aggregate(
        self, node: Node, extra: Sequence[Term] = (), distinct: bool = False
    ) -> tuple[str, tuple[Term, ...], str]:
        """Function name for DataFusion, arguments and result type of a BOUND_AGGREGATE.

        With `distinct` the name says, too, that each value is seen once.
        """
        name = str(node["name"])
        if name not in AGGREGATES:
            raise UnsupportedSqlError(f"the aggregate function {name} is not supported")
        function, result = AGGREGATES[name], type_of_json(node["return_type"])
        ir_type(result)
        args = (*(self(a) for a in node.get("children", ())), *extra)
        if function == "count" and not distinct:
            return "count", args, result
        kind: Literal["aggregate", "distinct"] = "distinct" if distinct else "aggregate"
        signature = Signature(kind, function, tuple(a.type for a in args), result)
        return self._signatures.name(signature), args, result

    def _reference(self, node: Node) -> Term:
        alias = str(node["alias"])
        if not alias[1:].isdecimal():  # an aggregate that was not recognized as one
            raise UnsupportedSqlError(
                f"the function {alias.partition('(')[0]} is not supported here"
            )
        return self._leaves[int(alias[1:])]

    def _constant(self, node: Node) -> Term:
        text = duck_literal(node["value"])
        type = type_of_json(node["value"]["type"])
        plain = plain_value(node["value"])
        if plain is not None or node["value"].get("is_null"):
            return Term(datafusion_literal(type, plain), type, text, plain)
        value = self._oracle.evaluate(text)
        if value is None:
            raise UnsupportedSqlError(f"the constant {text} is not supported")
        return Term(datafusion_literal(type, value[1]), type, text, value[1])

    def _cast(self, node: Node) -> Term:
        return self.cast(
            self(node["child"]), type_of_json(node["return_type"]), bool(node.get("try_cast"))
        )

    def _function(self, node: Node) -> Term:
        name, result = str(node["name"]), type_of_json(node["return_type"])
        children = list(node.get("children", ()))
        if name in _WIDENED and len(children) == 2 and result.startswith("DECIMAL"):
            children = _unwidened(_WIDENED[name], children, result)
        args = [self(c) for c in children]
        if name in ("date_part", "datepart"):
            return self._date_part(node, args, result)
        if name == "-" and len(args) == 1:
            return self.call("negate", args, result)
        if name in ("+",) and len(args) == 1:
            return args[0]
        if name in NEGATED:
            return Term(f"(NOT {self.call(NEGATED[name], args, result).text})", result)
        if name == "log" and len(args) == 1:
            return self.call("log10", args, result)
        if name == "log" and len(args) == 2:
            return self.call("log", args, result)
        if name == "normalized_interval":
            raise UnsupportedSqlError("comparisons of intervals are not supported")
        if name not in SCALARS:
            raise UnsupportedSqlError(f"the function {name} is not supported")
        if name == "divide" and not is_integer_name(result):
            return self.call("divide", args, result)
        return self.call(SCALARS[name], args, result)

    def _date_part(self, node: Node, args: Sequence[Term], result: str) -> Term:
        part = str(node["children"][0].get("value", {}).get("value", "")).lower()
        if part.rstrip("s") in DATE_PARTS:
            part = part.rstrip("s")
        if part not in DATE_PARTS or len(args) != 2:
            raise UnsupportedSqlError(f"date_part({part!r}, …) is not supported")
        return self.call(DATE_PARTS[part], args[1:], result)

    def _comparison(self, node: Node) -> Term:
        left, right = self(node["left"]), self(node["right"])
        if node["type"] == "COMPARE_NOT_DISTINCT_FROM":
            # As a key of joins, DataFusion 55 takes it for = where it orders them.
            return self.call("is_not_distinct_from", [left, right], "BOOLEAN")
        return Term(f"({left.text} {_COMPARISONS[node['type']]} {right.text})", "BOOLEAN")

    def _conjunction(self, node: Node) -> Term:
        word = "AND" if node["type"] == "CONJUNCTION_AND" else "OR"
        return Term(joined(word, [self(c).text for c in node["children"]]), "BOOLEAN")

    def _operator(self, node: Node) -> Term:
        if node["type"] == "OPERATOR_NOT":
            # DataFusion loses track of keys of grouping sets that it simplifies itself.
            below = node["children"][0]
            if (opposite := _OPPOSITES.get(below["type"])) is not None:
                return self._operator({**below, "type": opposite})
            if below["type"] == "OPERATOR_NOT":
                return self(below["children"][0])
        args = [self(c) for c in node["children"]]
        first, rest = args[0].text, ", ".join(a.text for a in args[1:])
        match node["type"]:
            case "OPERATOR_IS_NULL":
                text = f"({first} IS NULL)"
            case "OPERATOR_IS_NOT_NULL":
                text = f"({first} IS NOT NULL)"
            case "OPERATOR_NOT":
                text = f"(NOT {first})"
            case "COMPARE_IN":
                text = f"({first} IN ({rest}))"
            case "COMPARE_NOT_IN":
                text = f"({first} NOT IN ({rest}))"
            case "OPERATOR_COALESCE":
                return self.call("coalesce", args, type_of_json(node["return_type"]))
            case other:
                name = str(other).removeprefix("OPERATOR_").removeprefix("COMPARE_")
                raise UnsupportedSqlError(f"{name.replace('_', ' ')} is not supported")
        return Term(text, "BOOLEAN")

    def _case(self, node: Node) -> Term:
        result = type_of_json(node["return_type"])
        ir_type(result)
        branches = " ".join(
            f"WHEN {self(c['when_expr']).text} THEN {self(c['then_expr']).text}"
            for c in node["case_checks"]
        )
        otherwise = f" ELSE {self(node['else_expr']).text}" if "else_expr" in node else ""
        return Term(f"(CASE {branches}{otherwise} END)", result)


_BY_CLASS: Mapping[str, Callable[[Translator, Node], Term]] = MappingProxyType(
    {
        "BOUND_REF": Translator._reference,
        "BOUND_COLUMN_REF": Translator._reference,
        "BOUND_CONSTANT": Translator._constant,
        "BOUND_CAST": Translator._cast,
        "BOUND_FUNCTION": Translator._function,
        "BOUND_COMPARISON": Translator._comparison,
        "BOUND_CONJUNCTION": Translator._conjunction,
        "BOUND_OPERATOR": Translator._operator,
        "BOUND_CASE": Translator._case,
    }
)


_WIDENED: Mapping[str, str] = MappingProxyType(
    {name: SCALARS[name] for name in ("+", "-", "*", "%", "mod", "add", "subtract", "multiply")}
)


def _unwidened(function: str, operands: list[Node], result: str) -> list[Node]:
    """The operands of decimal arithmetic without the casts to the result's width that DuckDB put
    around them: the operation itself says what its result is, and an operand that was widened first
    would make it wider still.

    A cast that someone wrote looks the same. It stays where it can lose something, or where the
    result would be another type without it.
    """
    bare = [_without_widening(o) for o in operands]
    wanted = ir_type(result)
    for chosen in product(*zip(bare, operands, strict=True)):
        types = [_type_of(o) for o in chosen]
        args = [Column(ir_type(t), i) for i, t in enumerate(types) if t is not None]
        with suppress(PlanError):
            if len(args) == len(chosen) and same_type(scalar_type(function, args), wanted):
                return list(chosen)
    return bare


def _without_widening(node: Node) -> Node:
    """What is cast, where it is a number of which the cast loses nothing."""
    if node["expression_class"] != "BOUND_CAST" or node.get("try_cast"):
        return node
    child = node["child"]
    source = _type_of(child)
    if source is None or not (source.startswith("DECIMAL") or is_integer_name(source)):
        return node
    return child if lossless(source, type_of_json(node["return_type"])) else node


def _type_of(node: Node) -> str | None:
    if "return_type" in node:
        return type_of_json(node["return_type"])
    if node["expression_class"] == "BOUND_CONSTANT":
        return type_of_json(node["value"]["type"])
    return None
