"""What an `HttpControlPlane` raises is what an `EmbeddedControlPlane` raises."""

from __future__ import annotations

import httpx
import pytest

from openwhisk.client import ApiStatusError, HttpControlPlane
from openwhisk.errors import AlreadyExistsError, MemoryLostError, NotFoundError, OpenWhiskError


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, NotFoundError),
        (409, AlreadyExistsError),
        (410, MemoryLostError),
        (400, OpenWhiskError),
    ],
)
def test_errors_by_status(status: int, kind: type[Exception]) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"error": "why", "code": "7"})

    with HttpControlPlane("localhost:1", "u:k") as plane:
        plane._http = httpx.Client(
            base_url="http://localhost:1", transport=httpx.MockTransport(refuse)
        )
        with pytest.raises(kind, match="why") as caught:
            plane.renew_session("gone")
    assert isinstance(caught.value, ApiStatusError)
    assert (caught.value.status, caught.value.code) == (status, "7")
