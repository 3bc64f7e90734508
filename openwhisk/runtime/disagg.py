"""The module ``disagg``, which elements import: ``from disagg import *``.

It exists only inside a running element (`install` puts it into `sys.modules`), so that elements
written for the prototype run unchanged and nothing of that name has to be installed. It offers
libd's Python interface, loaded on first use.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

NAME = "disagg"

EXPORTS = (
    "AuthError",
    "BoundsError",
    "Buffer",
    "CapabilityError",
    "CapacityError",
    "Durl",
    "DurlError",
    "LibdAction",
    "LibdError",
    "Ref",
    "StaleRefError",
    "Transport",
    "TransportClosedError",
    "TransportError",
    "TransportTimeoutError",
    "UnsupportedError",
    "format_size",
    "parse_size",
)


class _Disagg(ModuleType):
    """A module whose names are libd's."""

    def __getattr__(self, name: str) -> Any:
        if name not in EXPORTS:
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
        import libd

        value = getattr(libd, name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted(EXPORTS)


def install() -> ModuleType:
    """Make ``import disagg`` work in this process; doing it again changes nothing."""
    found = sys.modules.get(NAME)
    if isinstance(found, _Disagg):
        return found
    module = _Disagg(NAME, "libd's Python interface, for elements.")
    module.__dict__["__all__"] = list(EXPORTS)
    sys.modules[NAME] = module
    return module
