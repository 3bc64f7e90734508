"""`ZygoteLink`: the invoker's end of its zygote process."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

from openwhisk.worker.messages import (
    ZYGOTE_MESSAGE,
    Configure,
    Fork,
    FromZygote,
    Kill,
    ToZygote,
    decode_from_zygote,
    encode,
)


class ZygoteLink:
    """A running zygote.

    Must be made by a thread that lives as long as the zygote should: the kernel kills it with that
    thread.

    Raises
    ------
    OSError
        If the process cannot be started.
    """

    def __init__(self, configure: Configure) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link = ours
        lifeline_read, self._lifeline = os.pipe2(os.O_CLOEXEC)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [
                        sys.executable,
                        "-P",  # our own search path, not the folder that we happen to be in
                        "-m",
                        "openwhisk.worker.zygote",
                        str(theirs.fileno()),
                        str(lifeline_read),
                        str(os.getpid()),
                    ],
                    env=_environment(configure),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), lifeline_read),
                    process_group=0,  # out of the way of the terminal's Ctrl-C
                )
        except BaseException:
            self._link.close()
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline_read)
        self._send(configure)

    @property
    def pid(self) -> int:
        """Of the zygote."""
        return self._process.pid

    def fileno(self) -> int:
        """Readable when `receive` has something to say."""
        return self._link.fileno()

    def fork(self, worker: str) -> None:
        """Ask for a worker."""
        self._send(Fork(worker))

    def kill(self, worker: str) -> None:
        """Ask for a worker's death."""
        self._send(Kill(worker))

    def _send(self, message: ToZygote) -> None:
        with contextlib.suppress(ConnectionError):  # its death is noticed when reading
            self._link.send(encode(message))

    def receive(self) -> list[FromZygote] | None:
        """Return the messages that have arrived, or ``None`` if the zygote is gone."""
        messages: list[FromZygote] = []
        while True:
            try:
                data = self._link.recv(ZYGOTE_MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            except ConnectionError:
                data = b""
            if not data:
                return messages or None
            messages.append(decode_from_zygote(data))

    def close(self, patience: float = 0.0) -> int:
        """End the zygote, and with it its workers; return its exit status. Idempotent.

        Parameters
        ----------
        patience
            Seconds for killing its workers' process groups before it is killed itself.
        """
        self._link.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        if patience:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._process.wait(patience)
        if self._process.poll() is None:
            self._process.kill()
        return self._process.wait()


def _environment(configure: Configure) -> dict[str, str]:
    """The environment of the interpreter; libraries read some of it when they are loaded."""
    environment = dict(os.environ)
    environment |= {k: v for k, v in configure.environment.items() if v is not None}
    # The child finds what we find, wherever it was put on our path. The zygote restores the
    # variable for its workers.
    environment["PYTHONPATH"] = os.pathsep.join(p or os.getcwd() for p in sys.path)
    return environment
