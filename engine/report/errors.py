"""What can go wrong when a report is made."""

from __future__ import annotations

from engine.errors import EngineError

__all__ = ["MissingLibraryError", "ReportError", "missing_library"]


class ReportError(EngineError):
    """A report cannot be made; the message says why."""


class MissingLibraryError(ReportError):
    """A library that only reports need is not installed; the message names the extra."""


def missing_library(name: str) -> MissingLibraryError:
    """The error for a library that cannot be imported."""
    return MissingLibraryError(
        f"reports need {name}, which is not installed: pip install 'scad[report]'"
    )
