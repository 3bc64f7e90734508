"""How many rows a relation has: guesses from the files' statistics, never part of an answer."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from engine.stages.model import PartSource
from operators.expr import Call, Expr, InList
from operators.rel import (
    Aggregation,
    Filter,
    InputSource,
    Join,
    Limit,
    ParquetSource,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Values,
)
from operators.schema import Schema

__all__ = ["Estimates"]

_SELECTIVITY = {"equal": 0.05, "not_equal": 0.9, "is_null": 0.05, "is_not_null": 0.95, "like": 0.1}


class Estimates:
    """Estimates for the relations of one query; the `Estimator` of `engine.stages`."""

    def __init__(self) -> None:
        self._noted: dict[str, float] = {}
        self._files: dict[str, int] = {}
        self._known: dict[int, tuple[Rel, float]] = {}

    def note(self, name: str, rows: float, like: Rel) -> None:
        """Remember how many rows `InputSource(name)` carries."""
        self._noted[name] = rows

    def width(self, schema: Schema) -> float:
        """Bytes of an average row as it stands in a memory element."""
        return sum(_width(f.type) for f in schema)

    def rows(self, rel: Rel) -> float:
        """Rows of `rel`."""
        known = self._known.get(id(rel))
        if known is None:
            known = self._known[id(rel)] = (rel, max(self._rows(rel), 1.0))
        return known[1]

    def _rows(self, rel: Rel) -> float:
        match rel:
            case Scan():
                return self._table(rel) * _selectivity(rel.predicate)
            case Values(rows=rows):
                return float(len(rows))
            case Filter():
                return self.rows(rel.input) * _selectivity(rel.predicate)
            case Project() | Sort():
                return self.rows(rel.input)
            case Limit(count=count):
                rows = self.rows(rel.input)
                return rows if count is None else min(rows, float(count))
            case Aggregation(keys=()):
                return 1.0
            case Aggregation():
                return self.rows(rel.input) ** 0.75
            case Join():
                return self._join(rel)
            case SetOperation(operation="union"):
                return sum(self.rows(o) for o in rel.operands)
        return max((self.rows(i) for i in rel.inputs()), default=1.0)

    def _join(self, rel: Join) -> float:
        left, right = self.rows(rel.left), self.rows(rel.right)
        if rel.kind in ("semi", "anti", "mark"):
            return left if rel.kind == "mark" else left / 2
        if not rel.left_keys:
            return left * right * _selectivity(rel.condition)
        matched = max(left, right) * _selectivity(rel.condition)
        return max(matched, left if rel.kind in ("left", "full") else 1.0)

    def _table(self, rel: Scan) -> float:
        match rel.source:
            case InputSource(name=name):
                return self._noted.get(name, 1000.0)
            case ParquetSource(paths=paths) | PartSource(paths=paths):
                return float(sum(self._file(p) for p in paths))
        return 1000.0

    def _file(self, path: str) -> int:
        if path not in self._files:
            self._files[path] = pq.read_metadata(path).num_rows
        return self._files[path]


def _selectivity(predicate: Expr | None) -> float:
    match predicate:
        case None:
            return 1.0
        case Call(function="and", args=args):
            return _product(map(_selectivity, args))
        case Call(function="or", args=args):
            return min(1.0, sum(map(_selectivity, args)))
        case Call(function=function):
            return _SELECTIVITY.get(function, 0.4)
        case InList(options=options):
            return min(0.5, 0.05 * len(options))
    return 0.4


def _product(factors: Iterable[float]) -> float:
    result = 1.0
    for factor in factors:
        result *= factor
    return result


def _width(type: pa.DataType) -> float:
    if pt.is_boolean(type):
        return 1.0
    return type.bit_width / 8 if pt.is_primitive(type) or pt.is_decimal(type) else 24.0
