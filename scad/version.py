"""The version of this distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("scad")
except PackageNotFoundError:  # a source tree that nobody installed
    __version__ = "0.0.0+source"
