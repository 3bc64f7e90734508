"""Tables in memory files: whose they are, and what ends with them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from remote_frame import spool
from remote_frame.errors import StorageError

DATA = pa.table({"a": [1, 2, 3]})


def test_a_table_that_cannot_be_opened_gives_its_descriptor_back_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A second time it would be somebody else's: another file would be cut to nothing."""
    used: list[int] = []
    created = os.memfd_create

    def noted(*arguments: Any) -> int:
        used.append(created(*arguments))
        return used[-1]

    def failing(path: str) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(os, "memfd_create", noted)
    monkeypatch.setattr(spool.pq, "ParquetFile", failing)
    with pytest.raises(StorageError, match="no such luck"):
        spool.SpooledTable.written(DATA, "data")
    other = tmp_path / "other"
    other.write_text("precious")
    file = os.open(other, os.O_RDWR)
    os.dup2(file, used[0])  # takes the number that was given back
    gc.collect()
    assert os.read(used[0], 100) == b"precious"
    os.close(used[0])
    if file != used[0]:
        os.close(file)


CHILD = """
import os, sys
import pyarrow as pa
from remote_frame.spool import SpooledTable
table = SpooledTable.written(pa.table({"a": [1, 2, 3]}), "data")
if os.fork() == 0:
    sys.exit(0)  # runs what is to be run at the end of a process
os.wait()
print(table.table().to_pydict())
"""


def test_a_child_of_fork_leaves_its_parents_table_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == str(DATA.to_pydict()), done.stderr


def test_its_bytes_go_with_it() -> None:
    table = spool.SpooledTable.written(DATA, "data")
    other = os.dup(table.descriptor)
    assert os.fstat(other).st_size > 0
    del table
    gc.collect()
    assert os.fstat(other).st_size == 0
    os.close(other)
