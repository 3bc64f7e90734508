"""Data sets: found, generated once, and described.

A generated set is a folder ``sf<SF>-<generator>`` in the user's cache, complete or not there at
all: it is generated beside its place, described by a ``manifest.json`` that is written last, and
then renamed. The two generators' data differ (types, rows of `reason`, names), so a set is always
of one generator, and its name says which.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

from tpcds.children import spawn
from tpcds.errors import DataError
from tpcds.generator import expected_bytes, expected_memory, tpcgen_program
from tpcds.tables import TABLES

__all__ = [
    "MANIFEST",
    "DataSet",
    "Generator",
    "Progress",
    "cache_root",
    "choose_generator",
    "ensure",
    "open_directory",
]

MANIFEST = "manifest.json"
_MANIFEST_VERSION = 1
_SMALLEST = 0.01

Generator = Literal["dsdgen", "tpcgen"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far generation is: `fraction` of the whole (0 to 1), and words for people."""

    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """The 24 tables of one data set as Parquet files.

    Attributes
    ----------
    directory
        Where it is.
    generator
        ``dsdgen``, ``tpcgen``, or ``unknown`` for files that someone else made.
    sf
        Scale factor; None where nobody has said it.
    tables
        Files of each table.
    rows, bytes
        Per table.
    versions
        Of the programs that generated it.
    """

    directory: Path
    generator: str
    sf: float | None
    tables: Mapping[str, tuple[Path, ...]]
    rows: Mapping[str, int] = field(repr=False)
    bytes: Mapping[str, int] = field(repr=False)
    versions: Mapping[str, str] = field(default_factory=dict, repr=False)


