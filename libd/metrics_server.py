"""`MetricsServer`: ``GET /metrics`` over HTTP, for a memory server's administrator.

One thread of Python that answers one scrape after the other, with an administrator's connection of
its own: whoever scrapes, however slowly, is in nobody's way but other scrapers'.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from libd import _core
from libd.control import ServerControl
from libd.errors import AuthError, LibdError
from libd.metrics import CONTENT_TYPE

__all__ = ["MetricsServer"]

_REQUEST_LIMIT = 8192
_PATIENCE = 5.0  # seconds that a scraper has for its request, and for taking the answer

logger = logging.getLogger(__name__)


class MetricsServer:
    """Serves the metrics of the server that `control` administers.

    Parameters
    ----------
    control
        Belongs to this object from now on, which closes it.
    bind, port
        Where to listen; port 0 takes a free one (see `port`).
    token
        Scrapers must send it as ``Authorization: Bearer …``. Without it only loopback is served.

    Raises
    ------
    AuthError
        if `bind` is not loopback and there is no token.
    LibdError
        if it cannot listen there.
    """

    def __init__(
        self,
        control: ServerControl,
        *,
        bind: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
    ) -> None:
        self._control = control
        self._token = token
        if not token and not _core.is_loopback(bind):
            raise AuthError(
                f"metrics on {bind!r} would be open to the network: give them a token, "
                "or bind loopback"
            )
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        try:
            self._listener = socket.create_server((bind, port), family=family)
        except OSError as error:
            raise LibdError(f"metrics at {bind}:{port}: {error.strerror or error}") from error
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="libd-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # closed
            with sock:
                try:
                    self._answer(sock)
                except OSError as error:
                    logger.debug("a scraper went away: %s", error)

    def _answer(self, sock: socket.socket) -> None:
        head = _receive_head(sock)
        if head is None:
            return
        status, body = self._response(head)
        kind = CONTENT_TYPE if status.startswith("200") else "text/plain; charset=utf-8"
        more = "WWW-Authenticate: Bearer\r\n" if status.startswith("401") else ""
        if status.startswith("405"):
            more = "Allow: GET, HEAD\r\n"
        payload = body.encode()
        sent = b"" if head.startswith(b"HEAD ") else payload
        sock.settimeout(_PATIENCE)
        sock.sendall(
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(payload)}\r\n"
            f"{more}Connection: close\r\n\r\n".encode()
            + sent
        )

    def _response(self, head: bytes) -> tuple[str, str]:
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "400 Bad Request", "not an HTTP/1 request\n"
        if self._token and not self._authorized(lines[1:]):
            return "401 Unauthorized", "a bearer token is needed\n"
        if words[1].split("?")[0] != "/metrics":
            return "404 Not Found", "the metrics are at /metrics\n"
        if words[0] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "only GET\n"
        try:
            return "200 OK", self._control.metrics()
        except LibdError as error:
            return "503 Service Unavailable", f"{error}\n"

    def _authorized(self, headers: list[str]) -> bool:
        assert self._token is not None
        for header in headers:
            name, _, value = header.partition(":")
            scheme, _, shown = value.strip().partition(" ")
            if name.lower() == "authorization" and scheme.lower() == "bearer":
                return _same(shown.strip().encode("latin-1"), self._token.encode())
        return False

    def close(self) -> None:
        """Stop listening. May be called twice."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._listener.close()
        self._control.close()
        self._thread.join(2 * _PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _same(a: bytes, b: bytes) -> bool:
    """Takes as long for a near miss as for a wild guess. (``hmac`` would load OpenSSL: 3 MB.)"""
    differ = len(a) ^ len(b)
    for x, y in zip(a, b, strict=False):
        differ |= x ^ y
    return differ == 0


def _receive_head(sock: socket.socket) -> bytes | None:
    """Return the request up to the empty line; None if it does not come in time."""
    deadline = time.monotonic() + _PATIENCE
    data = b""
    while b"\r\n\r\n" not in data:
        left = deadline - time.monotonic()
        if left <= 0 or len(data) >= _REQUEST_LIMIT:
            return None
        sock.settimeout(left)
        piece = sock.recv(_REQUEST_LIMIT)
        if not piece:
            return None
        data += piece
    return data.partition(b"\r\n\r\n")[0]
