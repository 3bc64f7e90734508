"""libd: the data plane. Transports to memory elements, the memory server, addresses and refs.

A compute element opens transports by name on a `LibdAction`; a transport reads, writes and maps the
bytes of one memory element, whether they are in this process (``rdma_local``), on this host
(``rdma_shm``) or elsewhere (``rdma_uverbs``, ``rdma_tcp``). What is *not* here: what the bytes mean
(`remote_array`, `remote_frame`), and who may run where (`openwhisk`).

Names are imported when they are first used: the memory server and the command-line tools start in
milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libd._core import Buffer, Completion, Transport
    from libd.action import LibdAction
    from libd.cache import ArenaCache
    from libd.control import ElementGrant, ServerControl, TenantGrant
    from libd.durl import Durl
    from libd.errors import (
        AuthError,
        BoundsError,
        CapabilityError,
        CapacityError,
        DurlError,
        LibdError,
        ProtocolError,
        ScadError,
        SizeError,
        StaleRefError,
        TransportClosedError,
        TransportError,
        TransportTimeoutError,
        UnsupportedError,
    )
    from libd.ref import Ref, join_address, split_address
    from libd.server import MemoryServer
    from libd.server_process import MemoryServerProcess
    from libd.statistics import ElementStats, ServerStats, Snapshot, TenantStats
    from libd.transport import register_transport, transport_types
    from libd.units import format_size, parse_size

_HOME = {
    "_core": ("Buffer", "Completion", "Transport"),
    "action": ("LibdAction",),
    "cache": ("ArenaCache",),
    "control": ("ElementGrant", "ServerControl", "TenantGrant"),
    "durl": ("Durl",),
    "errors": (
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
    ),
    "ref": ("Ref", "join_address", "split_address"),
    "server": ("MemoryServer",),
    "server_process": ("MemoryServerProcess",),
    "statistics": ("ElementStats", "ServerStats", "Snapshot", "TenantStats"),
    "transport": ("register_transport", "transport_types"),
    "units": ("format_size", "parse_size"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "ArenaCache",
    "AuthError",
    "BoundsError",
    "Buffer",
    "CapabilityError",
    "CapacityError",
    "Completion",
    "Durl",
    "DurlError",
    "ElementGrant",
    "ElementStats",
    "LibdAction",
    "LibdError",
    "MemoryServer",
    "MemoryServerProcess",
    "ProtocolError",
    "Ref",
    "ScadError",
    "ServerControl",
    "ServerStats",
    "SizeError",
    "Snapshot",
    "StaleRefError",
    "TenantGrant",
    "TenantStats",
    "Transport",
    "TransportClosedError",
    "TransportError",
    "TransportTimeoutError",
    "UnsupportedError",
    "format_size",
    "join_address",
    "parse_size",
    "register_transport",
    "split_address",
    "transport_types",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'libd' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"libd.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
