"""How a client asks its RDMA device, seen at one that writes it down: no device is needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.libd.test_device import CSRC, HEADER, HERE, compiled

UNSUPPORTED, NO_WAY = 8, 6
BURST = 32  # work requests that are handed to the device at a time

pytestmark = pytest.mark.skipif(
    not HEADER.exists(), reason="no libibverbs headers: apt-get install libibverbs-dev"
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [str(path) for path in CSRC.glob("*.c") if path.name != "verbs_lib.c"]
    out = tmp_path_factory.mktemp("native") / "asking"
    return compiled(out, str(HERE / "asking_harness.c"), *sources)


def run(program: Path, *arguments: str) -> dict[str, list[int]]:
    said = subprocess.run(
        [program, *arguments], stdout=subprocess.PIPE, text=True, timeout=120, check=True
    ).stdout
    return {name: [int(n) for n in rest] for name, *rest in map(str.split, said.splitlines())}


def test_short_writes_are_carried_along_and_few_are_told_of(program: Path) -> None:
    said = run(program)
    assert said["open"] == [0, 1]  # one READ of nothing
    code, requests, lists, inlined, signalled = said["short-write"]
    assert (code, requests, lists, inlined, signalled) == (0, 1, 1, 1, 1)
    code, requests, lists, inlined, signalled = said["longer-write"]
    assert (code, requests, lists, inlined, signalled) == (0, 1, 1, 0, 1)
    for name, carried in (("short-writes", 1000), ("short-reads", 0)):
        code, requests, lists, inlined, signalled = said[name]
        assert (code, requests, inlined) == (0, 1000, carried)
        # One doorbell, and one completion, for many of them.
        assert lists <= 2 * 1000 / BURST
        assert signalled <= lists + 1


@pytest.mark.parametrize("how", ["flushed", "given-up"])
def test_the_end_of_the_connection_may_be_heard_of_late(program: Path, how: str) -> None:
    """The server's queue pair ends with the connection; the device may say so first."""
    assert run(program)[f"cut-and-{how}"][0] == 0


def test_a_device_whose_requests_get_lost_is_not_opened(program: Path) -> None:
    assert run(program, "lose")["open"] == [UNSUPPORTED, NO_WAY]
