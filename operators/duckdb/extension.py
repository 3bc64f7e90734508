"""The extension of DuckDB that scans Arrow data where it lies (``csrc/scan.h``).

It is a Python module too, in one file: a shared object is there once in a process, whoever loads
it, so the table function knows the tables that were made here. The file is called as DuckDB wants
it. A link of that name, made for each connection, would stay when the process is killed.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from operators.duckdb.sqltypes import quoted_string

__all__ = ["ScanTable", "load"]

_NAME = "operators.duckdb._scan"
_PATH = Path(__file__).with_name("_scan.duckdb_extension")

if TYPE_CHECKING:
    from operators.duckdb._scan import ScanTable
else:
    # Python's own search does not know this ending.
    _spec = importlib.util.spec_from_file_location(
        _NAME, _PATH, loader=ExtensionFileLoader(_NAME, str(_PATH))
    )
    _scan = sys.modules[_NAME] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_scan)
    ScanTable = _scan.ScanTable


def load(connection: duckdb.DuckDBPyConnection) -> bool:
    """Give a connection the table function ``scad_scan``; whether the connection allows it."""
    try:
        connection.execute(f"LOAD {quoted_string(str(_PATH))}")
    except duckdb.Error:
        return False
    return True
