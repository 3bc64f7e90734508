"""HTTP errors in OpenWhisk's form: `{"error": text, "code": transaction id}`, both fields
always.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from libd.errors import ScadError
from openwhisk.errors import OpenWhiskError

__all__ = ["HANDLERS", "ApiError", "status_for"]

_LOG = logging.getLogger(__name__)


class ApiError(OpenWhiskError):
    """A request that cannot be served, with the HTTP status that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def status_for(error: ScadError) -> int:
    """The HTTP status of an error of ours: the class's own, or 400 for bad input."""
    return int(getattr(error, "http_status", 400))


def transaction_id(request: Request) -> str:
    """The client's `x-request-id`, or a fresh one; it ties a reply to the server's log."""
    given = request.headers.get("x-request-id", "")
    return given[:64] if given.isalnum() else secrets.token_hex(16)


def respond(request: Request, status: int, message: str) -> JSONResponse:
    """An error response."""
    headers = {"WWW-Authenticate": "Basic"} if status == 401 else None
    return JSONResponse({"error": message, "code": transaction_id(request)}, status, headers)


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return respond(request, error.status, str(error))


async def on_scad_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ScadError)
    return respond(request, status_for(error), str(error))


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return respond(request, error.status_code, error.detail)


async def on_anything_else(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return respond(
        request, 500, f"internal error: {type(error).__name__}; the server's log has more"
    )


HANDLERS: dict[int | type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    ApiError: on_api_error,
    ScadError: on_scad_error,
    HTTPException: on_http_exception,
    Exception: on_anything_else,
}
