"""`Action`: what ``main(params, action)`` gets to see of the world around its element.

Covers identity (which element, which copy), limits, access to memory elements by name, and
resources that a worker keeps warm. It does not cover moving bytes, which is the transports' job,
nor who decides what an element is granted.
"""

from __future__ import annotations

import contextlib
import logging
import math
import numbers
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from openwhisk.app.model import Limits
from openwhisk.errors import ElementError, TransportNotGrantedError

T = TypeVar("T")

log = logging.getLogger(__name__)

# Metrics of one run travel with its result and stay in the activation's record.
MOST_METRICS, LONGEST_METRIC_NAME = 64, 100

# The prototype's elements name the same interface either way.
INTERFACES = {"rdma": "rdma", "mem": "rdma"}


class TransportSource(Protocol):
    """The part of `libd.LibdAction` that an action uses."""

    def add_transport(self, durl: Any) -> Any:
        """Add a transport, complete or still without its address."""

    def config_transport(self, name: str, durl: Any) -> Any:
        """Supply the address of a transport that was added without one."""

    def get_transport(self, name: str, interface: str = ..., timeout: float | None = ...) -> Any:
        """Return the transport, once it is configured."""

    def close(self) -> None:
        """Close every transport."""


class ScratchDirectory(Protocol):
    """The part of `openwhisk.worker.scratch.Scratch` that an action uses."""

    @property
    def path(self) -> str:
        """The directory, made at the first use."""


