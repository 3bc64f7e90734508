"""IR expressions as DuckDB SQL text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pyarrow as pa
import pyarrow.types as pt

from operators.duckdb.sqltypes import literal, sql_type
from operators.errors import PlanError
from operators.expr import (
    Aggregate,
    Call,
    Case,
    Cast,
    Column,
    Exists,
    Expr,
    FrameBound,
    InList,
    InSubquery,
    Lit,
    ScalarSubquery,
    SortKey,
    Window,
)
from operators.function_types import literal_integer
from operators.rel import Rel
from operators.types import INT32, is_hugeint, is_numeric

__all__ = ["Writer"]

_INFIX = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "integer_divide": "//",
    "modulo": "%",
    "equal": "=",
    "not_equal": "<>",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "is_distinct_from": "IS DISTINCT FROM",
    "is_not_distinct_from": "IS NOT DISTINCT FROM",
    "concat_operator": "||",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "shift_left": "<<",
    "shift_right": ">>",
}
_COMPARISONS = {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"}
# Binding strength, loosest first; anything not listed (calls, casts, columns) binds tightest.
_OR, _AND, _NOT, _COMPARE, _OTHER, _SUM, _PRODUCT, _TIGHT = range(8)
_STRENGTH = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT}
_NAMES = {
    "bitwise_xor": "xor",
    "ends_with": "suffix",
    "day_of_week": "dayofweek",
    "iso_day_of_week": "isodow",
    "day_name": "dayname",
    "month_name": "monthname",
    "day_of_year": "dayofyear",
    "byte_length": "strlen",
}


# These have overloads on the exact integer type, which a typed literal could miss.
_LOOSE_TAIL = frozenset(
    ("substring", "left", "right", "round", "repeat", "lpad", "rpad", "regexp_extract")
)


class Writer:
    """Writes expressions over given columns.

    Parameters
    ----------
    columns
        SQL of each input column, which must bind tightly (a name, or something in parentheses).
    subquery
        Turns a relation into the text of a SELECT, for the subqueries inside expressions.
    """

    def __init__(self, columns: Sequence[str], subquery: Callable[[Rel], str]) -> None:
        self._columns = columns
        self._subquery = subquery

    def write(self, expr: Expr, outer: int = _OR, *, loose: bool = False) -> str:
        """The SQL of `expr`, in parentheses where the `outer` operator binds as tightly or
        tighter.
        """
        text, strength = self._write(expr, loose)
        return f"({text})" if strength < outer else text

    def condition(self, expr: Expr) -> str:
        """The SQL of one conjunct of a WHERE or ON."""
        return self.write(expr, _NOT)

    def argument(self, expr: Expr) -> str:
        """The SQL of something between commas."""
        return self.write(expr)

    def _write(self, expr: Expr, loose: bool) -> tuple[str, int]:
        text, strength = self._plain(expr, loose)
        if isinstance(expr, Call | Case | Window) and _turns_integral(expr.type, expr.children()):
            return f"CAST({text} AS HUGEINT)", _TIGHT
        return text, strength

    def _plain(self, expr: Expr, loose: bool) -> tuple[str, int]:
        match expr:
            case Column(index=i):
                return self._columns[i], _TIGHT
            case Lit():
                return literal(expr, loose=loose), _TIGHT
            case Cast(arg=arg, try_cast=trying):
                name = "TRY_CAST" if trying else "CAST"
                return f"{name}({self.write(arg)} AS {sql_type(expr.type)})", _TIGHT
            case Call():
                return self._call(expr)
            case Case():
                return self._case(expr), _TIGHT
            case InList(arg=arg, options=options):
                free = is_numeric(arg.type)
                listed = ", ".join(self.write(o, loose=free) for o in options)
                return f"{self.write(arg, _OTHER)} IN ({listed})", _COMPARE
            case ScalarSubquery(rel=rel):
                return f"({self._subquery(rel)})", _TIGHT
            case Exists(rel=rel):
                return f"EXISTS ({self._subquery(rel)})", _TIGHT
            case InSubquery(arg=arg, rel=rel):
                return f"{self.write(arg, _OTHER)} IN ({self._subquery(rel)})", _COMPARE
            case Window():
                return self._window(expr), _TIGHT
        raise PlanError(f"DuckDB lowering does not know {type(expr).__name__}")

    def _call(self, call: Call) -> tuple[str, int]:
        name, args = call.function, _exactly_typed(call)
        if name in ("and", "or"):
            word, strength = (" AND ", _AND) if name == "and" else (" OR ", _OR)
            return word.join(self.write(a, strength + 1) for a in args), strength
        if name == "not":
            return f"NOT {self.write(args[0], _COMPARE)}", _NOT
        if name in ("is_null", "is_not_null"):
            word = "IS NULL" if name == "is_null" else "IS NOT NULL"
            return f"{self.write(args[0], _OTHER)} {word}", _COMPARE
        if name == "negate":
            return f"-({self.write(args[0])})", _PRODUCT
        if name in ("like", "ilike"):
            escape = f" ESCAPE {self.write(args[2], _OTHER)}" if len(args) == 3 else ""
            left, right = (self.write(a, _SUM) for a in args[:2])
            return f"{left} {name.upper()} {right}{escape}", _COMPARE
        if name in _INFIX:
            return self._infix(_INFIX[name], name in _COMPARISONS, args)
        if name == "date_diff":
            head = self.write(args[0])
            return f"date_diff({head}, {', '.join(self.write(a) for a in args[1:])})", _TIGHT
        if name == "date_trunc" and pt.is_date(args[1].type):
            # DuckDB declares a timestamp but folds constants to a date.
            return (
                f"CAST(date_trunc({self.write(args[0])}, {self.write(args[1])}) AS TIMESTAMP)",
                _TIGHT,
            )
        if name in _LOOSE_TAIL:
            rest = "".join(f", {self.write(a, loose=True)}" for a in args[1:])
            return f"{name}({self.write(args[0])}{rest})", _TIGHT
        return f"{_NAMES.get(name, name)}({', '.join(self.write(a) for a in args)})", _TIGHT

    def _infix(self, sign: str, comparison: bool, args: Sequence[Expr]) -> tuple[str, int]:
        strength = _STRENGTH.get(
            sign, _COMPARE if sign[0] in "=<>I" and sign not in ("<<", ">>") else _OTHER
        )
        # A number's literal may go untyped where the result does not depend on its type.
        loose = [
            (comparison or sign == "/") and is_numeric(other.type) and not isinstance(other, Lit)
            for other in reversed(args)
        ]
        left = self.write(args[0], strength + (strength in (_COMPARE, _OTHER)), loose=loose[0])
        right = self.write(args[1], strength + 1, loose=loose[1])
        return f"{left} {sign} {right}", strength

    def _case(self, case: Case) -> str:
        whens = " ".join(
            f"WHEN {self.write(condition)} THEN {self.write(value)}"
            for condition, value in case.branches
        )
        last = "" if case.otherwise is None else f" ELSE {self.write(case.otherwise)}"
        return f"CASE {whens}{last} END"

    def aggregate(self, measure: Aggregate) -> str:
        """The SQL of one aggregate."""
        args = ", ".join(self.write(a) for a in measure.args)
        if measure.function == "count" and not measure.args:
            args = "*"
        distinct = "DISTINCT " if measure.distinct else ""
        order = f" ORDER BY {self.order(measure.order)}" if measure.order else ""
        text = f"{measure.function}({distinct}{args}{order})"
        if measure.filter is not None:
            text += f" FILTER (WHERE {self.write(measure.filter)})"
        if _turns_integral(measure.type, measure.args):
            return f"CAST({text} AS HUGEINT)"
        return text

    def _window(self, window: Window) -> str:
        parts = []
        if window.partition_by:
            parts.append("PARTITION BY " + ", ".join(self.write(p) for p in window.partition_by))
        if window.order_by:
            parts.append("ORDER BY " + self.order(window.order_by))
        if window.frame is not None:
            unit, low, high = window.frame
            parts.append(
                f"{unit.upper()} BETWEEN {_bound(low, 'PRECEDING')} AND {_bound(high, 'FOLLOWING')}"
            )
        args = ", ".join(self.write(a) for a in window.args)
        if window.function == "count" and not window.args:
            args = "*"
        distinct = "DISTINCT " if window.distinct else ""
        return f"{window.function}({distinct}{args}) OVER ({' '.join(parts)})"

    def order(self, keys: Sequence[SortKey]) -> str:
        """The terms of an ORDER BY."""
        return ", ".join(self.sort_key(k, self.write(k.expr)) for k in keys)

    @staticmethod
    def sort_key(key: SortKey, text: str) -> str:
        """One ORDER BY term over an expression already written."""
        direction = " DESC" if key.descending else ""
        return f"{text}{direction} NULLS {'FIRST' if key.nulls_first else 'LAST'}"


def _turns_integral(type: pa.DataType, parts: Iterable[Expr]) -> bool:
    """Whether DuckDB would give DECIMAL(38,0) here, which in the IR is HUGEINT and follows
    other rules.
    """
    return is_hugeint(type) and any(pt.is_decimal(p.type) and not is_hugeint(p.type) for p in parts)


def _exactly_typed(call: Call) -> Sequence[Expr]:
    """The arguments, with a type on constants that would else take that of a narrower neighbour.

    In DuckDB a bare integer, and a negated one, is of its neighbour's type if it fits in there:
    ``tinyint * 2`` is a TINYINT, and overflows. In the IR it is an int32, and so is the product.
    """
    if not pt.is_integer(call.type) or call.type.bit_width < 32:
        return call.args
    if not any(pt.is_integer(a.type) and a.type.bit_width < 32 for a in call.args):
        return call.args
    return tuple(
        Cast(INT32, a) if a.type == INT32 and literal_integer(a) is not None else a
        for a in call.args
    )


def _bound(bound: FrameBound, side: str) -> str:
    match bound.kind:
        case "unbounded":
            return f"UNBOUNDED {side}"
        case "current":
            return "CURRENT ROW"
    return f"{bound.offset} {bound.kind.upper()}"
