from __future__ import annotations

import pyarrow as pa

from operators import build
from operators.expr import Call, Column, Lit
from operators.rel import ParquetSource, Rel
from operators.schema import Field, Schema
from operators.shape import shape
from operators.types import BOOL

SCHEMA = Schema((Field("a", pa.int64()), Field("b", pa.int64())))


def over(path: str, value: int, column: int = 0, function: str = "equal") -> Rel:
    table = build.scan(ParquetSource("t", (path,)), SCHEMA)
    left = Column(pa.int64(), column)
    return build.filter(table, Call(BOOL, function, (left, Lit(pa.int64(), value))))


def test_constants_do_not_count_and_everything_else_does() -> None:
    same = shape(over("x.parquet", 1))
    assert shape(over("x.parquet", 2)) == same
    assert shape(over("y.parquet", 1)) != same
    assert shape(over("x.parquet", 1, column=1)) != same
    assert shape(over("x.parquet", 1, function="less")) != same


def test_names_do_not_count() -> None:
    plan = over("x.parquet", 1)
    renamed = build.project(plan, [Column(pa.int64(), 0)], ["z"])
    other = build.project(plan, [Column(pa.int64(), 0)], ["y"])
    assert shape(renamed) == shape(other)
    assert shape(renamed) != shape(plan)


def test_a_plan_that_doubles_at_every_level_is_looked_at_once() -> None:
    plan = over("x.parquet", 1)
    for _ in range(60):  # 2**60 relations if each were visited
        plan = build.set_operation("union", [plan, plan], all=True)
    assert len(shape(plan)) == 24
