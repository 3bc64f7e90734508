"""Polars as a second kernel: `lower` writes a plan as a function of lazy frames."""

from operators.polars.fragment import PolarsFragment
from operators.polars.lower import lower
from operators.polars.types import NAMES

__all__ = ["NAMES", "PolarsFragment", "lower"]
