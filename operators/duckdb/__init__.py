"""DuckDB as the kernel of a fragment: `lower` makes a statement from a plan, `Kernel` runs it."""

from operators.duckdb.fragment import Fragment, FragmentInput
from operators.duckdb.kernel import Kernel
from operators.duckdb.lower import lower
from operators.duckdb.query import query

__all__ = ["Fragment", "FragmentInput", "Kernel", "lower", "query"]
