"""Programs as people start them, and a detector of what they leave behind.

Every test runs its programs in a world of its own: temporary folder, cache, state and working
directory are fresh, and a mark in the environment is inherited by all that is started, directly or
not. When the test is over the detector looks for marked processes, for sockets and shared-memory
names that appeared meanwhile and that no process of somebody else holds, and for temporary files.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.waiting import eventually
from tpcds.data import DataSet, ensure

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 100.0  # seconds; far above what any program here takes, far below for ever
MARK = "SCAD_ACCEPTANCE"


class Finished(NamedTuple):
    """What a program that has ended said."""

    status: int
    out: str
    err: str


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile, or is somebody else's
        return b""


def _socket_inodes(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link)):
                    found.add(match[1])
    return found


def _sockets() -> dict[str, str]:
    """Inode to name of Scad's abstract sockets and of all listening TCP sockets."""
    found = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if words[-1].startswith("@scad"):
            found[words[6]] = words[-1]
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            words = line.split()
            if words[3] == "0A":
                found[words[9]] = f"listening {table} {words[1]}"
    return found


def _shared_memory() -> set[str]:
    return {entry.name for entry in Path("/dev/shm").iterdir()}


def _memfds() -> list[str]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if (target := os.readlink(link)).startswith("/memfd:"):
                found.append(target)
    return found


