"""What an element sees of the world: names, copies, transports, warm resources."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from openwhisk.app import Limits
from openwhisk.errors import ElementError, TransportNotGrantedError
from openwhisk.runtime import Action, Resources


def test_identity_and_limits(transports: Any) -> None:
    limits = Limits(cpu=2.0, mem=1 << 20)
    action = Action("e", transports, activation_id="ab", index=1, count=3, limits=limits)
    assert (action.name, action.index, action.count) == ("e", 1, 3)
    assert action.activation_id == "ab"
    assert (action.limits.mem, action.limits.cpu) == (1 << 20, 2.0)
    assert list(action.memory_elements) == []


@pytest.mark.parametrize(("index", "count"), [(-1, 1), (1, 1), (0, 0), (5, 3)])
def test_a_copy_that_does_not_exist(transports: Any, index: int, count: int) -> None:
    with pytest.raises(ValueError, match="no such copy"):
        Action("e", transports, index=index, count=count)


def test_transports_go_by_either_name_and_interface(transports: Any) -> None:
    action = Action("e", transports, memory_elements={"mem1": "t"})
    assert action.get_transport("t", "rdma") == "transport t"
    assert action.get_transport("mem1", "mem", timeout=1.5) == "transport t"
    assert transports.calls == [("get", "t", "rdma", 9.0), ("get", "t", "rdma", 1.5)]
    assert "mem1" in action.memory_elements


def test_what_was_not_granted_is_named(transports: Any) -> None:
    action = Action("e", transports, memory_elements={"mem1": "t", "mem2": "u"})
    with pytest.raises(TransportNotGrantedError, match="'x'; it coruns with: mem1, mem2"):
        action.get_transport("x", "rdma")
    with pytest.raises(TransportNotGrantedError, match="no such interface, use 'rdma' or 'mem'"):
        action.get_transport("t", "tcp")
    assert transports.calls == []


def test_without_declared_elements_libd_decides(transports: Any) -> None:
    action = Action("e", transports)
    action.add_transport("late;rdma_tcp;")
    action.config_transport("late", "late;rdma_tcp;url,tcp://h:1;")
    assert action.get_transport("late") == "transport late"
    action.close()
    assert [c[0] for c in transports.calls] == ["add", "config", "get", "close"]


def test_a_transport_that_the_element_added_itself(transports: Any) -> None:
    action = Action("e", transports, memory_elements={"mem1": "t"})
    action.add_transport("own;rdma_local;size,64;")
    assert action.get_transport("own") == "transport own"


def test_resources_are_made_once_and_closed_newest_first(transports: Any) -> None:
    closed: list[str] = []

    class Thing:
        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    resources = Resources()
    first = Action("a", transports, resources=resources).resource("x", lambda: Thing("x"))
    again = Action("b", transports, resources=resources).resource("x", lambda: Thing("never"))
    assert first is again
    resources.get("plain", lambda: 5)
    resources.get("y", lambda: Thing("y"))
    resources.close()
    assert closed == ["y", "x"]
    resources.get("x", lambda: Thing("new"))
    resources.discard("x")
    resources.discard("x")
    assert closed == ["y", "x", "new"]


def test_a_factory_that_fails_leaves_nothing(transports: Any) -> None:
    action = Action("a", transports)
    with pytest.raises(ZeroDivisionError):
        action.resource("x", lambda: 1 // 0)
    assert action.resource("x", lambda: 7) == 7


def test_one_resource_for_many_threads() -> None:
    resources, made = Resources(), []
    threads = [
        threading.Thread(target=lambda: resources.get("x", lambda: made.append(1)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_profile_marks(transports: Any) -> None:
    action = Action("a", transports)
    action.profile(0)
    action.profile(1)
    (a, t), (b, u) = action.profile_marks
    assert (a, b) == (0, 1)
    assert t <= u


def test_metrics_add_up(transports: Any) -> None:
    action = Action("e", transports)
    action.record_metric("rows", 3)
    action.record_metric("rows", 4.5)
    action.record_metric("batches", True)
    assert action.metrics == {"rows": 7.5, "batches": 1.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "3", None])
def test_a_metric_is_a_finite_number(transports: Any, value: Any) -> None:
    action = Action("e", transports)
    with pytest.raises(ElementError, match=r"metric 'rows': .* is not a finite number"):
        action.record_metric("rows", value)
    assert action.metrics == {}


def test_metrics_are_few_and_have_short_names(transports: Any) -> None:
    action = Action("e", transports)
    for name in ("", "x" * 101, 7):
        with pytest.raises(ElementError, match="no name for a metric"):
            action.record_metric(name, 1)  # type: ignore[arg-type]
    for number in range(64):
        action.record_metric(f"m{number}", number)
    with pytest.raises(ElementError, match="at most 64 metrics"):
        action.record_metric("one more", 1)
    action.record_metric("m1", 1)  # known already
    assert action.metrics["m1"] == 2
