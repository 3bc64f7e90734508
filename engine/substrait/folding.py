"""What stand-ins do when DataFusion calls them: DuckDB computes.

DataFusion calls a stand-in when all its arguments have become literals, and to see what an
expression makes of NULL or of an empty aggregate before it turns a subquery into a join.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from engine.dialect.oracle import Oracle
from engine.dialect.signatures import Signature
from engine.dialect.types import datafusion_type, ir_type
from engine.errors import PlanningError
from operators.duckdb.expressions import Writer
from operators.expr import Call, Cast, Expr, Lit
from operators.rel import Rel

__all__ = ["folder"]


def folder(signature: Signature, oracle: Oracle) -> Callable[..., pa.Array]:
    """The implementation of a scalar stand-in.

    It raises `PlanningError` where DuckDB raises (an overflow, a text that is not a number):
    DataFusion then leaves the call in the plan, where it raises if it is ever reached.
    """
    result, types = ir_type(signature.result), [ir_type(t) for t in signature.arguments]
    wanted = datafusion_type(signature.result)

    def value(row: tuple[Any, ...]) -> Any:
        args = tuple(Lit(t, v) for t, v in zip(types, row, strict=True))
        expr: Expr
        if signature.kind == "scalar":
            expr = Call(result, signature.function, args)
        else:
            expr = Cast(result, args[0], try_cast=signature.kind == "try_cast")
        found = oracle.evaluate(f"CAST({_WRITER.write(expr)} AS {signature.result})")
        if found is None:
            raise PlanningError("DuckDB raises here: the call stays as it is")
        return found[1]

    def fold(*columns: pa.Array) -> pa.Array:
        rows = zip(*(c.to_pylist() for c in columns), strict=True)
        return pa.array([value(row) for row in rows], wanted)

    return fold


def _no_subquery(rel: Rel) -> str:
    raise PlanningError("a literal holds no subquery")


_WRITER = Writer((), _no_subquery)
