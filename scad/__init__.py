"""Data analytics on disaggregated memory.

>>> import scad
>>> with scad.Session() as s:                                       # doctest: +SKIP
...     s.read_parquet("sales.parquet")
...     s.sql("select store, sum(amount) from sales group by store").collect()

This package is a face: names are taken from the rooms below when they are first used, so that
importing it costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scad.version import __version__

if TYPE_CHECKING:
    from engine import Session
    from libd.errors import ScadError
    from remote_frame import RemoteFrame, col, lit

__all__ = ["RemoteFrame", "ScadError", "Session", "__version__", "col", "lit"]

_HOME = {
    "RemoteFrame": "remote_frame",
    "ScadError": "libd.errors",
    "Session": "engine",
    "col": "remote_frame",
    "lit": "remote_frame",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'scad' has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
