"""TPC-H's 22 queries at scale factor 0.01."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Beside

# Queries whose ORDER BY leaves ties, in which rows may come in any order.
TIES = {2, 3, 9, 10, 11, 16, 18, 21}


@pytest.mark.parametrize("number", range(1, 23))
def test_query(tpch: Beside, number: int) -> None:
    (found,) = tpch.connection.execute(
        "SELECT query FROM tpch_queries() WHERE query_nr = ?", [number]
    ).fetchall()
    answer = tpch.check(found[0], ordered=number not in TIES)
    assert answer.num_columns > 0
