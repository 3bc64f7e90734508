"""The harness's arithmetic, and one run of each suite's command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.harness import Case, in_unit, measure


def case(unit: str = "ms", **more: object) -> Case:
    return Case("case", unit, lambda: None, "peer", lambda: None, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit", "more", "figure"),
    [
        ("s", {}, 0.5),
        ("ms", {"operations": 10}, 50.0),
        ("us", {"operations": 1000}, 500.0),
        ("GB/s", {"size": 10**9}, 2.0),
    ],
)
def test_units(unit: str, more: dict[str, int], figure: float) -> None:
    assert math.isclose(in_unit(case(unit, **more), 0.5), figure)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="furlongs"):
        in_unit(case("furlongs"), 1.0)


class Clock:
    """A clock that only the cases move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("bench.harness.time.perf_counter", made)
    return made


@pytest.mark.parametrize(("target", "met"), [(0.5, True), (0.49, False), (None, None)])
def test_times_ratio_and_target(clock: Clock, target: float | None, met: bool | None) -> None:
    row = measure(
        Case("c", "ms", lambda: clock.spend(0.001), "p", lambda: clock.spend(0.002), target=target),
        rounds=5,
    )
    assert math.isclose(row.ours, 1.0)
    assert row.peer is not None
    assert math.isclose(row.peer, 2.0)
    assert row.ratio is not None
    assert math.isclose(row.ratio, 0.5)
    # Exactly at the target the sums of floats decide; just inside and outside must not.
    if target != 0.5:
        assert row.met is met
    assert row.spread == pytest.approx(0.0, abs=1e-6)


def test_bandwidth_ratio_is_inverted(clock: Clock) -> None:
    row = measure(
        Case(
            "c", "GB/s", lambda: clock.spend(1.0), "p", lambda: clock.spend(2.0),
            size=10**9, target=0.9,
        ),
        rounds=3,
    )  # fmt: skip
    assert row.ours == pytest.approx(1.0)
    assert row.ratio == pytest.approx(2.0)
    assert row.met is True
    assert row.target.startswith(">= 1.11")


def test_without_a_peer_the_limit_still_counts(clock: Clock) -> None:
    row = measure(Case("c", "ms", lambda: clock.spend(0.002), "absent", limit=1.0), rounds=3)
    assert row.peer is None
    assert row.ratio is None
    assert row.met is False


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["transports", "dag"])
def test_suites_run_and_write_rows(suite: str, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    assert main([suite, "--rounds", "3", "--json", str(out)]) in (0, 1)
    rows = json.loads(out.read_text())
    assert rows
    wanted = {"name", "unit", "ours", "peer_name", "peer", "ratio", "target", "met", "spread"}
    assert all(set(row) == wanted for row in rows)
