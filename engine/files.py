"""What kind of files a table is in, and Arrow IPC files as tables.

Parquet files stay where they are: elements read them. CSV goes through
`remote_frame.files.spool_csv`; Arrow files, which a kernel's statement has no place for, become
Arrow data of the program.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Literal

import pyarrow as pa

from operators.errors import DataFileError
from operators.parquet_files import FileSet, files_below

__all__ = ["FileKind", "file_kind", "read_arrow"]

FileKind = Literal["parquet", "csv", "arrow"]

_SUFFIXES: dict[str, FileKind] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
_COMPRESSED = (".gz", ".zst")


def file_kind(source: FileSet) -> tuple[FileKind, list[Path]]:
    """What files hold, by their names, and which they are; a name that says nothing, and files that
    do not exist, are taken for Parquet.

    In a directory that holds Parquet files everything else is passed over.

    Raises
    ------
    DataFileError
        If they are of several kinds.
    """
    paths = _paths(source)
    if not isinstance(source, str | os.PathLike) or not Path(source).is_dir():
        kinds = {_kind(p) or "parquet" for p in paths}
    else:
        kinds = {kind for p in paths if (kind := _kind(p)) is not None}
        kinds = {"parquet"} if "parquet" in kinds else kinds
        paths = [p for p in paths if _kind(p) in kinds]
    if len(kinds) > 1:
        listed = " and ".join(sorted(kinds))
        raise DataFileError(f"{_shown(source)}: files of several kinds ({listed})")
    return next(iter(kinds), "parquet"), paths


def _kind(path: Path) -> FileKind | None:
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return _SUFFIXES.get(os.path.splitext(name)[1])


def _paths(source: FileSet) -> list[Path]:
    if not isinstance(source, str | os.PathLike):
        return [Path(s) for s in source]
    path = Path(source)
    if path.is_dir():
        return files_below(path)
    if path.exists():
        return [path]
    return sorted(Path(p) for p in glob.glob(os.fspath(source), recursive=True)) or [path]


def _shown(source: FileSet) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return ", ".join(os.fspath(s) for s in source)


def read_arrow(paths: list[Path]) -> pa.Table:
    """The rows of Arrow IPC files (feather version 2 among them) or streams, in order.

    Raises
    ------
    DataFileError
        If one is missing or unreadable, or has other columns than the first; the message names it.
    """
    tables = []
    for path in paths:
        tables.append(_ipc(path))
        if not tables[-1].schema.equals(tables[0].schema):
            raise DataFileError(f"{path}: its columns differ from those of {paths[0]}")
    return pa.concat_tables(tables)


def _ipc(path: Path) -> pa.Table:
    try:
        with pa.OSFile(os.fspath(path)) as file:
            magic = file.read(6)
        with pa.memory_map(os.fspath(path)) as source:
            if magic == b"ARROW1":
                return pa.ipc.open_file(source).read_all()
            return pa.ipc.open_stream(source).read_all()
    except FileNotFoundError:
        raise DataFileError(f"{path}: there is no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataFileError(f"{path}: not a readable Arrow file ({reason})") from None
