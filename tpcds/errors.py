"""Exceptions of the TPC-DS application."""

from __future__ import annotations

from libd.errors import ScadError

__all__ = ["DataError", "OracleError", "PeerError", "QueryListError", "TpcdsError"]


class TpcdsError(ScadError):
    """Base of everything that this room raises on purpose."""


class DataError(TpcdsError):
    """A data set cannot be generated, is damaged, or does not hold the 24 tables."""


class QueryListError(TpcdsError):
    """A list of query numbers that cannot be understood."""


class OracleError(TpcdsError):
    """DuckDB could not answer a query of the comparison, or its process ended."""


class PeerError(TpcdsError):
    """There is no such peer, it is not installed, or its process could not be started or ended."""
