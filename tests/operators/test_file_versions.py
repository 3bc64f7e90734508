"""Files that are compared with what they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from operators.errors import FileChangedError, OperatorError
from operators.file_versions import FileVersion, VersionedFile, check, unchanged


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "x.parquet"
    made.write_bytes(b"one")
    return made


@pytest.fixture
def known(path: Path) -> VersionedFile:
    return str(path), FileVersion.of(path)


def test_a_file_that_is_what_it_was(known: VersionedFile, path: Path) -> None:
    with unchanged([known, known]):
        assert path.read_bytes() == b"one"


@pytest.mark.parametrize("how", ["grown", "touched", "replaced", "gone"])
def test_a_change_is_seen_before_and_after(known: VersionedFile, path: Path, how: str) -> None:
    def change() -> None:
        if how == "grown":
            path.write_bytes(b"more")
        elif how == "touched":
            os.utime(path, ns=(0, 0))
        else:
            kept = path.stat().st_mtime_ns
            path.unlink()
            if how == "replaced":
                (path.parent / "other").write_bytes(b"")
                path.write_bytes(b"two")
                os.utime(path, ns=(kept, kept))

    with pytest.raises(FileChangedError, match=r"x\.parquet: the file (changed|is gone)"):
        with unchanged([known]):
            change()
    with pytest.raises(FileChangedError, match=r"x\.parquet"):
        with unchanged([known]):
            raise AssertionError("not reached")


def test_errors_are_blamed_on_a_change_only_if_there_was_one(
    known: VersionedFile, path: Path
) -> None:
    with pytest.raises(OperatorError, match="something else"):
        with unchanged([known]):
            raise OperatorError("something else")

    def fail() -> None:
        path.write_bytes(b"changed")
        raise OperatorError("a consequence")

    with pytest.raises(FileChangedError, match="changed") as caught:
        with unchanged([known]):
            fail()
    assert isinstance(caught.value.__cause__, OperatorError)
    check([(str(path), FileVersion.of(path))])
