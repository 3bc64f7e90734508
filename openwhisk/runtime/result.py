"""What may leave an element: small JSON, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openwhisk.app.plain import NotPlainError, describe, plain_json
from openwhisk.errors import ElementError


def check_result(result: Any, *, allow_array: bool = False) -> Any:
    """Return `result` as plain JSON data.

    Tuples become lists. Nothing else is converted: data belongs into memory elements, and an
    element that returns an array or a timestamp by mistake should hear of it here and not from its
    dependent.

    Raises
    ------
    ElementError
        Naming the place of the first value that is not JSON (``result['a'][3]``) and its type.
    """
    if not isinstance(result, Mapping) and not (allow_array and isinstance(result, (list, tuple))):
        wanted = "a dict or a list" if allow_array else "a dict"
        raise ElementError(f"main returned {describe(result)}; it must return {wanted}")
    try:
        return plain_json(result, "result")
    except NotPlainError as error:
        raise ElementError(
            f"{error}; return plain numbers, text, lists and dicts, and put data into a memory "
            "element"
        ) from None
