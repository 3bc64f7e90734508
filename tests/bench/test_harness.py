"""The harness's arithmetic and its verdicts."""

from __future__ import annotations

import math

import pytest

from bench.harness import Case, Gauge, Timer, calls_per_round, in_unit, measure


def case(unit: str = "ms", **more: object) -> Case:
    return Case("case", unit, lambda: None, "peer", lambda: None, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("unit", "more", "figure"),
    [
        ("s", {}, 0.5),
        ("ms", {"operations": 10}, 50.0),
        ("us", {"operations": 1000}, 500.0),
        ("GB/s", {"size": 10**9}, 2.0),
        ("GB/s", {"size": 10**9, "operations": 3}, 6.0),
        ("k/s", {"operations": 1000}, 2.0),
    ],
)
def test_units(unit: str, more: dict[str, int], figure: float) -> None:
    made = case(unit, **more)
    assert math.isclose(in_unit(made, made.ours, 0.5, made.operations), figure)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="furlongs"):
        in_unit(case("furlongs"), None, 1.0, 1)


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
            size=10**9, target=1.9,
        ),
        rounds=3,
    )  # fmt: skip
    assert row.ours == pytest.approx(1.0)
    assert row.ratio == pytest.approx(2.0)
    assert row.met is True
    assert row.target == ">= 1.9 x peer"


@pytest.mark.parametrize(("target", "met"), [(1.9, True), (2.1, False)])
def test_a_rate_must_be_high(clock: Clock, target: float, met: bool) -> None:
    row = measure(
        Case("c", "k/s", lambda: clock.spend(1.0), "p", lambda: clock.spend(2.0), target=target),
        rounds=3,
    )
    assert row.met is met


@pytest.mark.parametrize(("margin", "met"), [(1.5, True), (0.5, False)])
def test_margin_is_about_the_difference(clock: Clock, margin: float, met: bool) -> None:
    row = measure(
        Case("c", "s", lambda: clock.spend(3.0), "p", lambda: clock.spend(2.0), margin=margin),
        rounds=3,
    )
    assert row.met is met
    assert row.target == f"<= peer + {margin:g} s"


def test_sides_of_different_batches(clock: Clock) -> None:
    row = measure(
        Case(
            "c", "s", lambda: clock.spend(8.0), "p", lambda: clock.spend(2.0),
            operations=8, peer_operations=1,
        ),
        rounds=3,
    )  # fmt: skip
    assert (row.ours, row.peer) == (1.0, 2.0)


def test_rounds_last_long_enough(clock: Clock) -> None:
    calls = calls_per_round(lambda: clock.spend(1e-6), 0.02)
    assert 20_000 <= calls < 40_000


def test_one_sides_calls_do_not_depend_on_the_others(clock: Clock) -> None:
    seen = {"ours": 0, "peer": 0}

    def side(name: str, seconds: float) -> None:
        seen[name] += 1
        clock.spend(seconds)

    measure(
        Case("c", "us", lambda: side("ours", 1e-4), "p", lambda: side("peer", 1.0), repeat=0),
        rounds=3, least=0.01,
    )  # fmt: skip
    assert seen["ours"] > 300
    assert seen["peer"] == 1 + 1 + 3  # warm-up, calibration, rounds


def test_a_gauge_is_read_as_it_is() -> None:
    row = measure(Case("c", "MB", Gauge(lambda: 17.0), "-", limit=20.0), rounds=3)
    assert (row.ours, row.met) == (17.0, True)


class Wrong(Timer):
    def seconds(self, repeat: int) -> float:
        return 1e-3 * repeat

    def check(self) -> None:
        raise ArithmeticError("wrong bytes")


@pytest.mark.parametrize("side", ["ours", "peer"])
def test_wrong_bytes_of_either_side_end_the_run(side: str) -> None:
    sides = {"ours": lambda: None, "peer": lambda: None, side: Wrong()}
    with pytest.raises(ArithmeticError):
        measure(Case("c", "us", sides["ours"], "p", sides["peer"]), rounds=3)  # type: ignore[arg-type]


def test_without_a_peer_the_limit_still_counts(clock: Clock) -> None:
    row = measure(Case("c", "ms", lambda: clock.spend(0.002), "absent", limit=1.0), rounds=3)
    assert row.peer is None
    assert row.ratio is None
    assert row.met is False
