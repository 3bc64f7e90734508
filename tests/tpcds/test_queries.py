from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpcds.errors import QueryListError
from tpcds.queries import parse_query_list, query_text, query_texts


def test_a_list_of_numbers_and_ranges() -> None:
    assert parse_query_list("1,16,90-95") == [1, 16, 90, 91, 92, 93, 94, 95]


def test_order_is_kept_and_repetitions_are_dropped() -> None:
    assert parse_query_list(" 7, q3 ,1-3,7") == [7, 3, 1, 2]


def test_all() -> None:
    assert parse_query_list("ALL") == list(range(1, 100))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0", "no TPC-DS query 0"),
        ("100", "no TPC-DS query 100"),
        ("1,90-120", "no TPC-DS query 120"),
        ("5-3", "runs backwards"),
        ("", "neither a query number nor a range"),
        ("1,,2", "neither a query number nor a range"),
        ("three", "'three'"),
        ("1;2", "'1;2'"),
        ("-4", "'-4'"),
        ("1.5", "'1.5'"),
        ("99999999999999999999", "no TPC-DS query"),
    ],
)
def test_what_is_wrong_with_a_list_is_said(text: str, says: str) -> None:
    with pytest.raises(QueryListError, match=says) as caught:
        parse_query_list(text)
    assert "\n" not in str(caught.value)


@given(st.lists(st.integers(1, 99), min_size=1, max_size=12))
def test_any_numbers_come_back(numbers: list[int]) -> None:
    assert parse_query_list(",".join(map(str, numbers))) == list(dict.fromkeys(numbers))


@given(st.text(max_size=12))
def test_any_text_is_a_list_or_a_clear_error(text: str) -> None:
    try:
        numbers = parse_query_list(text)
    except QueryListError:
        return
    assert set(numbers) <= set(range(1, 100))


def test_there_are_99_texts() -> None:
    texts = query_texts()
    assert sorted(texts) == list(range(1, 100))
    assert "cs_order_number" in query_text(16)
    assert not any(text.endswith(";") for text in texts.values())


def test_there_is_no_text_100() -> None:
    with pytest.raises(QueryListError, match="no TPC-DS query 100"):
        query_text(100)
