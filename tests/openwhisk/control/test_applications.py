"""Applications on real workers: order, joins, environment, failures, limits."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from openwhisk.api import Activation
from openwhisk.app import Application
from openwhisk.app.model import ComputeElement, MemoryElement
from openwhisk.control import EmbeddedControlPlane
from openwhisk.errors import (
    AlreadyExistsError,
    ApplicationError,
    NotFoundError,
    OpenWhiskError,
    WaitTimeoutError,
)

Compute = Callable[..., ComputeElement]
Memory = Callable[..., MemoryElement]
Run = Callable[..., Activation]

ADD = """
def main(params, action):
    return {"n": sum(r["n"] for rs in params.values() for r in rs) + 1}
"""
START = "def main(params, action):\n    return {'n': params['n']}\n"
MiB = 1 << 20


def test_chain(plane: EmbeddedControlPlane, compute: Compute, run: Run) -> None:
    elements = [compute("e0", START)]
    elements += [compute(f"e{i}", ADD, parents=(f"e{i - 1}",)) for i in range(1, 6)]
    activation = run(plane, elements, {"n": 10})
    assert activation.status == "success", activation.error
    assert activation.result == {"e5": {"n": 15}}
    assert [e.name for e in activation.elements] == [f"e{i}" for i in range(6)]
    assert {e.status for e in activation.elements} == {"done"}
    assert {e.attempts for e in activation.elements} == {1}
    for before, after in zip(activation.elements, activation.elements[1:], strict=False):
        assert before.end is not None
        assert after.start is not None
        assert before.end <= after.start


def test_fan_and_join_keep_the_order_of_copies(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    copy = """
import os
def main(params, action):
    assert params["first"] == [{"n": 1}]
    par, n = os.environ["__OW_PAR"], os.environ["__OW_PAR_N"]
    return {"index": action.index, "count": action.count, "par": par, "n": n}
"""
    join = "def main(params, action):\n    return {'got': params['each']}\n"
    activation = run(
        plane,
        [
            compute("first", START),
            compute("each", copy, parents=("first",), parallelism=5),
            compute("last", join, parents=("each",)),
        ],
        {"n": 1},
    )
    assert activation.status == "success", activation.error
    expected = [{"index": i, "count": 5, "par": str(i), "n": "5"} for i in range(5)]
    assert activation.result == {"last": {"got": expected}}


def test_diamond_with_two_sinks(plane: EmbeddedControlPlane, compute: Compute, run: Run) -> None:
    activation = run(
        plane,
        [
            compute("top", START),
            compute("left", ADD, parents=("top",)),
            compute("right", ADD, parents=("top",), parallelism=2),
            compute("bottom", ADD, parents=("left", "right")),
            compute("aside", ADD, parents=("top",), parallelism=2),
        ],
        {"n": 1},
    )
    assert activation.result == {"bottom": {"n": 7}, "aside": [{"n": 2}, {"n": 2}]}


def test_gang_meets_in_shared_memory(
    plane: EmbeddedControlPlane, compute: Compute, memory: Memory, run: Run
) -> None:
    # Each copy waits until it sees what the other wrote: that ends only if both run at once.
    code = """
import time
def main(params, action):
    t = action.get_transport("m", "rdma")
    t.reg(action.count)
    t.buf[0:1] = b"x"
    t.write(1, addr=action.index, offset=0)
    while bytes(t.buf[0:action.count]) != b"x" * action.count:
        t.read(action.count, addr=0, offset=0)
        time.sleep(0.001)
    return {}
"""
    for transport in ("shm", "tcp"):
        activation = run(
            plane,
            [compute("peer", code, memory=("m",), parallelism=3), memory("m")],
            transport=transport,
        )
        assert activation.status == "success", activation.error
        assert activation.usage.peak_memory_bytes == MiB
        assert activation.usage.memory_gb_s > 0
        assert activation.usage.bytes_written == 3
    assert plane.info().memory_reserved == 0


def test_an_elastic_exchange_counts_what_was_allocated(
    plane: EmbeddedControlPlane, compute: Compute, memory: Memory, run: Run
) -> None:
    write = """
def main(params, action):
    t = action.get_transport("x", "rdma")
    addr = t.alloc(4096)
    t.write_from(addr, bytes([action.index]) * 4096)
    return {"ref": t.ref([(addr, 4096)]).to_json()}
"""
    read = """
from libd import Ref
def main(params, action):
    t = action.get_transport("x", "rdma")
    got = []
    for result in params["w"]:
        [(addr, size)] = t.resolve(Ref.from_json(result["ref"]))
        out = bytearray(size)
        t.read_into(addr, out)
        got.append([out[0], len(set(out))])
    return {"got": got}
