"""DuckDB's function names and what they are called in the IR. What is not listed is refused by
name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["AGGREGATES", "DATE_PARTS", "NEGATED", "SCALARS", "WINDOWS"]

SCALARS: Mapping[str, str] = MappingProxyType(
    {
        "+": "add",
        "add": "add",
        "-": "subtract",
        "subtract": "subtract",
        "*": "multiply",
        "multiply": "multiply",
        "/": "divide",
        "//": "integer_divide",
        "divide": "integer_divide",
        "%": "modulo",
        "mod": "modulo",
        "abs": "abs",
        "@": "abs",
        "round": "round",
        "ceil": "ceil",
        "ceiling": "ceil",
        "floor": "floor",
        "trunc": "trunc",
        "sign": "sign",
        "sqrt": "sqrt",
        "exp": "exp",
        "ln": "ln",
        "log10": "log10",
        "pow": "power",
        "power": "power",
        "^": "power",
        "**": "power",
        "greatest": "greatest",
        "least": "least",
        "~~": "like",
        "like_escape": "like",
        "~~*": "ilike",
        "ilike_escape": "ilike",
        "starts_with": "starts_with",
        "prefix": "starts_with",
        "^@": "starts_with",
        "ends_with": "ends_with",
        "suffix": "ends_with",
        "contains": "contains",
        "regexp_matches": "regexp_matches",
        "upper": "upper",
        "ucase": "upper",
        "lower": "lower",
        "lcase": "lower",
        "trim": "trim",
        "ltrim": "ltrim",
        "rtrim": "rtrim",
        "replace": "replace",
        "length": "length",
        "len": "length",
        "char_length": "length",
        "character_length": "length",
        "strpos": "strpos",
        "instr": "strpos",
        "position": "strpos",
        "substring": "substring",
        "substr": "substring",
        "left": "left",
        "right": "right",
        "concat": "concat",
        "||": "concat_operator",
        "&": "bitwise_and",
        "|": "bitwise_or",
        "xor": "bitwise_xor",
        "<<": "shift_left",
        ">>": "shift_right",
        "year": "year",
        "quarter": "quarter",
        "month": "month",
        "week": "week",
        "weekofyear": "week",
        "day": "day",
        "dayofmonth": "day",
        "dayofweek": "day_of_week",
        "weekday": "day_of_week",
        "dayofyear": "day_of_year",
        "hour": "hour",
        "minute": "minute",
        "second": "second",
        "date_trunc": "date_trunc",
        "datetrunc": "date_trunc",
        "date_diff": "date_diff",
        "datediff": "date_diff",
    }
)

NEGATED: Mapping[str, str] = MappingProxyType(
    {
        "!~~": "like",
        "not_like_escape": "like",
        "!~~*": "ilike",
        "not_ilike_escape": "ilike",
    }
)
"""Functions that are another one's negation."""

DATE_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "year": "year",
        "quarter": "quarter",
        "month": "month",
        "week": "week",
        "day": "day",
        "dow": "day_of_week",
        "dayofweek": "day_of_week",
        "doy": "day_of_year",
        "dayofyear": "day_of_year",
        "hour": "hour",
        "minute": "minute",
        "second": "second",
    }
)
"""Parts that ``date_part`` and EXTRACT may name."""

AGGREGATES: Mapping[str, str] = MappingProxyType(
    {
        "count": "count",
        "count_star": "count",
        "sum": "sum",
        "avg": "avg",
        "mean": "avg",
        "min": "min",
        "max": "max",
        "first": "first",
        "any_value": "any_value",
        "stddev": "stddev_samp",
        "stddev_samp": "stddev_samp",
        "stddev_pop": "stddev_pop",
        "variance": "var_samp",
        "var_samp": "var_samp",
        "var_pop": "var_pop",
        "corr": "corr",
        "covar_samp": "covar_samp",
        "covar_pop": "covar_pop",
        "median": "median",
        "bool_and": "bool_and",
        "bool_or": "bool_or",
        "approx_count_distinct": "approx_count_distinct",
        "string_agg": "string_agg",
        "listagg": "string_agg",
        "group_concat": "string_agg",
    }
)

WINDOWS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "row_number": ("row_number", "BIGINT"),
        "rank": ("rank", "BIGINT"),
        "dense_rank": ("dense_rank", "BIGINT"),
        "percent_rank": ("percent_rank", "DOUBLE"),
        "cume_dist": ("cume_dist", "DOUBLE"),
        "ntile": ("ntile", "BIGINT"),
        "lag": ("lag", ""),
        "lead": ("lead", ""),
        "first_value": ("first_value", ""),
        "last_value": ("last_value", ""),
        "nth_value": ("nth_value", ""),
    }
)
"""Window functions: the IR's name and the result type (empty: that of the first argument)."""
