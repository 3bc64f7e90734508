"""Seeing a query: what was expected of each stage and what it did, as text, JSON, or pages with
pictures.

`profile` makes the figures from a plan and an activation's record; `format_profile` and `show` are
for the terminal; `ReportWriter` writes pages (extra ``report``: grandalf lays out the DAG,
matplotlib draws the timeline, jinja2 fills the page).
"""

from __future__ import annotations

from engine.report.errors import MissingLibraryError, ReportError
from engine.report.pages import ReportWriter, check_libraries
from engine.report.profile import QueryProfile, profile, q_error
from engine.report.text import format_profile, show

__all__ = [
    "MissingLibraryError",
    "QueryProfile",
    "ReportError",
    "ReportWriter",
    "check_libraries",
    "format_profile",
    "profile",
    "q_error",
    "show",
]
