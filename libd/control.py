"""`ServerControl`: the administrator's side of a memory server. Tenants, elements, statistics."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Self

from libd import _core
from libd.durl import Durl
from libd.errors import DurlError, LibdError, TransportError
from libd.transport import CONNECT_TIMEOUT, parse_url
from libd.units import parse_size

__all__ = [
    "ElementGrant",
    "ElementStats",
    "ServerControl",
    "ServerStats",
    "TenantGrant",
    "TenantStats",
]

# Numbers of the requests, and the layouts of replies: csrc/wire.h.
_TENANT_CREATE, _TENANT_DROP, _ELEMENT_CREATE, _ELEMENT_DROP = 32, 33, 34, 35
_ELEMENT_STATS, _SERVER_STATS, _TENANT_STATS = 36, 37, 38
_TENANT_NAME, _ELEMENT_RENEW = 39, 40
_ELEMENT_LAYOUT = struct.Struct("<4Qd2Qd")
_TENANT_LAYOUT = struct.Struct("<7Q")
_SERVER_LAYOUT = struct.Struct("<12Qd4Q48Q20Q")
_MAX_NAME = 255

OPERATIONS = {
    1: "read", 2: "write", 3: "readv", 4: "writev", 5: "alloc", 6: "free", 7: "extend", 8: "region",
    9: "flush", 10: "stat", 11: "attach", 12: "renew", 16: "fetch_add", 17: "compare_swap",
    20: "verbs_open", 21: "verbs_region", 22: "verbs_close", 32: "tenant_create", 33: "tenant_drop",
    34: "element_create", 35: "element_drop", 36: "element_stats", 37: "server_stats",
    38: "tenant_stats", 39: "tenant_name", 40: "element_renew",
}  # fmt: skip
"""Requests by number, as `ServerStats.operations` names them."""

ERRORS = {
    3: "auth", 4: "bounds", 5: "capability", 6: "stale", 7: "capacity", 8: "unsupported",
    9: "protocol", 10: "exists", 11: "missing", 12: "invalid", 13: "memory", 14: "version",
    16: "system",
}  # fmt: skip
"""Refusals by code, as `ServerStats.errors` names them."""


@dataclass(frozen=True, slots=True)
class TenantGrant:
    """A tenant: an arena of its own on the server.

    Attributes
    ----------
    name
        The tenant's name.
    id
        Its number on the server.
    token
        Opens the arena; a secret.
    """

    name: str
    id: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ElementGrant:
    """A memory element and what opens it.

    Attributes
    ----------
    name
        The element's name in its application; refs carry it.
    id
        Its number on the server.
    tenant
        The tenant that it belongs to; holds a secret.
    key
        The element's capability; a secret.
    tcp_url, unix_url
        Where the server is, as far as the control connection knows.
    """

    name: str
    id: int
    tenant: TenantGrant
    key: bytes = field(repr=False)
    tcp_url: str | None = None
    unix_url: str | None = None

    def durl(self, name: str, type: str = "rdma_shm") -> str:
        """Return the address that a compute element gets for its transport `name`.

        It holds secrets: never log it, store it or put it into a result.

        Raises
        ------
        DurlError
            if the server is not known to listen for transports of this type.
        """
        urls = {
            "rdma_shm": self.unix_url,
            "rdma_tcp": self.tcp_url,
            "rdma_uverbs": self.tcp_url,
        }
        url = urls.get(type)
        if url is None:
            raise DurlError(
                f"element {self.name!r}: its server has no address for transports of type {type!r}"
            )
        config = {
            "url": url,
            "tenant": str(self.tenant.id),
            "token": self.tenant.token,
            "eid": str(self.id),
            "key": self.key.hex(),
        }
        return str(Durl(name, type, config))


@dataclass(frozen=True, slots=True)
class ElementStats:
    """What an element holds and moved. Sizes in bytes, `age` in seconds.

    `byte_seconds` integrates the reserved bytes over time; `bytes_read` and `bytes_written` count
    what went through the server, not what was touched through a mapping.
    """

    reserved: int
    peak: int
    limit: int
    regions: int
    byte_seconds: float
    bytes_read: int
    bytes_written: int
    age: float


@dataclass(frozen=True, slots=True)
class TenantStats:
    """What a tenant holds, in bytes. `resident` is what its arena really takes, recycled warm pages
    included.
    """

    quota: int
    reserved: int
    resident: int
    elements: int
    regions: int
    free_blocks: int
    largest_free: int

    @property
    def fragmentation(self) -> float:
        """Share of the free bytes that is not in the largest free piece: 0 is none."""
        free = self.quota - self.reserved
        return max(0.0, 1 - self.largest_free / free) if free > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What a server holds and did. Sizes in bytes, `uptime` in seconds.

    `refused` counts strangers and malformed requests; `overhead` is what the server's process takes
    beyond the pool; `operations` counts requests by operation, `errors` refusals by reason.
    """

    size: int
    reserved: int
    resident: int
    tenants: int
    elements: int
    regions: int
    connections: int
    accepted: int
    requests: int
    refused: int
    bytes_read: int
    bytes_written: int
    uptime: float
    overhead: int
    leases: int
    leases_expired: int
    draining: bool
    operations: Mapping[str, int]
    errors: Mapping[str, int]