"""
    activation = run(
        plane,
        [
            compute("w", write, memory=("x",), parallelism=3),
            compute("r", read, memory=("x",), parents=("w",)),
            memory("x", 64 * MiB, elastic=True, access="exchange"),
        ],
    )
    assert activation.status == "success", activation.error
    assert activation.result == {"r": {"got": [[0, 1], [1, 1], [2, 1]]}}
    assert 3 * 4096 <= activation.usage.peak_memory_bytes < MiB


def test_defaults_of_parameters_give_way(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    echo = "def main(params):\n    return params\n"
    element = compute("e", echo, parameters={"a": 1, "b": 2})
    assert run(plane, [element], {"b": 3}).result == {"e": {"a": 1, "b": 3}}


def test_an_element_that_raises_fails_the_application_with_its_traceback(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    bad = """def helper():
    return {}["missing"]

def main(params, action):
    print("so far")
    return helper()
"""
    forever = "import time\ndef main(params, action):\n    time.sleep(3600)\n"
    activation = run(
        plane,
        [compute("good", forever), compute("bad", bad), compute("after", ADD, parents=("good",))],
    )
    assert activation.status == "failed"
    assert activation.error_kind == "element"
    assert activation.result is None
    assert activation.error is not None
    assert activation.error.startswith("element bad: KeyError: 'missing'\n")
    assert "line 2, in helper" in activation.error
    states = {e.name: e.status for e in activation.elements}
    assert states == {"good": "cancelled", "bad": "failed", "after": "cancelled"}
    assert any("[bad] so far" in line for line in activation.logs)
    assert plane.info().memory_reserved == 0


def test_code_that_does_not_compile(plane: EmbeddedControlPlane, run: Run) -> None:
    element = ComputeElement("e", "import no_such_module\ndef main(p, a):\n    return {}\n")
    activation = run(plane, [element])
    assert activation.error_kind == "element"
    assert "no_such_module" in (activation.error or "")


@pytest.mark.parametrize("value", ["1", "[1]", "{'a': object()}", "{1: 2}"])
def test_a_result_that_is_no_json_object(
    plane: EmbeddedControlPlane, compute: Compute, run: Run, value: str
) -> None:
    activation = run(plane, [compute("e", f"def main(p, a):\n    return {value}\n")])
    assert activation.status == "failed"
    assert activation.error_kind == "result"


def test_a_huge_result_is_an_application_error(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    code = "def main(p, a):\n    return {'x': 'x' * p['n']}\n"
    assert run(plane, [compute("e", code)], {"n": 15_900_000}).status == "success"
    activation = run(plane, [compute("e", code)], {"n": 16_100_000})
    assert activation.error_kind == "result"
    assert "16000000" in (activation.error or "")


def test_a_limit_below_what_a_worker_holds_says_the_minimum(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    activation = run(plane, [compute("small", START, mem=1 * MiB)], {"n": 1})
    assert activation.error_kind == "minimum"
    assert activation.error is not None
    assert "too small" in activation.error
    assert "--compute-memory" in activation.error


def test_exceeding_the_limit_is_a_failure_of_the_element_and_the_worker_lives(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    hog = """
def main(p, a):
    held = [bytearray(1 << 20) for _ in range(1000)]
    return {"n": len(held)}
"""
    activation = run(plane, [compute("hog", hog, mem=200 * MiB)])
    assert activation.error_kind == "limit"
    assert str(200 * MiB) in (activation.error or "")
    assert activation.elements[0].attempts == 1
    assert 100 * MiB < activation.elements[0].peak_anon_bytes < 220 * MiB
    assert run(plane, [compute("hog", START)], {"n": 1}).status == "success"


def test_usage_of_a_run(plane: EmbeddedControlPlane, compute: Compute, run: Run) -> None:
    busy = """
