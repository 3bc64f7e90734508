"""What a client should not be able to do to the service, and what it must not lose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from openwhisk.app.model import Application, ComputeElement
from openwhisk.store import Store

CODE = "def main(params):\n    return {'v': 1}\n"
SLOW = "import time\n\ndef main(params):\n    time.sleep(600)\n"


def plain(code: str) -> dict[str, Any]:
    return {"exec": {"kind": "python:default", "code": code}, "limits": {"memory": 512}}


@pytest.fixture
def http(server: Any) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.mark.parametrize("header", ["Basic \xe9\xe9\xe9\xe9", "Basic !", "Basic", "Bearer x"])
def test_a_mangled_authorization_is_401(server: Any, header: str) -> None:
    headers = {"Authorization": header.encode("latin-1")}
    response = httpx.get(server.url + "/api/v1/namespaces", headers=headers)
    assert response.status_code == 401
    assert set(response.json()) == {"error", "code"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"a": NaN}',
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'{"a": 1' + b"0" * 10_000 + b"}",
    ],
    ids=["deep", "nan", "surrogate", "utf8", "digits"],
)
def test_hostile_bodies_are_400(http: httpx.Client, body: bytes) -> None:
    http.put("/actions/target", json=plain(CODE), params={"overwrite": "true"})
    for response in (
        http.post("/actions/target", content=body),
        http.put("/actions/hostile", content=body),
    ):
        assert response.status_code == 400, response.text
        assert set(response.json()) == {"error", "code"}


@pytest.mark.parametrize("name", ["skip", "since", "upto"])
@pytest.mark.parametrize("value", ["9" * 19, "9" * 5000], ids=["past 64 bits", "absurd"])
def test_numbers_that_sqlite_cannot_hold_are_400(http: httpx.Client, name: str, value: str) -> None:
    response = http.get("/activations", params={name: value})
    assert response.status_code == 400
    assert name in response.json()["error"]


def test_what_cannot_be_run_is_not_stored(http: httpx.Client) -> None:
    """Two elements that wait for one another pass for JSON, but not for an application."""
    good = application(a=())
    circle = application(a=("b",), b=("a",))
    assert http.put("/actions/circle", json=circle).status_code == 400
    assert http.get("/actions/circle").status_code == 404
    made = http.put("/actions/circle", json=good)
    assert made.status_code == 200, made.text
    assert http.put("/actions/circle", json=good).status_code == 409
    response = http.put("/actions/circle", json=circle, params={"overwrite": "true"})
    assert response.status_code == 400
    stored = http.get("/actions/circle").json()
    assert [o["name"] for o in stored["functions"][0]["objects"]] == ["a"]


def application(**parents: tuple[str, ...]) -> dict[str, Any]:
    elements = [ComputeElement(name, CODE, parents=above) for name, above in parents.items()]
    return Application("circle", elements).to_json()


def test_a_stored_entity_that_cannot_be_read_does_not_keep_the_service_down(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    store = Store(tmp_path / "openwhisk.sqlite")
    store.put("guest", "bad", {"exec": {"kind": "cobol:85", "code": ""}}, overwrite=False)
    store.put("guest", "good", plain(CODE), overwrite=False)
    store.close()
    server = start_server(tmp_path)
    with server.client() as http:
        answer = http.post("/actions/good", params={"blocking": "true", "result": "true"})
        assert answer.json() == {"v": 1}
    assert server.stop() == 0


def test_what_has_just_ended_is_listed(http: httpx.Client) -> None:
    http.put("/actions/quick", json=plain(CODE), params={"overwrite": "true"})
    for _ in range(20):
        record = http.post("/actions/quick", params={"blocking": "true"}).json()
        (newest,) = http.get("/activations", params={"name": "quick", "limit": 1}).json()
        assert newest["activationId"] == record["activationId"]


def test_the_record_says_what_kind_of_failure_it_was(http: httpx.Client) -> None:
    http.put("/actions/raises", json=plain("def main(params):\n    raise KeyError('k')\n"))
    record = http.post("/actions/raises", params={"blocking": "true"}).json()
    assert record["errorKind"] == "element"
    (listed,) = http.get("/activations", params={"name": "raises"}).json()
    assert listed["errorKind"] == "element"
    http.put("/actions/succeeds", json=plain(CODE))
    record = http.post("/actions/succeeds", params={"blocking": "true"}).json()
    assert record["errorKind"] is None


def test_stopping_answers_who_waits_and_leaves_nothing(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(tmp_path)
    answers: list[httpx.Response] = []
    with server.client() as http, server.client() as other:
        http.put("/actions/slow", json=plain(SLOW))

        def post() -> None:
            answers.append(http.post("/actions/slow", params={"blocking": "true"}))

        waiter = threading.Thread(target=post)
        waiter.start()
        while other.get(server.url + "/api/v1/cluster").json()["activations"] == 0:
            time.sleep(0.01)
        children = psutil.Process(server.pid).children(recursive=True)
        assert children
        assert server.stop() == 0
        waiter.join(30)
    (answer,) = answers
    assert answer.status_code == 202
    assert answer.headers["x-openwhisk-activation-id"] == answer.json()["activationId"]
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    store = Store(tmp_path / "openwhisk.sqlite")
    record = store.get_activation("guest", answer.json()["activationId"])
    store.close()
    assert (record["state"], record["errorKind"]) == ("cancelled", "cancelled")
    assert msgspec.json.encode(record)
