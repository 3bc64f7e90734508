"""Files that are compared with what they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import DataError, EngineError
from engine.versions import FileVersion, FileVersions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "x.parquet"
    made.write_bytes(b"one")
    return made


@pytest.fixture
def versions(path: Path) -> FileVersions:
    made = FileVersions()
    made.update({str(path): FileVersion.of(path)})
    return made


def test_a_file_that_is_what_it_was(versions: FileVersions, path: Path) -> None:
    with versions.unchanged([str(path), str(path), "/never/registered"]):
        assert path.read_bytes() == b"one"


@pytest.mark.parametrize("how", ["grown", "touched", "replaced", "gone"])
def test_a_change_is_seen_before_and_after(versions: FileVersions, path: Path, how: str) -> None:
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

    with pytest.raises(DataError, match=r"x\.parquet: the file (changed|is gone)"):
        with versions.unchanged([str(path)]):
            change()
    with pytest.raises(DataError, match=r"x\.parquet"):
        with versions.unchanged([str(path)]):
            raise AssertionError("not reached")


def test_errors_are_blamed_on_a_change_only_if_there_was_one(
    versions: FileVersions, path: Path
) -> None:
    with pytest.raises(EngineError, match="something else"):
        with versions.unchanged([str(path)]):
            raise EngineError("something else")

    def fail() -> None:
        path.write_bytes(b"changed")
        raise EngineError("a consequence")

    with pytest.raises(DataError, match="changed") as caught:
        with versions.unchanged([str(path)]):
            fail()
    assert isinstance(caught.value.__cause__, EngineError)
    versions.update({str(path): FileVersion.of(path)})
    versions.check([str(path)])
