"""The engine: SQL and data frames compiled to applications on disaggregated memory.

`Session` is imported on first use, because workers import `engine.element` and must not load a
planner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.session import Run, Session

__all__ = ["Run", "Session"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from engine import session

        return getattr(session, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
