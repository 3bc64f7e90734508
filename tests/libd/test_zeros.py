"""New fixed elements read as zeros, whatever their tenant's arena has been through."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Stand = Any  # conftest.py's


def test_old_bytes_behind_untouched_ones(stand: Stand) -> None:
    tenant = stand.tenant(1 << 20)
    grant = stand.control.create_element(tenant, "old", elastic=True)
    trans = stand.open(grant, "shm")
    first = trans.alloc(64)
    far = trans.alloc(8192, align=1 << 15)  # leaves a gap that nobody touches
    trans.write_from(far, b"\xff" * 8192)
    trans.free(far)
    trans.free(first)
    for _ in range(4):
        element = stand.control.create_element(tenant, "new", 1 << 15)
        out = bytearray(b"?" * (1 << 15))
        stand.open(element, "shm").read_into(0, out)
        assert not any(out)


step = st.one_of(
    st.tuples(st.just("alloc"), st.integers(1, 40_000), st.sampled_from([64, 4096, 1 << 15])),
    st.tuples(st.just("fixed"), st.integers(1, 40_000), st.just(0)),
    st.tuples(st.just("free"), st.integers(0, 100), st.just(0)),
    st.tuples(st.just("extend"), st.integers(0, 100), st.integers(1, 9_000)),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(step, max_size=40))
def test_any_history(stand: Stand, steps: list[tuple[str, int, int]]) -> None:
    from libd import CapacityError

    tenant = stand.tenant(1 << 18)
    trans = stand.open(stand.control.create_element(tenant, "e", elastic=True), "shm")
    live: list[tuple[int, int]] = []
    fixed: list[Any] = []
    try:
        for what, number, more in steps:
            try:
                if what == "alloc":
                    addr = trans.alloc(number, align=more)
                    trans.write_from(addr, b"\xff" * number)
                    live.append((addr, number))
                elif what == "extend" and live:
                    addr, size = live.pop(number % len(live))
                    live.append((addr, size))
                    addr = trans.extend(addr, size + more)
                    live[-1] = (addr, size + more)
                    trans.write_from(addr, b"\xff" * (size + more))
                elif what == "free" and live + fixed:
                    at = number % (len(live) + len(fixed))
                    if at < len(live):
                        trans.free(live.pop(at)[0])
                    else:
                        stand.control.drop_element(tenant, fixed.pop(at - len(live)).id)
                elif what == "fixed":
                    grant = stand.control.create_element(tenant, "f", number)
                    fixed.append(grant)
                    mem = stand.open(grant, "shm")
                    out = bytearray(b"?" * number)
                    mem.read_into(0, out)
                    assert not any(out)
                    mem.write_from(0, b"\xff" * number)
            except CapacityError:
                pass
    finally:
        for action in stand.actions:
            action.close()
        stand.actions.clear()
        stand.control.drop_tenant(tenant)