_SERVER_FIELDS = tuple(f.name for f in fields(ServerStats))[:16]


class ServerControl:
    """The administrator's connection to a memory server.

    Parameters
    ----------
    url
        ``tcp://HOST:PORT`` or ``unix://@NAME``.
    token
        The server's administrator token.
    tcp_url, unix_url
        Addresses to put into grants, where they differ from `url`.
    timeout
        Seconds to connect.

    Raises
    ------
    AuthError
        if the token is wrong.
    TransportClosedError
        if there is no server.

    Notes
    -----
    Thread-safe. Every method raises `TransportClosedError` once the server is gone.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        tcp_url: str | None = None,
        unix_url: str | None = None,
        timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        host, port, path = parse_url(url, "memory server")
        self.tcp_url = tcp_url or (None if path else url)
        self.unix_url = unix_url or (url if path else None)
        self._tenants: dict[str, TenantGrant] = {}
        self._admin = _core.Admin(
            _core.Endpoint(
                host=host, port=port, path=path, kind=_core.KIND_ADMIN, token=token, timeout=timeout
            )
        )

    @property
    def incarnation(self) -> str:
        """Names this start of the server; another start has another."""
        return self._admin.incarnation.hex()

    def create_tenant(self, name: str, quota: int | str) -> TenantGrant:
        """Create a tenant with an arena of its own.

        Parameters
        ----------
        name
            At most 255 bytes; free on this server.
        quota
            The most bytes that its elements may have reserved at any time. A quota is a limit, not
            a promise: quotas may add up to more than the server's size, and then it is
            `create_element` and ``alloc`` that fail.

        Raises
        ------
        CapacityError
            if `quota` is more than the server has in all.
        LibdError
            if the tenant exists.
        """
        id_, _, token = self._admin.request(
            _TENANT_CREATE, _name(name), size=parse_size(quota), what=f"tenant {name!r}"
        )
        grant = TenantGrant(name, id_, token.decode())
        self._tenants[name] = grant
        return grant

    def drop_tenant(self, tenant: TenantGrant | str) -> None:
        """Drop a tenant with its elements. Its pages go back at once, mapped or not."""
        name = tenant if isinstance(tenant, str) else tenant.name
        self._admin.request(_TENANT_DROP, _name(name), what=f"tenant {name!r}")
        self._tenants.pop(name, None)

    def create_element(
        self,
        tenant: TenantGrant | str,
        name: str,
        size: int | str = 0,
        *,
        elastic: bool = False,
        limit: int | str | None = None,
        lease: float | None = None,
    ) -> ElementGrant:
        """Create a memory element.

        Parameters
        ----------
        tenant
            A grant, or the name of a tenant that this object created.
        name
            The element's name in its application.
        size
            Bytes of a fixed element; they read as zeros. For an elastic element the limit, unless
            `limit` says otherwise.
        elastic
            Whether the element has no region 0, and holds (and is charged for) only what was
            allocated.
        limit
            The most that an elastic element may hold; its tenant's quota by default.
        lease
            Seconds for which the element outlives this connection: if the administrator vanishes
            without dropping it, its memory comes back. None keeps it. See `renew_element`.

        Raises
        ------
        CapacityError
            if tenant, server or machine have no room. Nothing was reserved then.
        """
        grant = self._tenants.get(tenant) if isinstance(tenant, str) else tenant
        if grant is None:
            raise LibdError(f"no tenant {tenant!r} was created through this connection")
        size = parse_size(size)
        most = parse_size(limit) if limit is not None else size or (1 << 62)
        id_, _, key = self._admin.request(
            _ELEMENT_CREATE,
            _name(grant.name) + b"\0" + _name(name),
            size=0 if elastic else size,
            epoch=most,
            flags=int(elastic),
            addr=lease_ms(lease),
            what=f"element {name!r} of tenant {grant.name!r}",
        )
        return ElementGrant(name, id_, grant, key, self.tcp_url, self.unix_url)

    def renew_element(
        self, tenant: TenantGrant | str, element_id: int, lease: float | None = None
    ) -> None:
        """Hold an element by a lease of this connection, or (`lease` None) keep it for good.

        The lease of a connection that lives does not run out.
        """
        name = tenant if isinstance(tenant, str) else tenant.name
        what = f"element number {element_id} of tenant {name!r}"
        self._admin.request(
            _ELEMENT_RENEW, _name(name), addr=element_id, size=lease_ms(lease), what=what
        )

    def drop_element(self, tenant: TenantGrant | str, element_id: int) -> ElementStats:
        """Drop an element and all its regions; return its last statistics.

        The pages that it used stay with the tenant, warm, for its next element.
        """
        return ElementStats(
            *_ELEMENT_LAYOUT.unpack(self._element(_ELEMENT_DROP, tenant, element_id))
        )

    def element_stats(self, tenant: TenantGrant | str, element_id: int) -> ElementStats:
        """Return an element's statistics."""
        return ElementStats(
            *_ELEMENT_LAYOUT.unpack(self._element(_ELEMENT_STATS, tenant, element_id))
        )

    def _element(self, op: int, tenant: TenantGrant | str, element_id: int) -> bytes:
        name = tenant if isinstance(tenant, str) else tenant.name
        what = f"element number {element_id} of tenant {name!r}"
        return self._admin.request(op, _name(name), addr=element_id, what=what)[2]

    def tenant_stats(self, tenant: TenantGrant | str) -> TenantStats:
        """Return a tenant's statistics."""
        name = tenant if isinstance(tenant, str) else tenant.name
        reply = self._admin.request(_TENANT_STATS, _name(name), what=f"tenant {name!r}")[2]
        return TenantStats(*_TENANT_LAYOUT.unpack(reply))

    def stats(self) -> ServerStats:
        """Return the server's statistics."""
        reply = self._admin.request(_SERVER_STATS, what="statistics")[2]
        values = _SERVER_LAYOUT.unpack(reply)
        operations, errors = values[17:65], values[65:]
        plain = dict(zip(_SERVER_FIELDS, values, strict=False))
        return ServerStats(
            **plain,
            draining=bool(values[16]),
            operations={name: operations[number] for number, name in OPERATIONS.items()},
            errors={name: errors[number] for number, name in ERRORS.items()},
        )

    def tenants(self) -> list[str]:
        """Return the names of all tenants, oldest first."""
        names: list[str] = []
        last = 0
        while True:
            try:
                last, _, name = self._admin.request(_TENANT_NAME, addr=last, what="tenants")
            except LibdError as error:
                if isinstance(error, TransportError):
                    raise
                return names
            names.append(name.decode())

    def metrics(self) -> str:
        """Return everything that is counted, in the text format of Prometheus."""
        from libd.metrics import exposition

        tenants = {}
        for name in self.tenants():
            with suppress(LibdError):  # dropped meanwhile
                tenants[name] = self.tenant_stats(name)
        return exposition(self.stats(), tenants)

    def close(self) -> None:
        """Close the connection; tenants and elements stay."""
        self._admin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def lease_ms(lease: float | None) -> int:
    """Return a lease in ms as the protocol has it; 0 for none."""
    if lease is None:
        return 0
    if not 0 < lease < 1e9:
        raise LibdError(f"a lease is a positive number of seconds, not {lease}")
    return max(int(lease * 1000), 1)


def _name(name: str) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) <= _MAX_NAME or b"\0" in encoded:
        raise LibdError(f"name {name!r:.300} must have 1 to {_MAX_NAME} bytes and no NUL")
    return encoded
