"""`MemoryServer`: the native memory server, in this process."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

from libd import _core
from libd.errors import AuthError, LibdError

__all__ = ["KEEP_WARM", "MemoryServer"]

KEEP_WARM = 10.0


class MemoryServer:
    """Serves memory to transports, from a thread of its own that never takes the GIL.

    Parameters
    ----------
    size
        Bytes that all tenants together may reserve; checked against what this machine has left.
    bind
        Host to listen on for TCP, or None. Anything but loopback needs a token.
    port
        TCP port; 0 takes a free one (see `tcp_url`).
    unix
        Name of an abstract Unix socket (with or without the leading ``@``), or None.
    token
        Opens the default region; without it, whoever reaches the server may use that region.
    admin_token
        Opens the administrator's connection (`ServerControl`); without it nobody administers this
        server.
    default_region
        Bytes of the default region, addresses 0 … size; by default all of `size`, or none if there
        is an `admin_token`.
    rdma
        RDMA device for transports of type ``rdma_uverbs``: ``NAME[:PORT[:GID INDEX]]``, ``any`` for
        the first that has an active port, ``auto`` for the same if there is one; None for none.
        Whoever uses it connects over TCP first.
    keep_warm
        Seconds for which the pages of freed memory stay with their tenant, who finds them in place
        when it allocates again. What nobody used for so long goes back to the machine, after twice
        that time at the latest, and at once when it is promised to somebody else.

    Raises
    ------
    AuthError
        if `bind` is not loopback and there is no token.
    CapacityError
        if this machine cannot promise `size` bytes.
    LibdError
        if `keep_warm` is negative or no number, or it cannot listen there (address in use, name
        does not resolve).
    UnsupportedError
        if there is no RDMA device as `rdma` asks for.
    """

    def __init__(
        self,
        size: int,
        *,
        bind: str | None = "127.0.0.1",
        port: int = 0,
        unix: str | None = None,
        token: str | None = None,
        admin_token: str | None = None,
        default_region: int | None = None,
        rdma: str | None = None,
        keep_warm: float = KEEP_WARM,
    ) -> None:
        if default_region is None:
            default_region = 0 if admin_token else size
        guarded = token or (admin_token and not default_region)
        if bind is not None and not guarded and not _core.is_loopback(bind):
            raise AuthError(
                f"a memory server on {bind!r} would be open to the network: give it a token, "
                "or bind loopback"
            )
        if not 0 <= keep_warm < math.inf:
            raise LibdError(f"memory server: keep_warm is {keep_warm} seconds")
        self.size = size
        self.default_region = default_region
        self._bind = bind
        self._unix = unix.removeprefix("@") if unix else None
        self._server = _core.Server(
            size=size,
            default_region=default_region,
            host=bind,
            port=port,
            path=self._unix,
            token=token or None,
            admin_token=admin_token or None,
            rdma=rdma,
            keep_warm=keep_warm,
        )

    @property
    def port(self) -> int:
        """The TCP port; 0 if there is none."""
        return self._server.port

    @property
    def rdma_device(self) -> str | None:
        """The RDMA device that it serves transports of type ``rdma_uverbs`` with, or None."""
        return self._server.rdma_device

    @property
    def tcp_url(self) -> str | None:
        """The address for durls of type ``rdma_tcp``."""
        if self._bind is None:
            return None
        host = f"[{self._bind}]" if ":" in self._bind else self._bind
        return f"tcp://{host}:{self.port}"

    @property
    def unix_url(self) -> str | None:
        """The address for durls of type ``rdma_shm``."""
        return f"unix://@{self._unix}" if self._unix else None

    def drain(self, seconds: float) -> None:
        """Begin to stop: take no more connections and requests, let what has begun come to its end.

        Does not wait. The server ends when nothing is under way any more, at the latest after
        `seconds`; a second call ends it at once. `over` says when.
        """
        self._server.drain(seconds)

    def over(self, seconds: float = 0.0) -> bool:
        """Return whether the server has ended, after waiting for that for at most `seconds`."""
        return self._server.over(seconds)

    def stop(self, drain: float = 0.0) -> None:
        """Close all connections and give the memory back. May be called twice.

        Parameters
        ----------
        drain
            Seconds that requests which have begun may take to come to their end.
        """
        if drain > 0:
            self._server.drain(drain)
            self._server.over(drain + 1)
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
