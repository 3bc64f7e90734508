"""DataFusion as a planner: SQL of the dialect in, an optimized plan as Substrait out. It never
reads data.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa

from engine.dialect.oracle import Oracle, quote
from engine.dialect.signatures import Signatures
from engine.dialect.types import datafusion_type, duck_type
from engine.errors import NestingError, PlanningError, UnsupportedSqlError
from engine.substrait.folding import folder
from operators.schema import Schema

__all__ = ["Planner"]

_UNSUPPORTED_MARKS = (
    ("OuterReferenceColumn", "this correlated subquery"),
    ("outer_ref", "this correlated subquery"),
    ("Correlated", "this correlated subquery"),
    ("correlated", "this correlated subquery"),
    ("RecursiveQuery", "a recursive CTE"),
    ("Physical plan does not support", "this subquery"),
)

# Rules that look at every node of a plan for what the dialect refuses (LATERAL, nested types), what
# is switched off, and what this engine's own optimizer does.
_IDLE_RULES = (
    "decorrelate_lateral_join",
    "extract_leaf_expressions",
    "push_down_leaf_projections",
    "filter_null_join_keys",
    "rewrite_set_comparison",
)


class Planner:
    """One DataFusion context with empty tables of the right schemas. Importing DataFusion costs a
    quarter of a second and 70 MB, so that it happens on first use, and only in the client's
    process. Safe to share between threads.

    Parameters
    ----------
    push_filters
        Whether DataFusion moves filters towards the tables. DataFusion 55 does so with one that it
        has found to be false, past an aggregate without groups, which has a row nevertheless.
    """

    def __init__(
        self, signatures: Signatures, oracle: Oracle, *, push_filters: bool = True
    ) -> None:
        from datafusion import SessionConfig, SessionContext

        config = SessionConfig(
            {
                # A third pass changes none of the 99 plans of TPC-DS.
                "datafusion.optimizer.max_passes": "2",
                # 50 is less than a sum of 50 terms needs. With more than this, subqueries in
                # subqueries overflow the planner's stack, which ends the process.
                "datafusion.sql_parser.recursion_limit": "250",
                "datafusion.sql_parser.map_string_types_to_utf8view": "false",
                "datafusion.sql_parser.parse_float_as_decimal": "true",
                "datafusion.sql_parser.enable_ident_normalization": "false",
            }
        ).with_target_partitions(1)
        self._context = SessionContext(config)
        for rule in _IDLE_RULES if push_filters else (*_IDLE_RULES, "push_down_filter"):
            self._context.remove_optimizer_rule(rule)
        self._signatures = signatures
        self._oracle = oracle
        self._registered = 0
        self._tables: dict[str, Schema] = {}
        self._lock = threading.Lock()

    def plan(self, text: str, tables: Mapping[str, Schema]) -> bytes:
        """Plan and optimize a query.

        Parameters
        ----------
        text
            SQL as `engine.dialect` writes it.
        tables
            What it reads, by name: only the columns that matter to it.

        Returns
        -------
        bytes
            A serialized ``substrait.Plan``.

        Raises
        ------
        UnsupportedSqlError
            If DataFusion cannot plan the query.
        """
        from datafusion.substrait import Producer

        with self._lock:
            self._register_stand_ins()
            for name, schema in tables.items():
                self._define_table(name, schema)
            try:
                plan = self._context.sql(text).optimized_logical_plan()
                data: bytes = Producer.to_substrait_plan(plan, self._context).encode()
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise
                raise _translated(error) from error
        return data

    def _define_table(self, name: str, schema: Schema) -> None:
        """Make an empty table of this name and schema."""
        if self._tables.get(name) == schema:
            return
        if name in self._tables:
            self._context.deregister_table(quote(name))
        arrow = pa.schema([(f.name, datafusion_type(duck_type(f.type))) for f in schema])
        empty = pa.RecordBatch.from_arrays([_empty(f.type) for f in arrow], schema=arrow)
        self._context.register_record_batches(quote(name), [[empty]])
        self._tables[name] = schema

    def _register_stand_ins(self) -> None:
        from datafusion import udaf, udf

        for name, signature in self._signatures.since(self._registered):
            arguments = [datafusion_type(t) for t in signature.arguments]
            result = datafusion_type(signature.result)
            if signature.kind in ("aggregate", "distinct"):
                function = udaf(_accumulator, arguments, result, [result], "immutable", name)
                self._context.register_udaf(function)
            else:
                function = udf(
                    folder(signature, self._oracle), arguments, result, "immutable", name
                )
                self._context.register_udf(function)
            self._registered += 1


@lru_cache(maxsize=512)
def _empty(type: pa.DataType) -> pa.Array:
    return pa.array([], type)


def _accumulator() -> Any:
    from datafusion import Accumulator

    class NoAccumulator(Accumulator):  # type: ignore[misc]
        """An aggregate that is never computed."""

        def state(self) -> list[pa.Scalar]:
            raise PlanningError("the planner does not compute")

        update = merge = evaluate = state

    return NoAccumulator()


def _translated(error: BaseException) -> Exception:
    text = " ".join(str(error).split())
    if "RecursionLimitExceeded" in text:
        return NestingError("the query nests too deeply")
    for mark, what in _UNSUPPORTED_MARKS:
        if mark in text:
            return UnsupportedSqlError(f"{what} is not supported")
    return UnsupportedSqlError(f"the query cannot be planned: {text[:300]}")
