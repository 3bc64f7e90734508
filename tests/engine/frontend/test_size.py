"""Long queries: what only is long is planned, what nests too deeply is refused by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.errors import NestingError

if TYPE_CHECKING:
    from conftest import Harness


@pytest.mark.parametrize(
    "sql",
    [
        f"select {'+'.join(['a::bigint'] * 100)} z from t",
        f"select {' || '.join(['s'] * 60)} z from t",
        " union all ".join(f"select a, {i} as b from t" for i in range(120)),
        " union ".join(f"select a, {i} % 9 as b from t" for i in range(100)),
        f"select count(*) from t where {' or '.join(f'a={i}' for i in range(1000))}",
        f"select count(*) from t where {' or '.join(f'(a>{i} and l<{i})' for i in range(150))}",
        f"select count(*) from t where {' and '.join(f'(a>{i} or l<{i})' for i in range(150))}",
        f"select {' or '.join(f'a*{i}=b' for i in range(100))} z, bo from t",
        f"select count(*) from t where not ({' or '.join(f'a+1={i}' for i in range(99))})",
    ],
)
def test_long_queries(harness: Harness, sql: str) -> None:
    harness.check(sql)


def nested(depth: int) -> str:
    text = "select a from t"
    for i in range(depth):
        text = f"select a + 1 as a from ({text}) as s{i}"
    return text


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        (f"select {'+'.join(['a'] * 600)} from t", "599 levels of +"),
        (f"select {'(' * 400}a{' + 1)' * 400} from t", "400 levels of +"),
        (nested(150), "subqueries"),
        (f"select {'abs(' * 400}a{')' * 400} from t", "400 levels of ABS"),
    ],
    ids=["sum", "parentheses", "subqueries", "calls"],
)
def test_what_nests_too_deeply_is_named(harness: Harness, sql: str, named: str) -> None:
    with pytest.raises(NestingError) as caught:
        harness.plan(sql)
    assert named in str(caught.value)
    assert harness.plan("select a from t").schema.names == ("a",)
