"""What generated elements import: opening what they read, running their SQL, writing what comes
out.

A thin layer over `remote_frame` and `operators.duckdb` that works in any element, also in one that
a person wrote. It must stay cheap to import: no planner is loaded in a worker.
"""

from engine.element.statements import reduced, run, run_polars
from engine.element.tables import part, read_all, read_own, read_part, resident, table
from engine.element.writing import exchange, exchange_ranges, write

__all__ = [
    "exchange",
    "exchange_ranges",
    "part",
    "read_all",
    "read_own",
    "read_part",
    "reduced",
    "resident",
    "run",
    "run_polars",
    "table",
    "write",
]
