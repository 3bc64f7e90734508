"""`MemoryServerProcess`: a memory server in a process of its own, administered and outlived by the
caller.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from libd.control import ServerControl
from libd.errors import LibdError, TransportTimeoutError
from libd.server import KEEP_WARM
from libd.units import parse_size

__all__ = ["MemoryServerProcess"]


class MemoryServerProcess:
    """Starts ``python -m libd.memory_server`` and administers it.

    The process ends when `stop` is called, when this process ends in any way (SIGKILL included: it
    watches a pipe), or when it is killed itself; it leaves nothing behind. The administrator's
    token goes through that pipe, not through arguments or the environment.

    Parameters
    ----------
    size
        Bytes of the pool that tenants share.
    bind
        Host for TCP; the port is a free one. Elements are guarded by their tenant's token and their
        own key.
    default_region
        Bytes of a default region; none by default.
    token
        Opens the default region.
    rdma
        As `MemoryServer` has it: a device for one-sided RDMA, by default whichever there is.
    keep_warm
        As `MemoryServer` has it.
    timeout
        Seconds to wait for the server to listen.

    Raises
    ------
    LibdError
        if it does not start; the message is the server's.
    """

    def __init__(
        self,
        size: int | str,
        *,
        bind: str = "127.0.0.1",
        default_region: int = 0,
        token: str | None = None,
        rdma: str | None = "auto",
        keep_warm: float = KEEP_WARM,
        timeout: float = 20.0,
    ) -> None:
        admin_token = secrets.token_hex(32)
        self.size = parse_size(size)
        self._lock = threading.Lock()
        self._control: ServerControl | None = None
        self._admin_token = admin_token
        reader, self._lifeline = os.pipe()
        command = [
            sys.executable, "-m", "libd.memory_server", "0",
            "--size", str(self.size),
            "--bind", bind,
            "--unix", f"@scad-{os.getpid()}-{secrets.token_hex(8)}",
            "--default-region", str(default_region),
            "--lifeline", str(reader),
            "--json",
            "--keep-warm", str(keep_warm),
            *(["--rdma", rdma] if rdma else []),
        ]  # fmt: skip
        # The kernel's notice is about the thread that forks, not about its process: only the main
        # one lives long enough.
        if threading.current_thread() is threading.main_thread():
            command += ["--parent", str(os.getpid())]
        environment = dict(os.environ)
        here = str(Path(__file__).parent.parent)
        environment["PYTHONPATH"] = os.pathsep.join(
            filter(None, [here, environment.get("PYTHONPATH")])
        )
        if token:
            environment["SCAD_MEMORY_TOKEN"] = token
        else:
            environment.pop("SCAD_MEMORY_TOKEN", None)
        try:
            os.write(self._lifeline, admin_token.encode() + b"\n")
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[reader],
                env=environment,
                # Ctrl-C in a terminal is for the caller, who still needs the server to clean up. A
                # session of its own would see to that, too; but where the kernel groups sessions
                # for scheduling (autogroup), each wakeup between the server and its clients then
                # waits for a turn among all the machine's sessions.
                process_group=0,
            )
        except BaseException:
            os.close(self._lifeline)
            raise
        finally:
            os.close(reader)
        try:
            about = self._await_start(timeout)
        except BaseException:
            self.stop()
            raise
        self.pid: int = self._process.pid
        self.tcp_url: str = about["tcp_url"]
        self.unix_url: str = about["unix_url"]
        self.rdma_device: str | None = about["rdma_device"]

    def _await_start(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        deadline = time.monotonic() + timeout
        line = b""
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise TransportTimeoutError(f"the memory server did not start within {timeout:g} s")
            piece = os.read(self._process.stdout.fileno(), 4096)
            if not piece:
                message = self._process.stderr.read().decode(errors="replace").strip()
                last = message.splitlines()[-1] if message else "no message"
                raise LibdError(f"the memory server did not start: {last}")
            line += piece
        about: dict[str, Any] = json.loads(line)
        return about

    @property
    def control(self) -> ServerControl:
        """The administrator's connection, opened when it is first needed."""
        with self._lock:
            if self._control is None:
                self._control = ServerControl(
                    self.unix_url, self._admin_token, tcp_url=self.tcp_url, unix_url=self.unix_url
                )
            return self._control

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """The exit status; None while the process runs; negative: the signal that killed it."""
        return self._process.poll()

    def stop(self, timeout: float = 10.0) -> None:
        """End the process and wait for it. May be called twice."""
        with self._lock:
            control, self._control = self._control, None
            lifeline, self._lifeline = self._lifeline, -1
        if control is not None:
            control.close()
        if lifeline >= 0:
            os.close(lifeline)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