def cache_root() -> Path:
    """Folder of all generated data sets (XDG: ``$XDG_CACHE_HOME``, else ``~/.cache``)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says that a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "scad" / "tpcds"


def choose_generator(sf: float, wanted: str = "auto") -> Generator:
    """The generator for a scale factor: dsdgen up to 1, tpcgen above.

    Raises
    ------
    DataError
        If the scale factor is not a positive number, or the wanted generator cannot make it.
    """
    if not math.isfinite(sf) or sf <= 0:
        raise DataError(f"scale factor must be a positive number, not {sf:g}")
    if wanted == "auto":
        wanted = "dsdgen" if sf <= 1 else "tpcgen"
    if wanted == "tpcgen" and not float(sf).is_integer():
        raise DataError(
            f"tpcgen makes whole scale factors only, not {sf:g}; use --generator dsdgen"
        )
    if wanted == "dsdgen" and sf < _SMALLEST:
        # Seen at 0.001: the generator never ends.
        raise DataError(f"the smallest scale factor of dsdgen is {_SMALLEST}, not {sf:g}")
    if wanted not in ("dsdgen", "tpcgen"):
        raise DataError(f"unknown generator {wanted!r}; choose auto, dsdgen or tpcgen")
    return cast("Generator", wanted)


def ensure(
    sf: float,
    generator: str = "auto",
    *,
    root: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> DataSet:
    """The data set of a scale factor, generated first if the cache does not hold it.

    Safe against other processes that ask for it at the same time (one generates, the others wait)
    and against interruption at any point (what is half-made is never seen, and is removed by
    whoever comes next).

    Parameters
    ----------
    sf
        Scale factor.
    generator
        ``auto``, ``dsdgen`` or ``tpcgen``.
    root
        Folder of the data sets; by default the user's cache.
    progress
        Called now and then while generating, in this thread.

    Raises
    ------
    DataError
        If the disk or memory is too small, the generator fails, or what is there is damaged.
    """
    chosen = choose_generator(sf, generator)
    report = progress or (lambda _: None)
    root = cache_root() if root is None else root
    final = root / f"sf{sf:g}-{chosen}"
    if final.exists():
        return _open_generated(final)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root, report):
            _remove_stale(root)
            if not final.exists():
                _generate(final, sf, chosen, report)
    except OSError as error:
        raise DataError(f"cannot generate TPC-DS data in {root}: {error}") from error
    return _open_generated(final)


def open_directory(directory: Path, sf: float | None = None) -> DataSet:
    """A data set that is already somewhere: ours, or one file or folder of Parquet files per
    table.

    Parameters
    ----------
    directory
        Holds ``<table>.parquet``, or ``<table>/*.parquet``, for each of the 24 tables.
    sf
        What the caller says its scale factor is; it must agree with the manifest if there is one.

    Raises
    ------
    DataError
        If the directory or tables are missing, a file is not readable Parquet, or the files are
        of two generators.
    """
    if not directory.is_dir():
        raise DataError(f"data directory {directory} does not exist")
    if (directory / MANIFEST).exists():
        found = _open_generated(directory)
        if sf is not None and found.sf != sf:
            raise DataError(f"{directory} holds scale factor {found.sf:g}, not {sf:g}")
        return found
    tables = {table: _table_files(directory, table) for table in TABLES}
    if missing := [table for table, files in tables.items() if not files]:
        raise DataError(f"{directory} lacks {_listed('table', missing)}")
    rows, key_types = _read_footers(tables)
    if len(set(key_types.values())) > 1:
        kinds = {kind: table for table, kind in key_types.items()}
        raise DataError(
            f"{directory} mixes the data of two generators: "
            + ", ".join(f"keys of {table} are {kind}" for kind, table in sorted(kinds.items()))
        )
    sizes = {table: sum(f.stat().st_size for f in files) for table, files in tables.items()}
    return DataSet(directory, "unknown", sf, tables, rows, sizes)


def _open_generated(directory: Path) -> DataSet:
    """Open a set that has a manifest, checking that every file is there and readable."""
    advice = "remove the folder, and it is generated again"
    try:
        manifest = json.loads((directory / MANIFEST).read_text())
        entries: dict[str, Any] = {table: manifest["tables"][table] for table in TABLES}
        tables = {t: tuple(directory / name for name in e["files"]) for t, e in entries.items()}
        sizes = {t: int(e["bytes"]) for t, e in entries.items()}
        rows = {t: int(e["rows"]) for t, e in entries.items()}
        generator, sf = str(manifest["generator"]), float(manifest["sf"])
        versions = dict(manifest["versions"])
    except FileNotFoundError:
        raise DataError(f"{directory} is not a data set (no {MANIFEST}); {advice}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{directory / MANIFEST} is damaged ({error!r}); {advice}") from error
    for table, files in tables.items():
        found = sum(f.stat().st_size for f in files if f.exists())
        if found != sizes[table]:
            raise DataError(
                f"data set {directory} is damaged: {table} has {found} bytes, not {sizes[table]}; "
                f"{advice}"
            )
    found_rows, _ = _read_footers(tables)
    if wrong := [t for t in TABLES if found_rows[t] != rows[t]]:
        raise DataError(f"data set {directory} is damaged: {_listed('table', wrong)}; {advice}")
    return DataSet(directory, generator, sf, tables, rows, sizes, versions)


def _table_files(directory: Path, table: str) -> tuple[Path, ...]:
    single, folder = directory / f"{table}.parquet", directory / table
    if single.is_file() and folder.is_dir():
        raise DataError(f"{directory} has {table} twice: as {single.name} and as {table}/")
    if single.is_file():
        return (single,)
    return tuple(sorted(folder.glob("*.parquet"))) if folder.is_dir() else ()


def _read_footers(tables: Mapping[str, tuple[Path, ...]]) -> tuple[dict[str, int], dict[str, str]]:
    """Rows of each table, and the type of its first column (a surrogate key in all of them)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, keys = {}, {}
    for table, files in tables.items():
        rows[table] = 0
        for path in files:
            try:
                with pq.ParquetFile(path) as file:
                    rows[table] += file.metadata.num_rows
                    keys[table] = str(file.schema_arrow.field(0).type)
            except (pa.ArrowException, OSError) as error:
                reason = str(error).splitlines()[0].rstrip(".")
                raise DataError(f"{path} is not a readable Parquet file: {reason}") from error
    return rows, keys


@contextlib.contextmanager
def _lock(root: Path, report: Callable[[Progress], None]) -> Iterator[None]:
    """Hold the right to generate in `root`.

    The folder itself is locked: no lock file to leave behind, and the kernel lets go whichever
    way we end.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(Progress(0.0, "waiting for another process that is generating data"))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(root: Path) -> None:
    """Remove what interrupted runs left; only while the lock is held, when nobody else can be
    writing.
    """
    for leftover in root.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _generate(
    final: Path, sf: float, generator: Generator, report: Callable[[Progress], None]
) -> None:
    _check_room(final.parent, sf, generator)
    partial = final.with_name(f".tmp-{final.name}-{os.getpid()}-{secrets.token_hex(4)}")
    partial.mkdir()
    try:
        _run_generator(generator, sf, partial, report)
        report(Progress(1.0, "writing the manifest"))
        _write_manifest(partial, sf, generator)
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_room(root: Path, sf: float, generator: Generator) -> None:
    need, free = expected_bytes(sf), shutil.disk_usage(root).free
    if free < need * 1.2:
        raise DataError(
            f"scale factor {sf:g} takes about {_size(need)} on disk, but {root} has "
            f"{_size(free)} free"
        )
    need, free = expected_memory(generator, sf), _available_memory()
    if free < need:
        raise DataError(
            f"{generator} takes about {_size(need)} of memory at scale factor {sf:g}, but "
            f"{_size(free)} are available"
        )


def _run_generator(
    generator: Generator, sf: float, directory: Path, report: Callable[[Progress], None]
) -> None:
    if generator == "tpcgen":
        tpcgen_program()  # the clear error, before a process is started
    process = spawn("tpcds.generator", [generator, repr(sf), str(directory)])
    assert process.stdout is not None
    assert process.stdin is not None
    highest, done = 0.0, False
    try:
        for line in process.stdout:
            event = json.loads(line)
            if "error" in event:
                raise DataError(f"{generator} failed: {event['error']}")
            if "done" in event:
                done = True
                continue
            step = _progress(event)
            highest = max(highest, step.fraction)
            report(Progress(highest, step.message))
        status = process.wait()
        if status or not done:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            raise DataError(f"the process of {generator} ended early ({how})")
    finally:
        # SIGKILL reaches it wherever it is, and its own child dies with it.
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _progress(event: Mapping[str, Any]) -> Progress:
    """One line of the generating process in the terms of the whole.

    dsdgen generates in memory and then writes table by table (a fifth of its time); tpcgen does
    both at once.
    """
    if event["phase"] == "write":
        part = event["tables_done"] / event["tables"]
        return Progress(0.8 + 0.2 * part, f"writing {event.get('table', '')}".rstrip())
    part = min(event["bytes"] / event["expected"], 0.99)
    if "tables" in event:
        words = f"{event['tables_done']} of {event['tables']} tables, {_size(event['bytes'])}"
        return Progress(part, words)
    return Progress(0.8 * part, f"generating, {_size(event['bytes'])} in memory")


def _write_manifest(directory: Path, sf: float, generator: Generator) -> None:
    tables = {table: _table_files(directory, table) for table in TABLES}
    if missing := [table for table, files in tables.items() if not files]:
        raise DataError(f"{generator} made no {_listed('table', missing)}")
    rows, _ = _read_footers(tables)
    manifest = {
        "version": _MANIFEST_VERSION,
        "generator": generator,
        "sf": sf,
        "versions": _versions(),
        "tables": {
            table: {
                "files": [str(f.relative_to(directory)) for f in files],
                "rows": rows[table],
                "bytes": sum(f.stat().st_size for f in files),
            }
            for table, files in tables.items()
        },
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for package in ("duckdb", "duckdb-extension-tpcds", "tpcgen-cli"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _available_memory() -> int:
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 2**62


def _listed(noun: str, names: list[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _size(count: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
