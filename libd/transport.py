"""The registry of transports: how a durl becomes a connected `Transport`."""

from __future__ import annotations

from collections.abc import Callable

from libd import _core
from libd._core import Endpoint, Transport
from libd.cache import ArenaCache
from libd.choice import choose
from libd.durl import Durl
from libd.errors import (
    AuthError,
    CapabilityError,
    DurlError,
    LibdError,
    StaleRefError,
    TransportClosedError,
    TransportTimeoutError,
    UnsupportedError,
)
from libd.units import parse_size

__all__ = [
    "CONNECT_TIMEOUT",
    "Factory",
    "endpoint",
    "open_transport",
    "register_transport",
    "transport_types",
]

CONNECT_TIMEOUT = 5.0
"""Seconds to connect, where the durl does not say otherwise."""

STALL = 60.0
"""Seconds without a byte after which a server that owes an answer is given up, by default."""

STRIPES = 1
"""Connections that a large transfer is cut up over, where the durl does not say otherwise."""

MAX_STRIPES = 16

_PATIENCE = frozenset({"timeout", "stall", "stripes"})
_HERE = frozenset({"*", "localhost"})

Factory = Callable[[Durl, ArenaCache], Transport]
"""Makes a connected transport; raises `DurlError` if the durl lacks a setting."""


def setting(durl: Durl, key: str) -> str:
    """Return a setting that `durl` must have."""
    text = durl.config.get(key)
    if text is None:
        raise DurlError(f"durl {durl.name!r} of type {durl.type!r} lacks the setting {key!r}")
    return text


def parse_url(url: str, whose: Durl | str) -> tuple[str, str, str]:
    """Split ``tcp://HOST:PORT`` or ``unix://@NAME`` into host, port and name."""
    if url.startswith("unix://@") and len(url) > 8:
        return "", "", url[8:]
    scheme, _, rest = url.partition("://")
    host, colon, port = rest.rpartition(":")
    if scheme == "tcp" and colon and port.isdecimal() and int(port) < 65536:
        return host.removeprefix("[").removesuffix("]"), port, ""
    what = f"durl {whose.name!r}" if isinstance(whose, Durl) else whose
    raise DurlError(f"{what}: {url!r} is neither tcp://HOST:PORT nor unix://@NAME")


def number(durl: Durl, key: str) -> int:
    """Return a setting that is a whole number."""
    text = setting(durl, key)
    if not text.isdecimal():
        raise DurlError(f"durl {durl.name!r}: {key} {text!r} is not a number")
    return int(text)


def _patience(durl: Durl) -> tuple[float, float, int]:
    """The settings that have a default: seconds to connect and to stall, and stripes."""
    config = durl.config
    try:
        timeout = float(config.get("timeout", CONNECT_TIMEOUT))
        stall = float(config.get("stall", STALL))
    except ValueError:
        raise DurlError(f"durl {durl.name!r}: timeout or stall is malformed") from None
    if not (0 < timeout < 1e6 and 0 < stall < 1e9):
        raise DurlError(f"durl {durl.name!r}: timeout and stall must be positive seconds")
    stripes = number(durl, "stripes") if "stripes" in config else STRIPES
    if not 1 <= stripes <= MAX_STRIPES:
        raise DurlError(f"durl {durl.name!r}: stripes must be between 1 and {MAX_STRIPES}")
    return timeout, stall, stripes


def endpoint(durl: Durl, scheme: str) -> Endpoint:
    """Return where `durl` leads and what it shows there.

    Short for who has an address and a grant alone: it is a tenth of what attaching an arena takes.
    """
    config = durl.config
    host, port, path = parse_url(setting(durl, "url"), durl)
    if (scheme == "unix") != bool(path):
        raise DurlError(
            f"durl {durl.name!r}: a transport of type {durl.type!r} needs a {scheme}:// url"
        )
    timeout, stall, stripes = CONNECT_TIMEOUT, STALL, STRIPES
    if not _PATIENCE.isdisjoint(config):
        timeout, stall, stripes = _patience(durl)
    granted = "eid" in config
    try:
        key = bytes.fromhex(config.get("key", ""))
    except ValueError:
        raise DurlError(f"durl {durl.name!r}: key is malformed") from None
    return Endpoint(
        host="127.0.0.1" if host in _HERE else host,
        port=port,
        path=path,
        kind=_core.KIND_ELEMENT if granted else _core.KIND_DEFAULT,
        token=config.get("token", ""),
        tenant=number(durl, "tenant") if granted else 0,
        eid=number(durl, "eid") if granted else 0,
        key=key,
        timeout=timeout,
        stall=stall,
        stripes=stripes,
    )


def _local(durl: Durl, cache: ArenaCache) -> Transport:
    elastic = durl.config.get("elastic", "false")
    if elastic not in ("true", "false"):
        raise DurlError(f"durl {durl.name!r}: elastic is true or false, not {elastic!r}")
    size = parse_size(setting(durl, "size"))
    return _core.open_local(durl.name, size, elastic == "true", durl.config.get("element", ""))


def _tcp(durl: Durl, cache: ArenaCache) -> Transport:
    return _core.open_tcp(durl.name, endpoint(durl, "tcp"), durl.config.get("element", ""))


def _shm(durl: Durl, cache: ArenaCache) -> Transport:
    return _core.open_shm(durl.name, endpoint(durl, "unix"), cache, durl.config.get("element", ""))


def _auto(durl: Durl, cache: ArenaCache) -> Transport:
    open_ones = [c.durl for c in choose(durl) if c.durl is not None]
    for best in open_ones[:-1]:
        try:
            return open_transport(best, cache)
        except (TransportClosedError, TransportTimeoutError, UnsupportedError):
            continue  # that way is closed after all; the last one says why
        except (AuthError, CapabilityError, StaleRefError):
            raise  # so it would be by any other way
        except LibdError:
            # TCP does without what a device lacks, memory that may be locked for example.
            if best.type != "rdma_uverbs":
                raise
    return open_transport(open_ones[-1], cache)


def _uverbs(durl: Durl, cache: ArenaCache) -> Transport:
    device, element = durl.config.get("device"), durl.config.get("element", "")
    return _core.open_verbs(durl.name, endpoint(durl, "tcp"), device, element)


_factories: dict[str, Factory] = {
    "rdma_local": _local,
    "rdma_tcp": _tcp,
    "rdma_shm": _shm,
    "rdma_auto": _auto,
    "rdma_uverbs": _uverbs,
}


def register_transport(type: str, factory: Factory) -> None:
    """Make durls of `type` open with `factory`.

    Raises
    ------
    DurlError
        if the type is taken.
    """
    if type in _factories:
        raise DurlError(f"transport type {type!r} is registered already")
    _factories[type] = factory


def transport_types() -> list[str]:
    """Return the types that can be opened."""
    return sorted(_factories)


def open_transport(durl: Durl, cache: ArenaCache) -> Transport:
    """Open the transport that `durl` names."""
    factory = _factories.get(durl.type)
    if factory is None:
        raise DurlError(
            f"durl {durl.name!r}: no transport of type {durl.type!r} "
            f"(there are {', '.join(transport_types())})"
        )
    return factory(durl, cache)
