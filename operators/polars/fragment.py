"""What lowering to Polars produces."""

from __future__ import annotations

from dataclasses import dataclass

from operators.fragment import FragmentInput
from operators.schema import Schema

__all__ = ["FUNCTION", "PolarsFragment"]

FUNCTION = "query"
"""What the function is called that a fragment's text defines."""


@dataclass(frozen=True, slots=True)
class PolarsFragment:
    """A function over lazy frames, what it reads, and the schema of its answer.

    Attributes
    ----------
    text
        Python: ``def query(…):`` with a parameter for each input, in order. It needs the names of
        `operators.polars.NAMES`.
    inputs
        Frames that the function is given, with the columns that it uses.
    """

    text: str
    inputs: tuple[FragmentInput, ...]
    schema: Schema
