"""`HttpControlPlane`: a control plane elsewhere, through its REST service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from openwhisk.api import Activation, ControlPlaneInfo, SessionInfo
from openwhisk.app.model import Application
from openwhisk.errors import (
    AlreadyExistsError,
    MemoryLostError,
    NotFoundError,
    OpenWhiskError,
)
from openwhisk.http import records
from openwhisk.http.auth import read_key

__all__ = ["ApiStatusError", "ControlPlaneUnreachableError", "HttpControlPlane"]

API = "/api/v1"
HOME = f"{API}/namespaces/_"
LONGEST_WAIT = 50.0  # seconds that one request may wait; below the server's own limit


class ControlPlaneUnreachableError(OpenWhiskError):
    """Nobody answers at the API host, or the connection broke."""


class ApiStatusError(OpenWhiskError):
    """The control plane refused a request; `status` is HTTP's, `code` its transaction id."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _NotFound(ApiStatusError, NotFoundError):
    pass


class _AlreadyExists(ApiStatusError, AlreadyExistsError):
    pass


class _MemoryLost(ApiStatusError, MemoryLostError):
    pass


# What callers of a control plane tell apart, wherever it runs.
_BY_STATUS = {known.http_status: known for known in (_NotFound, _AlreadyExists, _MemoryLost)}


class HttpControlPlane:
    """The `openwhisk.api.ControlPlane` protocol over HTTP.

    Parameters
    ----------
    apihost
        Where ``python -m openwhisk`` listens, as ``http://host:port`` or ``host:port``.
    auth
        ``uuid:key``; by default ``$SCAD_AUTH``, else what a server of the same user stored.

    Raises
    ------
    ControlPlaneUnreachableError
        By any method, if nobody answers.
    ApiStatusError
        By any method, if the request is refused.
    """

    def __init__(self, apihost: str, auth: str | None = None) -> None:
        self.apihost = apihost if "://" in apihost else f"http://{apihost}"
        credentials = auth or read_key()
        if credentials is None:
            raise OpenWhiskError(
                f"no key for {self.apihost}: set SCAD_AUTH=uuid:key (the server prints it at its "
                "first start)"
            )
        user, colon, key = credentials.partition(":")
        if not colon:
            raise OpenWhiskError("the key must have the form uuid:key")
        try:
            self._http = httpx.Client(
                base_url=self.apihost, auth=(user, key), timeout=httpx.Timeout(30.0, connect=5.0)
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise OpenWhiskError(f"{apihost!r} is no API host: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the control plane and its applications go on."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send one request, below `HOME` unless `path` is absolute, and return the decoded
        answer.
        """
        extra = {} if timeout is None else {"timeout": timeout}
        query = {k: v for k, v in (params or {}).items() if v is not None}
        content = None if json is None else msgspec.json.encode(json)
        try:
            response = self._http.request(
                method,
                path if path.startswith(API) else HOME + path,
                content=content,
                params=query,
                headers={"Content-Type": "application/json"},
                **extra,  # type: ignore[arg-type]
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            detail = str(error) or type(error).__name__
            raise ControlPlaneUnreachableError(
                f"no control plane at {self.apihost}: {detail}; start one with python -m openwhisk"
            ) from error
        try:
            body = response.json() if response.content else None
        except ValueError:
            raise ApiStatusError(
                response.status_code, f"{self.apihost} does not speak OpenWhisk's API"
            ) from None
        # A failed activation is an answer (502 with a record), not a failed request.
        if response.is_success or (response.status_code == 502 and "activationId" in (body or {})):
            return body
        message = body.get("error", response.reason_phrase) if isinstance(body, dict) else str(body)
        code = body.get("code") if isinstance(body, dict) else None
        kind = _BY_STATUS.get(response.status_code, ApiStatusError)
        raise kind(response.status_code, str(message), code)

    def put_application(self, app: Application, *, overwrite: bool = False) -> None:
        self.request(
            "PUT", f"/actions/{app.name}", json=app.to_json(), params={"overwrite": text(overwrite)}
        )

    def delete_application(self, name: str) -> None:
        self.request("DELETE", f"/actions/{name}")

    def invoke(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        session: str | None = None,
        transport: str = "auto",
    ) -> str:
        answer = self.request(
            "POST",
            f"/actions/{name}",
            json=dict(params or {}),
            params={"session": session, "transport": transport},
        )
        return str(answer["activationId"])

    def activation(self, activation_id: str) -> Activation:
        return records.from_json(self.request("GET", f"/activations/{activation_id}"))

    def wait(self, activation_id: str, timeout: float | None = None) -> Activation:
        from openwhisk.errors import WaitTimeoutError

        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LONGEST_WAIT if deadline is None else deadline - time.monotonic()
            wait_ms = max(0, round(min(left, LONGEST_WAIT) * 1000))
            record = self.request(
                "GET",
                f"/activations/{activation_id}",
                params={"wait": wait_ms},
                timeout=LONGEST_WAIT + 30,
            )
            activation = records.from_json(record)
            if activation.end is not None:
                return activation
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(
                    f"activation {activation_id} has not ended after {timeout} s"
                )

    def cancel(self, activation_id: str) -> None:
        self.request("DELETE", f"/activations/{activation_id}")

    def open_session(self, name: str | None = None, lease: float = 60.0) -> SessionInfo:
        body = {"name": name, "lease": lease}
        return msgspec.convert(self.request("POST", "/sessions", json=body), SessionInfo)

    def renew_session(self, session: str) -> None:
        self.request("PUT", f"/sessions/{session}")

    def close_session(self, session: str) -> None:
        self.request("DELETE", f"/sessions/{session}")

    def grant(self, session: str, activation_id: str, element: str, transport: str = "auto") -> str:
        path = f"/sessions/{session}/activations/{activation_id}/elements/{element}"
        return str(self.request("GET", path, params={"transport": transport})["durl"])

    def release(self, session: str, activation_id: str, element: str) -> None:
        path = f"/sessions/{session}/activations/{activation_id}/elements/{element}"
        self.request("DELETE", path)

    def info(self) -> ControlPlaneInfo:
        return msgspec.convert(self.request("GET", f"{API}/cluster"), ControlPlaneInfo)


def text(flag: bool) -> str:
    """A boolean as a query parameter."""
    return "true" if flag else "false"
