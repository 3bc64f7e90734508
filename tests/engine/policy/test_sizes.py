from __future__ import annotations

from pathlib import Path

import pytest

from engine.policy import Grain, Sizes
from openwhisk.api import ElementRecord
from openwhisk.invoker.workers import Worker, WorkerPool
from openwhisk.scheduler.messages import RunId
from openwhisk.worker.messages import Metrics
from remote_frame.memory import kernel_memory

MiB = 1 << 20
WHOLE = Grain(1, 2, 4096 * MiB)
PARTS = Grain(4, 1, 4096 * MiB)
UNKNOWN = 400 * MiB
KEPT = 192 * MiB  # by workers, of elements before


def held(name: str, anon: int, data: int, index: int = 0) -> ElementRecord:
    return ElementRecord(
        name=name, index=index, peak_anon_bytes=anon * MiB, peak_data_bytes=data * MiB
    )


def test_what_is_not_known_is_a_multiple_of_the_guess_within_the_grain() -> None:
    sizes = Sizes()
    assert sizes.memory("q", WHOLE, "s1", 0) == UNKNOWN
    assert sizes.memory("q", WHOLE, "s1", 32 * MiB) == UNKNOWN + 48 * MiB
    assert sizes.memory("q", WHOLE, "s1", 1024 * MiB) == UNKNOWN + 1536 * MiB
    assert sizes.memory("q", WHOLE, "s1", 1e12) == WHOLE.memory


def test_what_was_held_is_reserved_with_a_margin() -> None:
    sizes = Sizes()
    sizes.learn("q", WHOLE, [held("s1", 96 + 300, 600), held("s1", 50, 60, index=1)])
    reserved = sizes.memory("q", WHOLE, "s1", 1e12)
    assert 96 * MiB + 1.15 * (600 - 96) * MiB <= reserved - KEPT <= 690 * MiB
    # …of that shape, at that grain, for that stage.
    assert sizes.memory("q", PARTS, "s1", 1e12) == PARTS.memory
    assert sizes.memory("p", WHOLE, "s1", 1e12) == WHOLE.memory
    assert sizes.memory("q", WHOLE, "s2", 1e12) == WHOLE.memory


def test_what_the_kernel_held_has_one_margin() -> None:
    sizes = Sizes()
    sizes.learn("q", WHOLE, [held("s1", 96 + 300, 400)])
    reserved = sizes.memory("q", WHOLE, "s1", 0)
    assert kernel_memory(reserved) >= 300 * MiB, "its own limit allows what it held"
    assert reserved - KEPT <= (96 + 300 / 0.75 + 4) * MiB


def test_a_limit_has_room_for_what_its_worker_kept_of_the_element_before() -> None:
    """Or else each query whose needs are known would wait for a fork."""
    sizes = Sizes()
    forked: list[Worker] = []
    assigned: list[Worker] = []
    sizes.learn("q", WHOLE, [held("s1", 130, 150)])
    pool = WorkerPool(
        fork=forked.append,
        kill=forked.remove,
        quit_=forked.remove,
        assign=lambda worker, run: assigned.append(worker),
        max_idle=2,
    )
    pool.start(RunId("a", "e", 0, 1), WHOLE.memory)
    (worker,) = forked
    pool.greeted(worker, 110 * MiB, 80 * MiB)
    pool.finished(worker, Metrics(data=(110 + 75) * MiB, anon=140 * MiB))
    pool.start(RunId("b", "e", 0, 1), sizes.memory("q", WHOLE, "s1", 0))
    assert assigned == [worker, worker]


def test_the_largest_of_all_copies_counts() -> None:
    sizes, one = Sizes(), Sizes()
    sizes.learn("q", WHOLE, [held("s1", 700, 900), held("s1", 100, 200, index=1)])
    one.learn("q", WHOLE, [held("s1", 700, 900)])
    assert sizes.memory("q", WHOLE, "s1", 0) == one.memory("q", WHOLE, "s1", 0)


def test_a_peak_that_comes_no_more_fades() -> None:
    sizes = Sizes()
    sizes.learn("q", WHOLE, [held("s1", 700, 900)])
    reserved = []
    for _ in range(12):
        reserved.append(sizes.memory("q", WHOLE, "s1", 0))
        sizes.learn("q", WHOLE, [held("s1", 200, 300)])
    assert reserved == sorted(reserved, reverse=True)
    fresh = Sizes()
    fresh.learn("q", WHOLE, [held("s1", 200, 300)])
    assert reserved[1] > 1.5 * reserved[-1]
    assert reserved[-1] - fresh.memory("q", WHOLE, "s1", 0) <= 4 * MiB
    sizes.learn("q", WHOLE, [held("s1", 700, 900)])
    assert sizes.memory("q", WHOLE, "s1", 0) == reserved[0], "what grows counts at once"


def test_a_guess_that_did_not_suffice_is_followed_by_all_there_is() -> None:
    sizes = Sizes()
    tries = []
    while True:
        reserved = sizes.memory("q", WHOLE, "s1", 0)
        tries.append(reserved // MiB)
        if not sizes.exceeded("q", WHOLE, {"s1": reserved}, "s1"):
            break
    assert tries == [400, 4096]
    assert sizes.too_coarse("q", WHOLE)
    assert not sizes.too_coarse("q", PARTS)


def test_what_was_known_and_did_not_suffice_is_followed_by_half_as_much_again() -> None:
    sizes = Sizes()
    sizes.learn("q", WHOLE, [held("s1", 200, 300)])
    reserved = sizes.memory("q", WHOLE, "s1", 0)
    assert sizes.exceeded("q", WHOLE, {"s1": reserved}, "s1")
    assert 0 <= sizes.memory("q", WHOLE, "s1", 0) - 1.5 * reserved <= 4 * MiB


def test_little_is_given_whole() -> None:
    assert Sizes().memory("q", Grain(1, 2, 1024 * MiB), "s1", 0) == 1024 * MiB


def test_a_grain_that_spills_is_never_too_coarse() -> None:
    sizes = Sizes()
    sizes.exceeded("q", PARTS, {}, None)
    assert sizes.too_coarse("q", WHOLE)
    assert sizes.too_coarse("q", PARTS)
    assert not sizes.too_coarse("q", Grain(4, 1, PARTS.memory, storage=1))


def test_a_file_passes_on_what_was_learnt(tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    first = Sizes(path)
    first.learn("q", WHOLE, [held("s1", 396, 600)])
    first.exceeded("p", WHOLE, {}, None)
    second = Sizes(path)
    assert second.memory("q", WHOLE, "s1", 0) == first.memory("q", WHOLE, "s1", 0)
    assert second.too_coarse("p", WHOLE)
    assert [p.name for p in tmp_path.iterdir()] == ["sizes.json"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 99, "shapes": 1}', b"\xff\xfe"]
)
def test_a_file_that_is_none_of_ours_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sizes.json"
    path.write_bytes(content)
    sizes = Sizes(path)
    assert sizes.memory("q", WHOLE, "s1", 0) == UNKNOWN
    sizes.learn("q", WHOLE, [held("s1", 200, 300)])
    assert Sizes(path).memory("q", WHOLE, "s1", 0) == sizes.memory("q", WHOLE, "s1", 0) != UNKNOWN


def test_a_file_that_cannot_be_written_fails_no_query(tmp_path: Path) -> None:
    sizes = Sizes(tmp_path / "gone" / "sizes.json")
    sizes.learn("q", WHOLE, [held("s1", 100, 150)])
    assert sizes.memory("q", WHOLE, "s1", 0) < UNKNOWN
