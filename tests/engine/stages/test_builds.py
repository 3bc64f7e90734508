from __future__ import annotations

import pyarrow as pa
import pytest

from engine.stages.builds import choose_builds
from operators import build
from operators.rel import InputSource, Join, JoinKind, ParquetSource, Rel
from operators.schema import Field, Schema

SCHEMA = Schema((Field("k", pa.int64()),))


class Rows:
    """Estimates by the number in an input's name."""

    def rows(self, rel: Rel) -> float:
        source = getattr(rel, "source", None)
        return float(source.name[1:]) if isinstance(source, InputSource) else 1.0

    def width(self, schema: Schema) -> float:
        return 8.0

    def note(self, name: str, like: Rel) -> None: ...


def exchange(rows: int) -> Rel:
    return build.scan(InputSource(f"x{rows}"), SCHEMA)


def joined(left: Rel, right: Rel, kind: JoinKind) -> Join:
    join = build.join(left, right, kind, on=[(0, 0)])
    chosen = choose_builds(join, Rows())
    assert isinstance(chosen, Join)
    return chosen


@pytest.mark.parametrize(("left", "right", "side"), [(10, 100, "left"), (100, 10, "right")])
def test_the_smaller_side_of_an_inner_join_is_hashed(left: int, right: int, side: str) -> None:
    assert joined(exchange(left), exchange(right), "inner").build == side


@pytest.mark.parametrize("kind", ["left", "right", "full", "semi", "anti"])
def test_other_joins_are_not_turned_around(kind: JoinKind) -> None:
    assert joined(exchange(10), exchange(100), kind).build == "right"


def test_joins_of_files_are_left_to_the_kernel() -> None:
    files = [build.scan(ParquetSource(n, (f"{n}.parquet",)), SCHEMA) for n in "ab"]
    assert joined(*files, "inner").build is None
