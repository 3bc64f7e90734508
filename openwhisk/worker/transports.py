"""`GrantedTransports`: the memory elements of one run, opened when the element asks for them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from openwhisk.runtime import Resources
from openwhisk.worker.messages import Grant

ARENAS = "libd.arenas"


class GrantedTransports:
    """What an `Action` uses of libd.

    A `libd.LibdAction` is made on first use: elements without memory elements do not pay for it.
    The cache of attached arenas stays with the worker.
    """

    def __init__(
        self,
        activation: str,
        grants: Sequence[Grant],
        merged: Sequence[tuple[str, int]],
        resources: Resources,
    ) -> None:
        self._activation = activation
        self._durls = [g.durl for g in grants]
        self._durls += [f"{name};rdma_local;size,{size};" for name, size in merged]
        self._resources = resources
        self._action: Any = None
        self._opened: dict[int, Any] = {}
        self._unreachable = False

    def _libd(self) -> Any:
        if self._action is None:
            import libd

            cache = self._resources.get(ARENAS, libd.ArenaCache)
            self._action = libd.LibdAction(self._activation, transports=self._durls, cache=cache)
        return self._action

    def add_transport(self, durl: Any) -> Any:
        """Add a transport, complete or still without its address."""
        return self._libd().add_transport(durl)

    def config_transport(self, name: str, durl: Any) -> Any:
        """Supply the address of a transport that was added without one."""
        return self._libd().config_transport(name, durl)

    def get_transport(self, name: str, type: str = "rdma", timeout: float | None = None) -> Any:
        """Return the transport, once it is configured."""
        from libd.errors import TransportClosedError

        libd = self._libd()
        try:
            if timeout is None:
                found = libd.get_transport(name, type)
            else:
                found = libd.get_transport(name, type, timeout=timeout)
        except TransportClosedError:
            self._unreachable = True
            raise
        self._opened[id(found)] = found
        return found

    def moved(self) -> tuple[int, int]:
        """Bytes read and written through all transports so far.

        Mapped views are reads if they are read-only and writes if not, whatever was touched.
        """
        counters = [t.counters for t in self._opened.values()]
        return (
            sum(c.bytes_read + c.bytes_mapped for c in counters),
            sum(c.bytes_written + c.bytes_mapped_writable for c in counters),
        )

    def lost(self) -> bool:
        """Whether the memory server behind a transport is gone, or could not be reached.

        Asked after a failure: what the element saw of it may be hidden in another exception, as a
        kernel's that read a stream of remote columns, or was about to.
        """
        from libd.errors import LibdError, TransportClosedError

        if self._unreachable:
            return True
        for transport in self._opened.values():
            try:
                transport.flush()
            except TransportClosedError:
                return True
            except LibdError:
                continue
        return False

    def close(self) -> None:
        """Close every transport."""
        self._opened.clear()
        if self._action is not None:
            with contextlib.suppress(
                BufferError
            ):  # the element still holds views; they die with it
                self._action.close()
            self._action = None
