"""The exceptions of the data plane, and the root of every room's exception tree.

Messages say which element, transport and address range were concerned and what to do; they never
contain a token or a key.
"""

from __future__ import annotations

__all__ = [
    "AuthError",
    "BoundsError",
    "CapabilityError",
    "CapacityError",
    "DurlError",
    "LibdError",
    "ProtocolError",
    "ScadError",
    "SizeError",
    "StaleRefError",
    "TransportClosedError",
    "TransportError",
    "TransportTimeoutError",
    "UnsupportedError",
]


class ScadError(Exception):
    """Base of every exception that Scad raises on purpose, in any room."""


class LibdError(ScadError):
    """Base of the data plane's exceptions."""


class SizeError(LibdError, ValueError):
    """A text that should be a number of bytes is not one (``12 XB``)."""


class DurlError(LibdError, ValueError):
    """A transport address (durl) cannot be parsed, or lacks or contradicts a setting."""


class TransportError(LibdError):
    """A transport cannot do its work."""


class TransportTimeoutError(TransportError, TimeoutError):
    """A transport was not configured, or its server did not answer, in time."""


class TransportClosedError(TransportError, ConnectionError):
    """The transport was closed, its server is gone, or it was inherited through ``fork``."""


class AuthError(LibdError):
    """The server refused the token, or refuses this user, or is another user's."""


class BoundsError(LibdError, IndexError):
    """An access reaches outside its region or local buffer, ``addr + size`` wrapping around
    included.
    """


class CapabilityError(LibdError, PermissionError):
    """The key does not open this element, or the address belongs to another element."""


class StaleRefError(LibdError):
    """The region was freed, or freed and allocated again, since the reference was made."""


class CapacityError(LibdError, MemoryError):
    """An element, tenant, server or machine has no room for the bytes asked for; nothing was
    reserved.
    """


class UnsupportedError(LibdError):
    """The transport cannot do what was asked (for example ``map`` over TCP)."""


class ProtocolError(TransportError):
    """The other side does not speak this protocol, or another version of it."""
