"""A remote array does what a NumPy array does, whatever is cached, pinned or evicted meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from remote_array import BudgetError, PinConflictError, RemoteArray

SPAN = 64 << 10
DTYPES = ["bool", "int8", "uint16", "int32", "float32", "int64", "float64", "complex128"]


@st.composite
def indices(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """Basic indices, small steps and large ones, sometimes with an ellipsis or fewer axes."""
    keys: list[Any] = []
    used = draw(st.integers(0, len(shape)))
    leading = draw(st.integers(0, 4)) == 0
    for n in shape[len(shape) - used :] if leading else shape[:used]:
        if draw(st.booleans()):
            keys.append(draw(st.integers(-n, n - 1)))
        else:
            bound = st.none() | st.integers(-n - 3, n + 3)
            step = st.sampled_from([None, 1, 1, 2, 7, -1, -3, n])
            keys.append(slice(draw(bound), draw(bound), draw(step)))
    return (..., *keys) if leading else tuple(keys)


class ArrayMachine(RuleBasedStateMachine):
    transport_class: Any
    mappable: bool

    @initialize(
        dtype=st.sampled_from(DTYPES),
        columns=st.sampled_from([1, 250, 1000, 40_000]),
        frames=st.integers(1, 5),
        spans=st.integers(1, 6),
        data=st.data(),
    )
    def start(self, dtype: str, columns: int, frames: int, spans: int, data: Any) -> None:
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        kind = np.dtype(dtype)
        rows = max(1, (spans * SPAN - 24) // (columns * kind.itemsize))
        self.model = self.values((rows, columns), kind)
        self.transport = self.transport_class(self.mappable)
        self.budget = frames * (SPAN + SPAN // kind.itemsize // 8 + 8)
        self.array = RemoteArray.from_array(
            self.transport, self.model, budget=self.budget, span=SPAN
        )
        self.pins: list[tuple[Any, Any, Any, bool]] = []

    def values(self, shape: tuple[int, ...], kind: np.dtype[Any]) -> np.ndarray:
        return self.rng.integers(0, 2 if kind.kind == "b" else 100, shape).astype(kind)

    @rule(data=st.data())
    def read(self, data: Any) -> None:
        key = data.draw(indices(self.model.shape))
        got = self.array[key]
        np.testing.assert_array_equal(got, self.model[key])
        assert np.shape(got) == self.model[key].shape
        assert got.dtype == self.model.dtype

    @rule(data=st.data(), scalar=st.booleans())
    def write(self, data: Any, scalar: bool) -> None:
        key = data.draw(indices(self.model.shape))
        value = self.values(() if scalar else self.model[key].shape, self.model.dtype)
        self.array[key] = value
        self.model[key] = value

    @precondition(lambda self: len(self.pins) < 3)
    @rule(data=st.data(), writable=st.booleans())
    def pin(self, data: Any, writable: bool) -> None:
        key = data.draw(indices(self.model.shape))
        manager = self.array.pin(key, writable=writable)
        try:
            view = manager.__enter__()
        except (BudgetError, PinConflictError):
            assert not self.mappable
            return
        if writable:
            value = self.values(self.model[key].shape, self.model.dtype)
            view[...] = value
            self.model[key] = value
        self.pins.append((manager, view, key, writable))

    @precondition(lambda self: any(w for *_, w in self.pins))
    @rule()
    def write_through_a_live_pin(self) -> None:
        _, view, key, _ = next(p for p in self.pins if p[3])
        value = self.values(self.model[key].shape, self.model.dtype)
        view[...] = value
        self.model[key] = value

    @precondition(lambda self: self.pins)
    @rule(data=st.data())
    def unpin(self, data: Any) -> None:
        manager, view, *_ = self.pins.pop(data.draw(st.integers(0, len(self.pins) - 1)))
        manager.__exit__(None, None, None)
        assert not view.size or not view.flags.writeable

    @rule()
    def flush(self) -> None:
        self.array.flush()
        np.testing.assert_array_equal(self.stored(), self.model)

    @rule()
    def refresh(self) -> None:
        self.array.refresh()

    @precondition(lambda self: not self.pins)
    @rule()
    def reopen(self) -> None:
        handle = self.array.handle()
        self.array.close()
        self.array = RemoteArray.open(handle, self.transport, budget=self.budget, span=SPAN)

    @rule()
    def fail_once(self) -> None:
        """A transport that fails in the middle loses nothing that was written."""
        self.transport.fail = {"readv", "writev"}
        try:
            self.array[...]
            self.array.flush()
        except ConnectionError:
            pass
        finally:
            self.transport.fail = set()

    def stored(self) -> np.ndarray:
        (region,) = self.transport.regions.values()
        return np.frombuffer(region, self.model.dtype).reshape(self.model.shape)

    @invariant()
    def pins_see_the_model(self) -> None:
        for _, view, key, _ in getattr(self, "pins", []):
            np.testing.assert_array_equal(view, self.model[key])

    @invariant()
    def budget_is_kept(self) -> None:
        if hasattr(self, "array"):
            assert self.array.local_bytes <= self.budget

    def teardown(self) -> None:
        for manager, *_ in getattr(self, "pins", []):
            manager.__exit__(None, None, None)
        if hasattr(self, "array"):
            self.array.close()
            np.testing.assert_array_equal(self.stored(), self.model)


@pytest.mark.parametrize("mappable", [False, True])
def test_remote_array_agrees_with_numpy(fake: Any, mappable: bool) -> None:
    machine = type("Machine", (ArrayMachine,), {"transport_class": fake, "mappable": mappable})
    case = machine.TestCase
    case.settings = settings(
        max_examples=80 if not mappable else 25,
        stateful_step_count=15,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    case("runTest").runTest()
