"""Every peer moves the right bytes; one that is not installed is skipped with how to get it."""

from __future__ import annotations

import pytest

from bench.harness import Options, Timer
from bench.peers import PEERS, missing, opened
from bench.sizes import shm, tcp
from bench.work import MIB, Job

JOBS = [
    Job("read", 8),
    Job("read", 4096),
    Job("write", 4096),
    Job("read", MIB),
    Job("write", MIB),
    Job("read", 4096, way="map"),
    *(
        Job(kind, 4096, 4, way, 16, scattered=kind == "read")
        for kind in ("read", "write")
        for way in ("window", "vector")
    ),
]
SLOW = {"ray"}


@pytest.mark.parametrize(
    "key", [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in PEERS]
)
def test_peer_moves_the_right_bytes(key: str) -> None:
    if why := missing(key):
        pytest.skip(why)
    with opened(key) as peer:
        done = 0
        for job in JOBS:
            if peer.takes(job):
                side = peer.side(job)
                assert isinstance(side, Timer)
                side.check()
                assert side.seconds(2) > 0
                done += 1
    assert done >= 5


@pytest.mark.parametrize("key", ["socket", "redis"])
def test_peer_with_two_clients(key: str) -> None:
    if why := missing(key):
        pytest.skip(why)
    with opened(key, clients=2) as peer:
        side = peer.side(Job("read", 4096))
        assert isinstance(side, Timer)
        side.check()
        assert side.seconds(2) > 0


def test_a_missing_peer_is_a_row_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for suite, key, how in (
        (tcp, "redis", "apt-get install redis-server"),
        (tcp, "ucx", "ucx-utils"),
    ):
        cases = list(suite(Options(peers=frozenset({key}), quick=True)))
        assert cases
        assert all(case.peer is None for case in cases)
        assert all("not installed" in case.peer_name for case in cases)
        assert all(how in case.peer_name for case in cases)


def test_only_chosen_peers_take_part() -> None:
    cases = list(shm(Options(peers=frozenset({"copyto"}), quick=True)))
    assert {case.peer_name for case in cases} == {"np.copyto", "np.copyto out of map"}
