"""The cases of `python -m bench` under pytest-benchmark: `pytest bench --benchmark-only`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.dag import dag
from bench.harness import Case, joined
from bench.transports import transports


@pytest.fixture(scope="module")
def cases() -> Iterator[dict[str, Case]]:
    with joined(transports, dag) as found:
        yield {case.name: case for case in found}


def names() -> list[str]:
    """Names of all cases, without starting what they need."""
    from bench.dag import NAMES as DAG_NAMES
    from bench.transports import NAMES as TRANSPORT_NAMES

    return [*TRANSPORT_NAMES, *DAG_NAMES]


@pytest.mark.parametrize("side", ["ours", "peer"])
@pytest.mark.parametrize("name", names())
def test_case(benchmark: Any, cases: dict[str, Case], name: str, side: str) -> None:
    case = cases[name]
    call = case.ours if side == "ours" else case.peer
    if call is None:
        pytest.skip(f"the peer of {name!r} is not installed: {case.peer_name}")
    benchmark.group = name
    benchmark.extra_info["side"] = case.peer_name if side == "peer" else "scad"
    benchmark(call)
