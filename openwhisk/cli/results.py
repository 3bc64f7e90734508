"""Results of elements that were run by hand, one JSON file per parallel copy.

``DIR/NAME@INDEX.json`` holds ``{"element", "index", "count", "result"}``: beside the result, how
many copies there are, so that a dependent can tell whether it has all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from openwhisk.cli.common import ToolError, write_text


def store_result(directory: Path, element: str, index: int, count: int, result: Any) -> Path:
    """Write the result of one copy, and remove those of copies that no longer exist."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for old, i in _files(directory, element):
            if i >= count:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise ToolError(f"{directory}: {error.strerror}") from None
    path = directory / f"{element}@{index}.json"
    record = {"element": element, "index": index, "count": count, "result": result}
    write_text(path, json.dumps(record, indent=2) + "\n")
    return path


def parents_results(directory: Path, element: str, parents: Iterable[str]) -> dict[str, list[Any]]:
    """Return ``{parent: [result of each copy]}``, as the control plane would hand it on.

    Raises
    ------
    ToolError
        Naming the parent, or the copy of it, that has to be run first.
    """
    return {parent: _results(directory, element, parent) for parent in parents}


def _results(directory: Path, element: str, parent: str) -> list[Any]:
    found: dict[int, Any] = {}
    counts: set[int] = set()
    for path, index in _files(directory, parent):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            counts.add(int(record["count"]))
            found[index] = record["result"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ToolError(f"{path}: not a result of {parent}: {error!r}") from None
    if not found:
        raise ToolError(
            f"{element} waits for {parent}, whose result is not in {directory}: run {parent} first"
        )
    if len(counts) > 1:
        numbers = ", ".join(map(str, sorted(counts)))
        raise ToolError(
            f"{directory} holds results of {parent} from runs with different numbers of copies "
            f"({numbers}): run all copies of {parent} again"
        )
    missing = [i for i in range(counts.pop()) if i not in found]
    if missing:
        copies = ", ".join(map(str, missing))
        raise ToolError(f"{element} waits for {parent}, whose copy {copies} has not run yet")
    return [found[i] for i in sorted(found)]


def _files(directory: Path, element: str) -> list[tuple[Path, int]]:
    prefix, suffix = f"{element}@", ".json"
    found = []
    for path in directory.glob("*" + suffix):
        index = path.name.removeprefix(prefix).removesuffix(suffix)
        if path.name.startswith(prefix) and index.isdecimal():
            found.append((path, int(index)))
    return sorted(found)
