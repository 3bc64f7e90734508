"""The plan IR, its types, statistics and cost; lowering to DuckDB; the partition kernel.

Plans are built with `operators.build`, read with `operators.printer`, stored with
`operators.codec`, taken apart with `operators.rewrite`, run with `operators.duckdb`. Nothing here
knows where data lives or what is scheduled.
"""
