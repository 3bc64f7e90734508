"""A TCP relay whose connections can be cut."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["relay"]


@contextmanager
def relay(
    port: int, pause: Callable[[], float] = lambda: 0.0
) -> Iterator[tuple[int, Callable[[], None]]]:
    """A TCP relay to `port`; gives its own port and a function that cuts all its connections.

    It rests for `pause` before all that it passes on.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pairs: list[socket.socket] = []
        stop, wake = socket.socketpair()

        def run() -> None:
            peers: dict[socket.socket, socket.socket] = {}
            while True:
                ready, _, _ = select.select([listener, stop, *peers], [], [])
                if stop in ready:
                    for sock in peers:
                        sock.close()
                    return
                for sock in ready:
                    if sock is listener:
                        near, _ = listener.accept()
                        try:
                            far = socket.create_connection(("127.0.0.1", port))
                        except OSError:
                            near.close()
                            continue
                        peers[near], peers[far] = far, near
                        pairs.extend((near, far))
                        continue
                    if sock not in peers:
                        continue
                    try:
                        data = sock.recv(1 << 16)
                        if data:
                            time.sleep(pause())
                            peers[sock].sendall(data)
                            continue
                    except OSError:
                        pass
                    other = peers.pop(sock)
                    peers.pop(other, None)
                    sock.close()
                    other.close()

        def cut() -> None:
            for sock in pairs:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            pairs.clear()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1], cut
        finally:
            wake.send(b"x")
            thread.join(30)
            cut()
            stop.close()
            wake.close()