class Resources:
    """What a worker keeps warm from one element to the next, by key. Safe to use from several
    threads.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._items: dict[str, Any] = {}

    def get(self, key: str, factory: Callable[[], T]) -> T:
        """Return the resource called `key`; the first call makes it with `factory`.

        A factory that raises leaves nothing behind; the next call tries again.
        """
        with self._lock:
            if key not in self._items:
                self._items[key] = factory()
            found: T = self._items[key]
            return found

    def discard(self, key: str) -> None:
        """Forget the resource called `key`, closing it if it has a ``close()``. No error if there
        is none.
        """
        with self._lock:
            item = self._items.pop(key, None)
        _close(item)

    def when_idle(self) -> None:
        """Tell resources that have a ``when_idle()`` that nothing is to do. One that fails at it is
        closed and forgotten.
        """
        with self._lock:
            items = list(self._items.items())
        for key, item in items:
            try:
                if callable(told := getattr(item, "when_idle", None)):
                    told()
            except Exception as error:
                log.warning("%s failed when idle, and is closed: %s", key, error)
                with contextlib.suppress(Exception):
                    self.discard(key)

    def close(self) -> None:
        """Close and forget everything, newest first."""
        with self._lock:
            items = list(self._items.values())
            self._items.clear()
        for item in reversed(items):
            _close(item)


def _close(item: Any) -> None:
    close = getattr(item, "close", None)
    if callable(close):
        close()


class Action:
    """The second argument of an element's ``main``.

    Attributes
    ----------
    name
        Name of the compute element.
    index, count
        Which of how many parallel copies this is; ``0 <= index < count``.
    activation_id
        Id of the activation that this run belongs to.
    limits
        What this copy may use: ``limits.mem`` in bytes, ``limits.cpu`` in cores.
    memory_elements
        Names of the memory elements within reach, each mapped to the name of its transport.
        Iterating yields the names.
    metrics
        What was counted with `record_metric`.
    """

    def __init__(
        self,
        name: str,
        libd: TransportSource,
        *,
        activation_id: str = "",
        index: int = 0,
        count: int = 1,
        limits: Limits | None = None,
        memory_elements: Mapping[str, str] | None = None,
        resources: Resources | None = None,
        scratch: ScratchDirectory | None = None,
    ) -> None:
        if not 0 <= index < count:
            raise ValueError(f"copy {index} of {count} of element {name}: no such copy")
        self.name = name
        self.index = index
        self.count = count
        self.activation_id = activation_id
        self.limits = limits if limits is not None else Limits()
        self.memory_elements: Mapping[str, str] = MappingProxyType(dict(memory_elements or {}))
        self.metrics: dict[str, float] = {}
        self.profile_marks: list[tuple[Any, float]] = []
        self._libd = libd
        self._added: set[str] = set()
        self._resources = resources if resources is not None else Resources()
        self._scratch = scratch

    def get_transport(self, name: str, type: str = "rdma", timeout: float | None = None) -> Any:
        """Return the transport to a memory element; always the same object for the same name.

        Parameters
        ----------
        name
            Name of the transport as the element declares it, or of the memory element itself.
        type
            Interface: ``rdma`` (or ``mem``, its old name).
        timeout
            Seconds to wait for the control plane to supply the address; ``None`` leaves it to
            libd's default.

        Raises
        ------
        TransportNotGrantedError
            If this element does not corun with an element of that name.
        libd.errors.LibdError
            If the memory element cannot be reached in time.
        """
        interface = INTERFACES.get(type)
        if interface is None:
            choices = " or ".join(map(repr, INTERFACES))
            raise TransportNotGrantedError(
                f"element {self.name}: get_transport({name!r}, {type!r}): "
                f"no such interface, use {choices}"
            )
        trans = name
        known = self._added.union(self.memory_elements.values())
        if self.memory_elements and name not in known:
            if name not in self.memory_elements:
                granted = ", ".join(sorted(self.memory_elements))
                raise TransportNotGrantedError(
                    f"element {self.name} does not corun with {name!r}; it coruns with: {granted}"
                )
            trans = self.memory_elements[name]
        if timeout is None:
            return self._libd.get_transport(trans, interface)
        return self._libd.get_transport(trans, interface, timeout=timeout)

    def add_transport(self, durl: Any) -> Any:
        """Add a transport by its durl (text or object); it may still lack its address."""
        added = self._libd.add_transport(durl)
        self._added.add(str(durl).partition(";")[0].strip())
        return added

    def config_transport(self, name: str, durl: Any) -> Any:
        """Supply the address of transport `name`; whoever waits for it goes on."""
        return self._libd.config_transport(name, durl)

    def resource(self, key: str, factory: Callable[[], T]) -> T:
        """Return what the worker keeps warm under `key`; the first element to ask makes it with
        `factory`.

        Use it for what is costly to open and holds no data of one element: a database connection, a
        cache of attached arenas. The worker closes it (``close()``, where it has one) when it ends,
        and calls its ``when_idle()``, where it has one, when there has been nothing to do for a
        moment: what it holds in advance then is better given back.
        """
        return self._resources.get(key, factory)

    def scratch(self) -> str:
        """Return a directory on local disk that is removed when the element ends.

        Raises
        ------
        ElementError
            If the element has no local disk (`limits.storage`).
        """
        if self._scratch is None:
            raise ElementError(f"element {self.name} has no local disk: give it limits.storage")
        return self._scratch.path

    def record_metric(self, name: str, value: float) -> None:
        """Add `value` to what this run counts as `name` (rows, batches, bytes sent, …).

        The sums stand in the activation's record, one set for each copy of an element:
        `openwhisk.api.ElementRecord.metrics`. They say what a run did; they are no results, and no
        other element sees them.

        Raises
        ------
        ElementError
            If it is no finite number, or there are more than 64 names, or one is longer than 100
            characters.
        """
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ElementError(f"metric {name!r}: {value!r} is not a finite number")
        if name not in self.metrics:
            if not isinstance(name, str) or not 0 < len(name) <= LONGEST_METRIC_NAME:
                raise ElementError(
                    f"{name!r:.120} is no name for a metric: 1 to {LONGEST_METRIC_NAME} characters"
                )
            if len(self.metrics) == MOST_METRICS:
                raise ElementError(f"metric {name!r}: a run has at most {MOST_METRICS} metrics")
        self.metrics[name] = self.metrics.get(name, 0.0) + float(value)

    def profile(self, mark: Any = None) -> None:
        """Note a point in time (monotonic seconds) in `profile_marks`; ``rundisagg -p`` prints
        them.
        """
        self.profile_marks.append((mark, time.monotonic()))

    def close(self) -> None:
        """Close every transport of this action. The resources stay with the worker."""
        self._libd.close()

    def __repr__(self) -> str:
        return f"Action({self.name!r}, index={self.index}, count={self.count})"
