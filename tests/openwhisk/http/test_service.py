"""The REST service as clients speak to it: real server, real HTTP."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from openwhisk.app import complete
from openwhisk.app.model import Application, ComputeElement, Limits, MemoryElement
from openwhisk.client import ApiStatusError, ControlPlaneUnreachableError, HttpControlPlane
from openwhisk.errors import OpenWhiskError, WaitTimeoutError

SMALL = Limits(mem=512 << 20)
WRITE = """
def main(params, action):
    memory = action.get_transport("mem", "rdma")
    memory.write_from(0, int(params["value"]).to_bytes(8, "little"))
    print("wrote", params["value"])
    return {"at": 0}
"""
READ = """
def main(params, action):
    memory = action.get_transport("mem", "rdma")
    out = bytearray(8)
    memory.read_into(params["write"][0]["at"], out)
    return {"value": int.from_bytes(out, "little"), "kind": memory.type}
"""


def two_nodes(name: str = "two") -> Application:
    return complete(
        Application(
            name,
            [
                ComputeElement("write", WRITE, limits=SMALL),
                ComputeElement("read", READ, parents=("write",), limits=SMALL),
                MemoryElement("mem", corunning=("write", "read"), limits=Limits(mem=1 << 16)),
            ],
        )
    )


def plain(code: str, **more: Any) -> dict[str, Any]:
    return {"exec": {"kind": "python:default", "code": code}, "limits": {"memory": 512}, **more}


@pytest.fixture
def http(server: Any) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def plane(server: Any) -> Iterator[HttpControlPlane]:
    with HttpControlPlane(server.url, server.auth) as made:
        yield made


def assert_error(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "code"}
    assert body["code"]
    for word in words:
        assert word in body["error"]


def test_about_needs_no_key(server: Any) -> None:
    about = httpx.get(server.url + "/").json()
    assert about["api_paths"] == ["/api/v1"]


def test_authentication(server: Any) -> None:
    assert_error(httpx.get(server.url + "/api/v1/namespaces"), 401, "uuid:key")
    user, _, _ = server.auth.partition(":")
    with server.client(f"{user}:wrong") as client:
        assert_error(client.get("/actions"), 401)
    with server.client() as client:
        assert client.get(server.url + "/api/v1/namespaces").json() == ["guest"]
        assert_error(client.get(server.url + "/api/v1/namespaces/other/actions"), 403, "other")


def test_plain_action_blocking_and_not(http: httpx.Client) -> None:
    code = "def main(params):\n    print('hi')\n    return {'twice': 2 * params['n']}\n"
    body = plain(code, parameters=[{"key": "n", "value": 4}])
    assert http.put("/actions/twice", json=body).json()["version"] == "0.0.1"

    response = http.post("/actions/twice", params={"blocking": "true"}, json={"n": 21})
    assert response.status_code == 200, response.text
    record = response.json()
    assert record["response"]["result"] == {"twice": 42}
    assert record["response"]["status"] == "success"
    assert response.headers["x-openwhisk-activation-id"] == record["activationId"]
    assert len(record["activationId"]) == 32

    only = http.post("/actions/twice", params={"blocking": "true", "result": "true"})
    assert only.json() == {"twice": 8}

    later = http.post("/actions/twice", json={"n": 1})
    assert later.status_code == 202
    activation_id = later.json()["activationId"]
    path = f"/activations/{activation_id}"
    record = http.get(path, params={"wait": 30_000}).json()
    assert record["end"] >= record["start"]
    assert http.get(f"{path}/result").json()["result"] == {"twice": 2}
    assert any("hi" in line for line in http.get(f"{path}/logs").json()["logs"])
    listed = http.get("/activations", params={"name": "twice"}).json()
    assert activation_id in [r["activationId"] for r in listed]
    assert "response" not in listed[0]


def test_conflict_overwrite_get_list_delete(http: httpx.Client) -> None:
    body = plain("def main(params):\n    return {'v': 1}\n")
    assert http.put("/actions/entity", json=body).status_code == 200
    assert_error(http.put("/actions/entity", json=body), 409, "overwrite=true")
    again = http.put("/actions/entity", params={"overwrite": "true"}, json=body)
    assert again.json()["version"] == "0.0.2"
    assert http.get("/actions/entity").json()["exec"]["code"].startswith("def main")
    assert "code" not in http.get("/actions/entity", params={"code": "false"}).json()["exec"]
    assert "entity" in [e["name"] for e in http.get("/actions").json()]
    assert http.delete("/actions/entity").status_code == 200
    assert_error(http.get("/actions/entity"), 404, "entity")
    assert_error(http.post("/actions/entity"), 404)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{not json", ["not JSON"]),
        (b"[1]", ["JSON object"]),
        (b"", ["no body"]),
        (b"{}", []),
        (b'{"exec": {"kind": "nodejs:default", "code": "x"}}', ["nodejs:default"]),
        (b'{"exec": {"kind": "python:3"}}', ["exec.code"]),
        (b'{"exec": {"code": "def main(p): pass"}, "limits": {"memory": "big"}}', ["memory"]),
        (b'{"functions": [{"objects": [{"name": "a"}]}]}', ["functions[0]"]),
    ],
)
def test_bad_bodies(http: httpx.Client, body: bytes, words: list[str]) -> None:
    assert_error(http.put("/actions/bad", content=body), 400, *words)
    assert http.get("/actions/bad").status_code == 404


def test_bad_queries(http: httpx.Client) -> None:
    assert_error(http.get("/actions", params={"limit": "x"}), 400, "limit")
    assert_error(http.get("/actions", params={"limit": 201}), 400, "200")
    assert_error(http.put("/actions/a", params={"overwrite": "maybe"}, json={}), 400, "overwrite")
    assert_error(http.get("/activations/" + "0" * 32), 404, "0" * 32)
    assert http.get("/no/such/route").status_code == 404


def test_application_over_both_transports(plane: HttpControlPlane) -> None:
    plane.put_application(two_nodes())
    for transport, kind in (("auto", "rdma_shm"), ("tcp", "rdma_tcp")):
        activation = plane.wait(plane.invoke("two", {"value": 77}, transport=transport), 60)
        assert activation.status == "success", activation.error
        assert activation.result == {"read": {"value": 77, "kind": kind}}
        assert {e.name for e in activation.elements} >= {"write", "read"}
        assert activation.usage.memory_gb_s > 0
        assert [m.name for m in activation.memory] == ["mem"]
    plane.delete_application("two")
    with pytest.raises(ApiStatusError):
        plane.invoke("two")


def test_an_element_that_raises_is_502_with_its_traceback(http: httpx.Client) -> None:
    code = "def main(params):\n    raise RuntimeError('broken on purpose')\n"
    http.put("/actions/broken", json=plain(code))
    response = http.post("/actions/broken", params={"blocking": "true"})
    assert response.status_code == 502
    record = response.json()
    assert record["response"]["success"] is False
    assert "broken on purpose" in record["response"]["result"]["error"]
    assert "RuntimeError" in record["response"]["result"]["error"]


def test_a_wait_that_is_too_short_is_202_and_cancel_ends_it(http: httpx.Client) -> None:
    code = "import time\n\ndef main(params):\n    time.sleep(600)\n"
    http.put("/actions/slow", json=plain(code))
    response = http.post("/actions/slow", params={"blocking": "true", "timeout": 50})
    assert response.status_code == 202
    path = f"/activations/{response.json()['activationId']}"
    assert_error(http.get(f"{path}/result"), 404, "not ended")
    assert http.delete(path).status_code == 204
    record = http.get(path, params={"wait": 30_000}).json()
    assert record["state"] == "cancelled"


def test_wait_times_out_in_the_client(plane: HttpControlPlane) -> None:
    slow = ComputeElement("e", "import time\ndef main(p, a):\n    time.sleep(600)\n", limits=SMALL)
    plane.put_application(Application("slow-app", [slow]))
    activation_id = plane.invoke("slow-app")
    with pytest.raises(WaitTimeoutError, match=activation_id):
        plane.wait(activation_id, timeout=0.05)
    plane.cancel(activation_id)
    assert plane.wait(activation_id, 30).status == "cancelled"


def test_sessions_own_memory_and_grants_reach_it(plane: HttpControlPlane) -> None:
    from libd import LibdAction

    app = complete(
        Application(
            "kept",
            [
                ComputeElement("write", WRITE, limits=SMALL),
                MemoryElement(
                    "mem", corunning=("write",), limits=Limits(mem=4096), lifetime="session"
                ),
            ],
        )
    )
    plane.put_application(app)
    session = plane.open_session(lease=30)
    activation_id = plane.invoke("kept", {"value": 5}, session=session.id)
    assert plane.wait(activation_id, 60).status == "success"
    for transport in ("shm", "tcp"):
        durl = plane.grant(session.id, activation_id, "mem", transport)
        action = LibdAction("test", transports=[durl])
        out = bytearray(8)
        action.get_transport("mem", "rdma").read_into(0, out)
        action.close()
        assert int.from_bytes(out, "little") == 5
    plane.renew_session(session.id)
    plane.release(session.id, activation_id, "mem")
    with pytest.raises(ApiStatusError, match="mem"):
        plane.grant(session.id, activation_id, "mem")
    plane.close_session(session.id)
    with pytest.raises(ApiStatusError, match=session.id):
        plane.renew_session(session.id)


def test_cluster_info(plane: HttpControlPlane) -> None:
    info = plane.info()
    assert info.cores >= 1


def test_unreachable_and_nonsense_hosts(tmp_path: Path) -> None:
    with HttpControlPlane("http://127.0.0.1:1", "u:k") as nobody:
        with pytest.raises(ControlPlaneUnreachableError, match="python -m openwhisk"):
            nobody.info()
    with pytest.raises(OpenWhiskError, match="uuid:key"):
        HttpControlPlane("http://127.0.0.1:1", "no-colon")


def test_restart_keeps_entities_and_activations(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    first = start_server(tmp_path)
    with first.client() as http:
        http.put("/actions/kept", json=plain("def main(params):\n    return {'v': 1}\n"))
        http.post("/actions/kept", params={"blocking": "true"})
        (before,) = http.get("/activations").json()
    assert first.stop() == 0
    second = start_server(tmp_path)
    assert second.auth == first.auth
    with second.client() as http:
        path = f"/activations/{before['activationId']}"
        assert http.get(path).json()["response"]["result"] == {"v": 1}
        again = http.post("/actions/kept", params={"blocking": "true", "result": "true"})
        assert again.json() == {"v": 1}
    assert second.stop() == 0


def test_sigkill_of_the_server_leaves_no_process(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    server = start_server(tmp_path)
    with HttpControlPlane(server.url, server.auth) as plane:
        plane.put_application(two_nodes())
        assert plane.wait(plane.invoke("two", {"value": 1}), 60).status == "success"
    children = psutil.Process(server.pid).children(recursive=True)
    assert children
    os.kill(server.pid, 9)
    server.process.wait(30)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_a_busy_port_is_one_line(server: Any, tmp_path: Path) -> None:
    import subprocess
    import sys

    port = server.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "openwhisk", "--port", port, "--state", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("openwhisk: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
