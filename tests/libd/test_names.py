"""Durls, sizes, refs: what people and JSON write."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libd import Durl, DurlError, LibdError, Ref, SizeError, format_size, parse_size
from libd.errors import BoundsError
from libd.ref import join_address, split_address


def test_durl() -> None:
    durl = Durl.parse("mem1;rdma_tcp;url,tcp://localhost:2333;")
    assert (durl.name, durl.type, dict(durl.config)) == (
        "mem1",
        "rdma_tcp",
        {"url": "tcp://localhost:2333"},
    )
    assert str(durl) == "mem1;rdma_tcp;url,tcp://localhost:2333;"
    assert durl.configured
    assert not Durl.parse("mem1;rdma_tcp;").configured
    assert Durl.parse("mem1;rdma_tcp") == Durl.parse("mem1;rdma_tcp;")
    assert Durl.parse(durl) is durl


def test_durl_hides_its_secrets() -> None:
    durl = Durl.parse("m;rdma_tcp;url,tcp://h:1;token,hunter2;key,00ff;")
    assert "hunter2" not in repr(durl)
    assert "00ff" not in repr(durl)
    assert "hunter2" in str(durl)
    assert pickle.loads(pickle.dumps(durl)) == durl


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "mem1",
        "mem1;",
        ";rdma_tcp;",
        "m;t;url",
        "m;t;,x;",
        "m;t;a,1;a,2;",
        "m m;t;",
        "m,;t;",
        "m;t;;a,1;",
    ],
)
def test_malformed_durls(text: str) -> None:
    with pytest.raises(DurlError):
        Durl.parse(text)


WORD = st.text(
    st.characters(blacklist_characters=";,", blacklist_categories=("Cs", "Cc", "Z")), min_size=1
)
VALUE = st.text(st.characters(blacklist_characters=";\n", blacklist_categories=("Cs", "Cc", "Z")))


@given(WORD, WORD, st.dictionaries(WORD, VALUE))
def test_durls_survive_their_text(name: str, type_: str, config: dict[str, str]) -> None:
    durl = Durl(name, type_, config)
    assert Durl.parse(str(durl)) == durl


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("4096", 4096), (4096, 4096), ("1 KB", 1024), ("1KiB", 1024), ("64 MB", 64 << 20),
        ("1.5 GiB", 3 << 29),
        ("2g", 2 << 30), (" 3 TB ", 3 << 40), ("10b", 10), ("1_000", 1000), ("0.1 KB", 102),
    ],
)  # fmt: skip
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "12 XB", "MB", "-1", "1.5", "1e3", "1 MB 2", "0x10", -1, True, None, 1.5]
)
def test_malformed_sizes(text: object) -> None:
    with pytest.raises(SizeError) as caught:
        parse_size(text)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    if isinstance(text, str) and text:
        assert text.split()[-1] in str(caught.value)


@given(st.integers(0, 1 << 50))
def test_format_size_is_close(size: int) -> None:
    assert abs(parse_size(format_size(size)) - size) <= size * 0.06


EXTENTS = st.lists(st.tuples(st.integers(0, 1 << 39), st.integers(0, 1 << 39)), max_size=5)


@given(st.text(min_size=1), st.integers(0, (1 << 24) - 1), st.integers(0, (1 << 53) - 1), EXTENTS)
def test_refs_survive_json(
    element: str, region: int, epoch: int, extents: list[tuple[int, int]]
) -> None:
    ref = Ref(element, region, epoch, extents)
    assert Ref.from_json(json.loads(json.dumps(ref.to_json()))) == ref
    assert set(ref.to_json()) == {"element", "region", "epoch", "extents"}


GOOD = {"element": "m", "region": 1, "epoch": 2, "extents": [[0, 4]]}


@pytest.mark.parametrize(
    "change",
    [
        {"element": ""}, {"element": 3}, {"region": -1}, {"region": 1 << 24}, {"epoch": 1 << 53},
        {"epoch": "2"}, {"epoch": True}, {"extents": 4}, {"extents": [[1]]},
        {"extents": [[1, 2, 3]]}, {"extents": [[-1, 2]]},
        {"extents": ["ab"]}, {"extents": [[1 << 40, 1]]}, {"extents": [[1.0, 2]]}, {"more": 1},
    ],
)  # fmt: skip
def test_malformed_refs(change: dict[str, object]) -> None:
    with pytest.raises(LibdError):
        Ref.from_json(GOOD | change)


@pytest.mark.parametrize("name", sorted(GOOD))
def test_refs_lack_nothing(name: str) -> None:
    with pytest.raises(LibdError):
        Ref.from_json({k: v for k, v in GOOD.items() if k != name})


def test_addresses() -> None:
    assert split_address(join_address(3, 5)) == (3, 5)
    for region, offset in ((1 << 24, 0), (0, 1 << 40), (-1, 0)):
        with pytest.raises(BoundsError):
            join_address(region, offset)
