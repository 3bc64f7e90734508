"""Running commands in one guest or in two, with a time limit, leaving nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.rdma.guest.kernel import GuestError, Kernel
from tests.rdma.guest.machine import SHARE, Machine, Size, script

__all__ = ["Options", "guest_environment", "run", "run_pair", "run_shell"]

ROOT = Path(__file__).resolve().parents[3]
TIMED_OUT = 124
BROKEN = 125
PREFIX = "scad-guest-"
INHERITED = ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "PYTHONPATH", "XDG_CACHE_HOME")
# A server that we ended with SIGTERM has done its work; 143 is what a shell calls that.
ENDED = (0, 143)


def guest_environment(**more: str) -> dict[str, str]:
    """Environment of a command in a guest: some of ours, and what makes it quick there."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED or name.startswith("SCAD_")
    }
    path = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    path += ["/usr/local/sbin", "/usr/sbin", "/sbin"]
    return {
        **kept,
        "PATH": ":".join(path),
        "TERM": "dumb",
        "PYTHONUNBUFFERED": "1",
        # What is written goes into the guest's memory and away with it.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Every installed plugin that is not used here costs seconds.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "-p no:cacheprovider -p pytest_timeout --timeout 300",
        "SCAD_RDMA": "1",
        "SCAD_GUEST_OUTPUT": str(SHARE / "output"),
        **more,
    }


@dataclass
class Options:
    """How to run.

    Attributes
    ----------
    timeout
        Seconds until the guests are killed, from the start of the first.
    output
        Folder that gets what the command left in ``$SCAD_GUEST_OUTPUT``.
    say
        Takes what the guests print.
    """

    size: Size = field(default_factory=Size)
    timeout: float = 900.0
    output: Path | None = None
    folder: Path = ROOT
    say: Callable[[bytes], object] = lambda data: os.write(1, data)


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary folder; those of programs that were killed meanwhile are removed too."""
    for stale in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or just removed
            with (stale / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as made:
        with Path(made, "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(made)


class _Lines:
    """Passes on what two guests print, line by line under their names."""

    def __init__(self, name: str, say: Callable[[bytes], object]) -> None:
        self._prefix = f"{name}| ".encode()
        self._say = say
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if lines:
            self._say(b"".join(self._prefix + line + b"\n" for line in lines))

    def finish(self) -> None:
        if self._rest:
            self(b"\n")


class _Running:
    """Machines that run, until a deadline."""

    def __init__(self, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        self._selector = selectors.DefaultSelector()
        self._machines: list[Machine] = []

    def add(self, machine: Machine, say: Callable[[bytes], object]) -> None:
        machine.start()
        self._machines.append(machine)
        if machine.process.stdout is not None:
            self._selector.register(machine.process.stdout, selectors.EVENT_READ, (machine, say))

    def step(self) -> list[Machine]:
        """Pass on what was printed; return the machines that ended.

        Raises
        ------
        TimeoutError
            The deadline has passed.
        """
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"the guest was killed after {self._timeout:g} s")
        ended = []
        for key, _ in self._selector.select(0.1):
            machine, say = key.data
            if data := os.read(key.fd, 1 << 16):
                say(data)
            else:
                self._selector.unregister(key.fileobj)
                machine.process.wait()
                ended.append(machine)
        return ended

    def close(self) -> None:
        for machine in self._machines:
            machine.kill()
        self._selector.close()


def _complain(message: str) -> None:
    print(f"rdma guest: {message}", file=sys.stderr, flush=True)


def _keep_output(machine: Machine, folder: Path | None) -> None:
    if folder is not None:
        shutil.copytree(machine.output, folder, dirs_exist_ok=True)


def run(kernel: Kernel, command: Sequence[str], options: Options) -> int:
    """Run a command in a guest and return its status, 124 after the time limit, 125 without one."""
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        text = script(command, options.folder, guest_environment())
        machine = Machine(kernel, folder / "guest", text, options.size)
        running = _Running(options.timeout)
        stack.callback(running.close)
        running.add(machine, options.say)
        try:
            while machine not in running.step():
                pass
            return machine.status()
        except TimeoutError as error:
            _complain("\n".join([str(error), *machine.last_words()]))
            return TIMED_OUT
        except GuestError as error:
            _complain(str(error))
            return BROKEN
        finally:
            _keep_output(machine, options.output)


def run_shell(kernel: Kernel, command: Sequence[str], options: Options) -> int:
    """Run a command in a guest at this program's terminal; no time limit."""
    with _folder() as folder:
        environment = guest_environment(TERM=os.environ.get("TERM", "dumb"))
        text = script(command, options.folder, environment)
        machine = Machine(kernel, folder / "guest", text, options.size, shell=True)
        try:
            machine.start()
            machine.process.wait()
            return machine.status()
        except GuestError as error:
            _complain(str(error))
            return BROKEN
        finally:
            machine.kill()
            _keep_output(machine, options.output)


def run_pair(kernel: Kernel, server: Sequence[str], client: Sequence[str], options: Options) -> int:
    """Run a server in one guest and, once it serves, a client in another.

    The server serves when its guest listens on a TCP port or it made ``$SCAD_GUEST_READY``. It gets
    SIGTERM when the client has ended.

    Returns
    -------
    int
        The client's status; if that is 0, the server's, where having been ended by the SIGTERM is
        as good as 0. 124 after the time limit, 125 if a guest left no status.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(_folder())
        ends = [stack.enter_context(end) for end in socket.socketpair()]
        machines = {}
        running = _Running(options.timeout)
        stack.callback(running.close)
        says = {}
        for role, command, link in zip(("server", "client"), (server, client), ends, strict=True):
            environment = guest_environment(
                SCAD_GUEST_READY=str(SHARE / "ready"),
                SCAD_GUEST_ADDRESS={"server": "10.20.0.1", "client": "10.20.0.2"}[role],
                SCAD_GUEST_SERVER="10.20.0.1",
            )
            text = script(command, options.folder, environment)
            machines[role] = Machine(
                kernel, folder / role, text, options.size, role=role, link=link
            )
            says[role] = _Lines(role, options.say)
            running.add(machines[role], says[role])
            link.close()  # the emulator has it: the other one is to see its end
        try:
            return _serve(running, machines["server"], machines["client"])
        except TimeoutError as error:
            words = [f"{r}: {line}" for r, m in machines.items() for line in m.last_words()]
            _complain("\n".join([str(error), *words]))
            return TIMED_OUT
        except GuestError as error:
            _complain(str(error))
            return BROKEN
        finally:
            for role, machine in machines.items():
                says[role].finish()
                _keep_output(machine, options.output and options.output / role)


def _serve(running: _Running, server: Machine, client: Machine) -> int:
    ended: set[Machine] = set()
    while client not in ended or server not in ended:
        ended.update(running.step())
        if server.has_note("serving"):
            client.tell("go")
        if client in ended:
            if client.status() != 0:
                return client.status()
            server.tell("stop")
        elif server in ended and not (client.has_note("went") and server.status() == 0):
            _complain(f"the server ended with status {server.status()} before the client")
            return server.status() or BROKEN
    return 0 if server.status() in ENDED else server.status()
