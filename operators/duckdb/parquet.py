"""Parquet files in DuckDB's SQL."""

from __future__ import annotations

from operators.duckdb.sqltypes import identifier, quoted_string, sql_type
from operators.parquet_parts import parquet_part
from operators.rel import ParquetSource

__all__ = ["parquet_text"]


def parquet_text(source: ParquetSource) -> str:
    """A SELECT over the files, or over this part's rows of them."""
    hive = _hive(source)
    if source.part is None:
        files = ", ".join(quoted_string(p) for p in source.paths)
        return f"SELECT * FROM read_parquet([{files}]{hive})"
    pieces = parquet_part(source.paths, *source.part)
    if not pieces:
        return f"SELECT * FROM read_parquet({quoted_string(source.paths[0])}{hive}) WHERE FALSE"
    whole = ", ".join(quoted_string(p.path) for p in pieces if p.whole)
    texts = [f"SELECT * FROM read_parquet([{whole}]{hive})"] if whole else []
    for piece in pieces:
        if not piece.whole:
            last = piece.first + piece.rows - 1
            texts.append(
                "SELECT * EXCLUDE (file_row_number) "
                f"FROM read_parquet({quoted_string(piece.path)}{hive}, file_row_number = true)"
                f" WHERE file_row_number BETWEEN {piece.first} AND {last}"
            )
    return " UNION ALL ".join(texts)


def _hive(source: ParquetSource) -> str:
    """The options that make columns of the files' paths, of exactly the types that were planned."""
    if not source.hive:
        return ", hive_partitioning = false"
    types = ", ".join(f"{identifier(n)}: {sql_type(t)}" for n, t in source.hive)
    return f", hive_partitioning = true, hive_types = {{{types}}}"