import time
def main(params, action):
    held = bytearray(50 << 20)
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    return {}
"""
    activation = run(plane, [compute("busy", busy, mem=256 * MiB, cpu=2.0)])
    element, usage = activation.elements[0], activation.usage
    assert element.start is not None
    assert element.end is not None
    seconds = element.end - element.start
    assert usage.core_s == pytest.approx(2.0 * seconds, rel=0.01)
    assert element.limit_bytes == 256 * MiB
    times = [*(at for at, _ in element.reserved), seconds]
    spans = [b - a for a, b in itertools.pairwise(times)]
    charged = sum(s * size for s, (_, size) in zip(spans, element.reserved, strict=True)) / 1e9
    assert usage.compute_gb_s == pytest.approx(charged, rel=0.01)
    assert usage.compute_gb_s <= 256 * MiB * seconds / 1e9
    assert usage.peak_compute_bytes == max(size for _, size in element.reserved)
    assert 50 * MiB * 0.05 / 1e9 < usage.held_gb_s < element.peak_anon_bytes * seconds / 1e9
    assert element.cpu_seconds >= 0.05
    assert usage.cpu_s == element.cpu_seconds
    assert element.peak_anon_bytes > 50 * MiB
    assert usage.memory_gb_s == 0
    assert usage.peak_memory_bytes == 0


def test_what_can_never_fit_fails_at_once(
    plane: EmbeddedControlPlane, compute: Compute, memory: Memory, run: Run
) -> None:
    activation = run(plane, [compute("e", START, memory=("m",)), memory("m", 8 << 30)], {"n": 1})
    assert activation.error_kind == "capacity"
    assert "memory element m 8589934592" in (activation.error or "")
    assert activation.elements[0].attempts == 0


def test_a_gang_larger_than_all_cores_runs_alone(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    activation = run(plane, [compute("e", START, cpu=64.0, parallelism=2)], {"n": 1})
    assert activation.status == "success"


def test_time_limit(plane: EmbeddedControlPlane, compute: Compute, run: Run) -> None:
    slow = "import time\ndef main(params, action):\n    time.sleep(3600)\n"
    activation = run(plane, [compute("slow", slow, timeout=0.2)])
    assert activation.status == "failed"
    assert activation.error_kind == "timeout"
    assert "slow" in (activation.error or "")


def test_cancel_kills_the_workers(
    plane: EmbeddedControlPlane, compute: Compute, marker: str
) -> None:
    code = (
        f"import time\ndef main(p, a):\n    open({marker!r}, 'w').close()\n    time.sleep(3600)\n"
    )
    plane.put_application(Application("app", [compute("e", code)]), overwrite=True)
    activation_id = plane.invoke("app")
    with pytest.raises(WaitTimeoutError):
        plane.wait(activation_id, timeout=0.05)
    assert plane.activation(activation_id).status == "running"
    plane.cancel(activation_id)
    activation = plane.wait(activation_id, timeout=60)
    assert activation.status == "cancelled"
    plane.cancel(activation_id)  # no effect
    assert plane.info().memory_reserved == 0


def test_a_plain_action_gives_its_own_result(plane: EmbeddedControlPlane, compute: Compute) -> None:
    plane.put_action(
        Application("hello", [compute("hello", "def main(p):\n    return {'hello': p['who']}\n")])
    )
    assert plane.wait(plane.invoke("hello", {"who": "you"}), 60).result == {"hello": "you"}
    two = Application("two", [compute("a", START), compute("b", START)])
    with pytest.raises(OpenWhiskError, match="one compute element"):
        plane.put_action(two)


def test_names_and_parameters_are_checked(plane: EmbeddedControlPlane, compute: Compute) -> None:
    app = Application("once", [compute("e", START)])
    plane.put_application(app)
    with pytest.raises(AlreadyExistsError):
        plane.put_application(app)
    plane.put_application(app, overwrite=True)
    with pytest.raises(OpenWhiskError, match="parameters"):
        plane.invoke("once", {"x": object()})
    with pytest.raises(OpenWhiskError, match="transport"):
        plane.invoke("once", transport="pigeon")
    with pytest.raises(NotFoundError):
        plane.invoke("once", session="none")
    plane.delete_application("once")
    for call in (
        plane.invoke,
        plane.delete_application,
        plane.activation,
        plane.wait,
        plane.cancel,
    ):
        with pytest.raises(NotFoundError):
            call("once")
    with pytest.raises(ApplicationError):
        plane.put_application(Application("bad", [compute("e", START, parents=("nobody",))]))


def test_observers_see_the_record_before_waiters_do(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    seen: list[Activation] = []
    plane.on_finished(seen.append)
    activation = run(plane, [compute("e", START)], {"n": 1})
    assert [a for a in seen if a.activation_id == activation.activation_id] == [activation]


def test_what_elements_count_and_what_memory_held(
    plane: EmbeddedControlPlane, compute: Compute, memory: Memory, run: Run
) -> None:
    code = """
def main(params, action):
    trans = action.get_transport("x", "rdma")
    addr = trans.alloc(1 << 20)
    trans.write_from(addr, b"1" * (1 << 20))
    action.record_metric("rows", 5 + action.index)
    action.record_metric("rows", 1)
    return {}
"""
    elements = [
        compute("writer", code, memory=("x",), parallelism=2),
        compute("reader", ADD.replace('["n"]', '.get("n", 1)'), parents=("writer",), memory=("x",)),
        memory("x", 8 * MiB, elastic=True, access="exchange"),
    ]
    activation = run(plane, elements)
    assert activation.status == "success", activation.error
    first, second, reader = activation.elements
    assert (first.metrics, second.metrics) == ({"rows": 6.0}, {"rows": 7.0})
    assert reader.metrics == {}
    (held,) = activation.memory
    assert (held.name, held.generation) == ("x", 1)
    assert held.peak_bytes >= 2 * MiB
    assert 0 < held.gb_s == pytest.approx(activation.usage.memory_gb_s)
    assert held.end is not None
    assert reader.end is not None
    assert held.start <= min(first.end or 0, second.end or 0) <= reader.end <= held.end


def test_what_a_failing_element_counted_is_kept(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    code = "def main(params, action):\n    action.record_metric('rows', 2)\n    raise ValueError\n"
    activation = run(plane, [compute("e", code)])
    assert activation.status == "failed"
    assert activation.elements[0].metrics == {"rows": 2.0}