@dataclass
class World:
    """One test's world.

    Attributes
    ----------
    folder
        Everything that the programs may write is below it; the programs run in ``folder/home``.
    """

    folder: Path
    environment: dict[str, str]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("home", "tmp", "state"):
            (self.folder / name).mkdir()
        self.environment = {
            **self.environment,
            MARK: self.mark,
            "TMPDIR": str(self.folder / "tmp"),
            "XDG_STATE_HOME": str(self.folder / "state"),
        }
        self._sockets = set(_sockets())
        self._shared_memory = _shared_memory()
        self._memfds = _memfds()

    @property
    def home(self) -> Path:
        return self.folder / "home"

    # -- programs ---------------------------------------------------------------------------------

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command as the leader of a session, as a terminal does.

        A command that begins with ``-m``, ``-c`` or a Python file is given to this interpreter.
        """
        if command[0] == "-m" or command[0].endswith(".py") or command[0] == "-c":
            command = (sys.executable, *command)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**self.environment, **environment},
            cwd=self.home,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], timeout: float = LONGEST) -> Finished:
        out, err = process.communicate(timeout=timeout)
        return Finished(process.returncode, out, err)

    def run(self, *command: str, **environment: str) -> Finished:
        return self.finish(self.start(*command, **environment))

    def tpcds(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``python -m tpcds.run --sf 0.01 …``."""
        return self.start("-m", "tpcds.run", "--sf", "0.01", *arguments, **environment)

    def serve(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Start ``python -m openwhisk`` and return it with its URL."""
        server = self.start("-m", "openwhisk", "--port", "0", "--json", *arguments)
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise AssertionError(server.communicate())
        return server, json.loads(line)["url"]

    def memory_server(self, *arguments: str) -> tuple[subprocess.Popen[str], int]:
        """Start ``memory_server`` on a free port and return it with the port."""
        server = self.start("-m", "libd.memory_server", "0", "--json", *arguments)
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise AssertionError(server.communicate())
        return server, int(json.loads(line)["tcp_url"].rpartition(":")[2])

    def interrupt(self, process: subprocess.Popen[str]) -> None:
        """Press Ctrl-C: the terminal sends it to the whole foreground group."""
        os.killpg(process.pid, signal.SIGINT)

    # -- processes --------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        mark = f"{MARK}={self.mark}".encode()
        return [
            int(entry.name)
            for entry in Path("/proc").glob("[0-9]*")
            if mark in _read(entry / "environ").split(b"\0")
        ]

    def processes(self) -> dict[int, tuple[str, int]]:
        """Kind and parent of every process of this world that runs."""
        found = {}
        for pid in self.pids():
            words = _read(Path(f"/proc/{pid}/cmdline")).decode().rstrip("\0").split("\0")
            status = _read(Path(f"/proc/{pid}/status")).decode()
            parent = re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)
            state = re.search(r"^State:\t(.)", status, re.MULTILINE)
            if parent is None or state is None or state[1] in "ZX" or words == [""]:
                continue
            found[pid] = (
                words[words.index("-m") + 1] if "-m" in words else words[-1],
                int(parent[1]),
            )
        return found

    def find(self, kind: str) -> list[int]:
        """Process ids of a kind: zygote, worker, memory, oracle, generator, main, server."""
        running = self.processes()
        zygotes = [
            pid
            for pid, (module, parent) in running.items()
            if module == "openwhisk.worker.zygote"
            and running.get(parent, ("",))[0] != "openwhisk.worker.zygote"
        ]
        if kind == "zygote":
            return zygotes
        if kind == "worker":
            return [pid for pid, (_, parent) in running.items() if parent in zygotes]
        module = {
            "memory": "libd.memory_server",
            "oracle": "tpcds.oracle",
            "main": "tpcds.run",
            "server": "openwhisk",
            "generator": "tpcds.generator",
        }[kind]
        return [pid for pid, (name, _) in running.items() if name == module]

    def await_process(self, kind: str) -> int:
        assert eventually(lambda: bool(self.find(kind)), LONGEST), self.processes()
        return self.find(kind)[0]

    # -- leftovers --------------------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        """What is there that should not be, now."""
        found = [f"process {pid}: {about}" for pid, about in self.processes().items()]
        fresh = {i: name for i, name in _sockets().items() if i not in self._sockets}
        if fresh:
            ours = {os.getpid(), *self.pids()}
            for entry in Path("/proc").glob("[0-9]*"):
                if int(entry.name) not in ours:
                    for inode in _socket_inodes(int(entry.name)) & fresh.keys():
                        del fresh[inode]
            found += [f"socket {name}" for name in fresh.values()]
        found += [f"/dev/shm/{name}" for name in _shared_memory() - self._shared_memory]
        found += [f"{path}" for path in (self.folder / "tmp").rglob("*")]
        memfds = _memfds()
        found += memfds if len(memfds) > len(self._memfds) else []
        cache = Path(self.environment["XDG_CACHE_HOME"])
        found += [f"half-made {path}" for path in cache.rglob(".tmp-*")]
        return found

    def check(self) -> None:
        """Fail if anything is left, after a while.

        What other programs do meanwhile may look like ours for a moment (a socket is listed, then
        its owner ends): only what is seen all the time counts.
        """
        left = set(self.leftovers())

        def gone() -> bool:
            left.intersection_update(self.leftovers())
            return not left

        eventually(gone)
        assert sorted(left) == []

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What $XDG_CACHE_HOME is; the data is in it."""
    folder = tmp_path_factory.mktemp("cache")
    ensure(0.01, root=folder / "scad" / "tpcds")
    return folder


@pytest.fixture(scope="session")
def data(cache: Path) -> DataSet:
    """TPC-DS at scale factor 0.01."""
    return ensure(0.01, root=cache / "scad" / "tpcds")


@pytest.fixture(scope="session")
def base_environment(cache: Path) -> dict[str, str]:
    dropped = ("FORCE_COLOR", "COLUMNS", "SCAD_AUTH", "SCAD_APIHOST", "SCAD_MEMORY_TOKEN")
    kept = {k: v for k, v in os.environ.items() if k not in dropped}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**kept, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": path, "TERM": "dumb"}


@pytest.fixture
def world(tmp_path: Path, base_environment: dict[str, str]) -> Iterator[World]:
    """A fresh world; at its end nothing may be left in it."""
    made = World(tmp_path, base_environment)
    try:
        yield made
        for process in made.started:
            assert process.poll() is not None, f"{process.args} is still running"
        made.check()
    finally:
        made.end()


@pytest.fixture(scope="session")
def one_line() -> Callable[..., None]:
    """Check that a program refused with one clear line: no traceback, a non-zero status."""

    def check(finished: Finished, *says: str, status: int | None = None) -> None:
        assert finished.status != 0, finished
        assert finished.status > 0, f"killed: {finished}"
        if status is not None:
            assert finished.status == status, finished
        assert "Traceback" not in finished.err, finished.err
        lines = finished.err.splitlines()
        assert len(lines) == 1, finished.err
        assert len(lines[0]) < 500, lines
        for word in says:
            assert word in lines[0], lines[0]

    return check


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def script() -> Callable[[str], str]:
    """Path of an installed console script."""

    def find(name: str) -> str:
        path = Path(sys.executable).parent / name
        if not path.exists():
            pytest.skip(f"{name} is not installed beside {sys.executable}")
        return str(path)

    return find


@pytest.fixture(scope="session")
def until() -> Any:
    return eventually
