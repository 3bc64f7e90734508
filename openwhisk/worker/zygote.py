"""The zygote: a process that has everything imported and forks workers from itself.

``python -m openwhisk.worker.zygote SOCKET LIFELINE PARENT``: the numbers of an inherited
SOCK_SEQPACKET socket, of the read end of a pipe that only the parent's process holds open, and the
parent's pid. It has one thread, because only that one survives a fork, and imports the modules that
it is told by name; those that do not exist are left out.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Iterable
from types import FrameType
from typing import TYPE_CHECKING

from openwhisk.worker.buffers import release_buffers
from openwhisk.worker.lifeline import die_with_parent, ignore_terminal
from openwhisk.worker.messages import (
    ZYGOTE_MESSAGE,
    Configure,
    Exited,
    Fork,
    Forked,
    FromZygote,
    Kill,
    Ready,
    decode_to_zygote,
    encode,
)
from openwhisk.worker.scratch import sweep
from openwhisk.worker.stacks import limit_stacks

if TYPE_CHECKING:
    from openwhisk.worker.execute import Preparation

# What every worker needs; imported here so that forks share the pages.
_OWN = ("openwhisk.worker.process", "openwhisk.runtime", "zmq")


class Zygote:
    """Forks, kills and reaps workers on request."""

    def __init__(self, link: socket.socket, lifeline: int) -> None:
        self._link = link
        self._lifeline = lifeline
        self._workers: dict[str, int] = {}
        self._told_to_end = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _noticed)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the other side hangs up, then kill what is left."""
        configuration = self._receive()
        if not isinstance(configuration, Configure):
            return
        sweep()
        for name, value in configuration.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        # What modules are made of stays. Looking through it again and again while it grows would
        # take a tenth of the time, and finds half a megabyte that could go.
        gc.disable()
        missing = preimport((*_OWN, *configuration.preimport))
        gc.freeze()
        gc.enable()
        # From now on there may be workers, whose process groups have to be killed before we go.
        signal.signal(signal.SIGTERM, self._end)
        self._send(Ready(missing))
        try:
            self._serve(configuration)
        finally:
            for worker in list(self._workers):
                self._kill(worker)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._told_to_end = True  # and the wake-up descriptor is readable

    def _serve(self, configuration: Configure) -> None:
        poller = select.poll()
        for fd in (self._link.fileno(), self._wake_read, self._lifeline):
            poller.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if self._lifeline in ready or self._told_to_end:
                return
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()
            if self._link.fileno() in ready:
                message = self._receive()
                if message is None:
                    return
                if isinstance(message, Fork):
                    self._fork(message.worker, configuration)
                elif isinstance(message, Kill):
                    self._kill(message.worker)

    def _fork(self, worker: str, configuration: Configure) -> None:
        me = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._send(Forked(worker, 0, str(error)))
            return
        if pid == 0:
            self._become_worker(worker, configuration, me)
        self._workers[worker] = pid
        self._send(Forked(worker, pid))

    def _become_worker(self, worker: str, configuration: Configure, parent: int) -> None:
        """In the child; does not return."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setpgid(0, 0)
            die_with_parent(parent)
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._link.close()
            from openwhisk.worker.process import work

            release_buffers()
            work(
                configuration.endpoint,
                configuration.token,
                worker,
                self._lifeline,
                preparations(configuration.preimport),
            )
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)

    def _kill(self, worker: str) -> None:
        pid = self._workers.get(worker)
        if pid is None:
            return
        # Its process group too: what an element started goes with it. The group may not be there
        # yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        names = {pid: worker for worker, pid in self._workers.items()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (worker := names.get(pid)) is not None:
                del self._workers[worker]
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                if status:
                    sweep()
                self._send(Exited(worker, os.waitstatus_to_exitcode(status)))

    def _receive(self) -> object:
        try:
            data = self._link.recv(ZYGOTE_MESSAGE)
        except ConnectionError:
            return None
        return decode_to_zygote(data) if data else None

    def _send(self, message: FromZygote) -> None:
        with contextlib.suppress(ConnectionError):
            self._link.send(encode(message))


def preimport(modules: tuple[str, ...]) -> list[str]:
    """Import modules by name; return the names of those that cannot be imported."""
    missing = []
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def preparations(modules: Iterable[str]) -> list[Preparation]:
    """What imported modules have for workers that wait: functions called ``prepare_worker``."""
    found = (getattr(sys.modules.get(name), "prepare_worker", None) for name in modules)
    return [one for one in found if callable(one)]


def _noticed(number: int, frame: FrameType | None) -> None:
    """SIGCHLD's handler: the wake-up descriptor does the work."""


def main() -> None:
    """Entry point of the process."""
    ignore_terminal()
    limit_stacks()  # before anything is imported that starts threads
    link_fd, lifeline, parent = (int(argument) for argument in sys.argv[1:4])
    # Not SIGKILL: what elements have started must go too, and only we know their process groups.
    die_with_parent(parent, signal.SIGTERM)
    with socket.socket(fileno=link_fd) as link:
        link.set_inheritable(False)
        Zygote(link, lifeline).run()


if __name__ == "__main__":
    main()
