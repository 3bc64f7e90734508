"""`ServerControl`: the administrator's side of a memory server. Tenants, elements, statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from libd import _core
from libd.choice import host_id
from libd.durl import Durl
from libd.errors import DurlError, LibdError
from libd.metrics import format_metrics
from libd.statistics import (
    ELEMENT_LAYOUT,
    TENANT_LAYOUT,
    ElementStats,
    ServerStats,
    Snapshot,
    TenantStats,
    unpack_entries,
    unpack_server,
)
from libd.transport import CONNECT_TIMEOUT, parse_url
from libd.units import lease_ms, parse_size

__all__ = ["ElementGrant", "ServerControl", "TenantGrant"]

# Numbers of the requests: csrc/wire.h.
_TENANT_CREATE, _TENANT_DROP, _ELEMENT_CREATE, _ELEMENT_DROP = 32, 33, 34, 35
_ELEMENT_STATS, _SERVER_STATS, _TENANT_STATS = 36, 37, 38
_LIST, _ELEMENT_RENEW = 39, 40
_MAX_NAME = 255


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
    host
        `libd.choice.host_id` of where the Unix socket is; None where that is not known.
    rdma
        Whether the server has an RDMA device.
    """

    name: str
    id: int
    tenant: TenantGrant
    key: bytes = field(repr=False)
    tcp_url: str | None = None
    unix_url: str | None = None
    host: str | None = None
    rdma: bool = False

    def durl(self, name: str, type: str = "rdma_shm") -> str:
        """Return the address that a compute element gets for its transport `name`.

        It holds secrets: never log it, store it or put it into a result.

        Raises
        ------
        DurlError
            if the server is not known to listen for transports of this type.
        """
        ways: dict[str, dict[str, str | None]] = {
            "rdma_shm": {"url": self.unix_url},
            "rdma_tcp": {"url": self.tcp_url},
            "rdma_uverbs": {"url": self.tcp_url},
            "rdma_auto": {
                "url": self.tcp_url,
                "unix": self.unix_url if self.host else None,
                "host": self.host,
                "rdma": "1" if self.rdma else None,
            },
        }
        way = {k: v for k, v in ways.get(type, {}).items() if v is not None}
        if not way:
            raise DurlError(
                f"element {self.name!r}: its server has no address for transports of type {type!r}"
            )
        config = {
            **way,
            "tenant": str(self.tenant.id),
            "token": self.tenant.token,
            "eid": str(self.id),
            "key": self.key.hex(),
        }
        return str(Durl(name, type, config))


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
        self.host = host_id() if path else None
        self._tenants: dict[str, TenantGrant] = {}
        self._leases: dict[tuple[str, int], int] = {}  # by tenant and element, in ms
        self._held_by = 0  # the connection that they were asked for on
        self._admin = _core.Admin(
            _core.Endpoint(
                host=host, port=port, path=path, kind=_core.KIND_ADMIN, token=token, timeout=timeout
            )
        )

    def _request(
        self,
        op: int,
        payload: bytes = b"",
        *,
        addr: int = 0,
        epoch: int = 0,
        size: int = 0,
        flags: int = 0,
        what: str,
    ) -> tuple[int, int, bytes]:
        reply = self._admin.request(op, payload, addr, epoch, size, flags, what)
        # A lease belongs to a connection; the native side makes another one where that was lost.
        if self._admin.connection != self._held_by:
            self._held_by = self._admin.connection
            for (tenant, element), ms in list(self._leases.items()):
                with suppress(LibdError):  # run out, or dropped by somebody else
                    self._admin.request(
                        _ELEMENT_RENEW, _name(tenant), element, 0, ms, 0, "an element's lease"
                    )
        return reply

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
        id_, _, token = self._request(
            _TENANT_CREATE, _name(name), size=parse_size(quota), what=f"tenant {name!r}"
        )
        grant = TenantGrant(name, id_, token.decode())
        self._tenants[name] = grant
        return grant

    def drop_tenant(self, tenant: TenantGrant | str) -> None:
        """Drop a tenant with its elements. Its pages go back from then on, mapped or not.

        Others are served meanwhile; who needs that very memory waits until it is there.
        """
        name = tenant if isinstance(tenant, str) else tenant.name
        self._request(_TENANT_DROP, _name(name), what=f"tenant {name!r}")
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
        id_, _, key = self._request(
            _ELEMENT_CREATE,
            _name(grant.name) + b"\0" + _name(name),
            size=0 if elastic else size,
            epoch=most,
            flags=int(elastic),
            addr=lease_ms(lease),
            what=f"element {name!r} of tenant {grant.name!r}",
        )
        if lease is not None:
            self._leases[grant.name, id_] = lease_ms(lease)
        return ElementGrant(
            name,
            id_,
            grant,
            key,
            self.tcp_url,
            self.unix_url,
            self.host,
            self._admin.rdma,
        )

    def renew_element(
        self, tenant: TenantGrant | str, element_id: int, lease: float | None = None
    ) -> None:
        """Hold an element by a lease of this connection, or (`lease` None) keep it for good.

        The lease of a connection that lives does not run out.
        """
        name = tenant if isinstance(tenant, str) else tenant.name
        what = f"element number {element_id} of tenant {name!r}"
        self._request(_ELEMENT_RENEW, _name(name), addr=element_id, size=lease_ms(lease), what=what)
        if lease is None:
            self._leases.pop((name, element_id), None)
        else:
            self._leases[name, element_id] = lease_ms(lease)

    def drop_element(self, tenant: TenantGrant | str, element_id: int) -> ElementStats:
        """Drop an element and all its regions; return its last statistics.

        The pages that it used stay with the tenant, warm, for its next element.
        """
        name = tenant if isinstance(tenant, str) else tenant.name
        self._leases.pop((name, element_id), None)
        return ElementStats(
            *ELEMENT_LAYOUT.unpack(self._element(_ELEMENT_DROP, tenant, element_id))
        )

    def element_stats(self, tenant: TenantGrant | str, element_id: int) -> ElementStats:
        """Return an element's statistics."""
        return ElementStats(
            *ELEMENT_LAYOUT.unpack(self._element(_ELEMENT_STATS, tenant, element_id))
        )

    def _element(self, op: int, tenant: TenantGrant | str, element_id: int) -> bytes:
        name = tenant if isinstance(tenant, str) else tenant.name
        what = f"element number {element_id} of tenant {name!r}"
        return self._request(op, _name(name), addr=element_id, what=what)[2]

    def tenant_stats(self, tenant: TenantGrant | str) -> TenantStats:
        """Return a tenant's statistics."""
        name = tenant if isinstance(tenant, str) else tenant.name
        reply = self._request(_TENANT_STATS, _name(name), what=f"tenant {name!r}")[2]
        return TenantStats(*TENANT_LAYOUT.unpack(reply))

    def stats(self) -> ServerStats:
        """Return the server's statistics."""
        return unpack_server(self._request(_SERVER_STATS, what="statistics")[2])

    def tenants(self) -> list[str]:
        """Return the names of all tenants, oldest first."""
        return [name for _, name, _ in self._list(b"")][::-1]

    def snapshot(self) -> Snapshot:
        """Return the statistics of the server, of every tenant and of every element.

        Each page of them is of one instant; what comes or goes between two pages may be missing.
        """
        tenants, elements = {}, {}
        for _, tenant, stats in self._list(b""):
            tenants[tenant] = TenantStats(*TENANT_LAYOUT.unpack(stats))
        for tenant in tenants:
            for id_, name, stats in self._list(_name(tenant)):
                elements[tenant, id_, name] = ElementStats(*ELEMENT_LAYOUT.unpack(stats))
        return Snapshot(self.stats(), tenants, elements)

    def _list(self, tenant: bytes) -> Iterator[tuple[int, str, bytes]]:
        below, more = 0, 1
        while more:
            _, more, page = self._request(_LIST, tenant, addr=below, what="statistics")
            for below, name, stats in unpack_entries(page):
                yield below, name, stats

    def metrics(self) -> str:
        """Return everything that is counted, in the text format of Prometheus."""
        return format_metrics(self.snapshot())

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


def _name(name: str) -> bytes:
    encoded = name.encode()
    if not 0 < len(encoded) <= _MAX_NAME or b"\0" in encoded:
        raise LibdError(f"name {name!r:.300} must have 1 to {_MAX_NAME} bytes and no NUL")
    return encoded
