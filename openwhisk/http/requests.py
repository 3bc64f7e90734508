"""What requests say: JSON bodies and query parameters, or an `ApiError` that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import msgspec
from starlette.requests import Request

from openwhisk.http.errors import ApiError

__all__ = ["flag", "integer", "page", "read_json"]

LIST_DEFAULT, LIST_MAX = 30, 200
BODY_MAX = 48 << 20  # OpenWhisk's limit for code
INTEGER_MAX = 2**63 - 1  # what SQLite can hold


async def read_json(request: Request, default: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The body as a JSON object.

    Raises
    ------
    ApiError
        413 for a body over the limit, 400 for anything that is not a JSON object.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_MAX:
            raise ApiError(413, f"the request is larger than the limit of {BODY_MAX} bytes")
    if not body.strip():
        if default is None:
            raise ApiError(400, "the request has no body; send a JSON object")
        return dict(default)
    try:
        # Strict, unlike the standard library: no NaN, no half surrogate pairs.
        value = msgspec.json.decode(bytes(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the request is not JSON: {error}") from None
    except RecursionError:
        raise ApiError(400, "the request is nested too deeply") from None
    if not isinstance(value, dict):
        raise ApiError(400, f"the request must be a JSON object, not {type(value).__name__}")
    return value


def flag(request: Request, name: str) -> bool:
    """A boolean query parameter; absent is false.

    Raises
    ------
    ApiError
        400 if it is neither true nor false.
    """
    value = request.query_params.get(name, "false").lower()
    if value not in ("true", "false"):
        raise ApiError(400, f"query parameter {name} must be true or false, not {value!r}")
    return value == "true"


@overload
def integer(request: Request, name: str, default: int) -> int: ...
@overload
def integer(request: Request, name: str, default: None = None) -> int | None: ...
def integer(request: Request, name: str, default: int | None = None) -> int | None:
    """A non-negative integer query parameter, or `default`.

    Raises
    ------
    ApiError
        400 if it is no such number.
    """
    value = request.query_params.get(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit():
        raise ApiError(400, f"query parameter {name} must be a whole number, not {value[:40]!r}")
    # Digits are counted first: Python refuses to read thousands of them.
    if len(value) > len(str(INTEGER_MAX)) or int(value) > INTEGER_MAX:
        raise ApiError(400, f"query parameter {name} is too large: {value[:40]}")
    return int(value)


def page(request: Request) -> tuple[int, int]:
    """`limit` and `skip`, OpenWhisk's way: 30 by default, at most 200, 0 meaning 200."""
    limit = integer(request, "limit", LIST_DEFAULT)
    if limit > LIST_MAX:
        raise ApiError(400, f"limit may be at most {LIST_MAX}, not {limit}")
    return limit or LIST_MAX, integer(request, "skip", 0)
