"""All 99 queries of TPC-DS through the front end, unsplit, against DuckDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Tpcds


@pytest.mark.parametrize("number", range(1, 100))
def test_query_has_duckdbs_answer(tpcds: Tpcds, number: int) -> None:
    tpcds.harness.check(tpcds.queries[number])
