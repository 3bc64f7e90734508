"""``wskruntime``: the action-runtime contract."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from libd import LibdAction
from openwhisk.cli.wskruntime import SENTINEL, Runtime, application, main

ROOT = Path(__file__).parents[3]


class Client:
    """Requests to the ASGI application in this process."""

    def __init__(self, runtime: Runtime) -> None:
        self._transport = httpx.ASGITransport(application(runtime))

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://x") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)


@pytest.fixture
def client() -> Iterator[Client]:
    runtime = Runtime(LibdAction("test"))
    yield Client(runtime)
    runtime.close()


def init(client: Client, code: Any, **value: Any) -> httpx.Response:
    return client.post("/init", json={"value": {"name": "act", "code": code, **value}})


def test_init_then_run(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    code = "n = 0\ndef main(args):\n    global n\n    n += 1\n    print('hi')\n"
    code += "    return {**args, 'n': n}\n"
    answer = init(client, code, main="main", binary=False)
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    for n in (1, 2):
        answer = client.post("/run", json={"value": {"a": "ä"}})
        assert (answer.status_code, answer.json()) == (200, {"a": "ä", "n": n})
    out, err = capfd.readouterr()
    assert out == f"hi\n{SENTINEL}\n" * 2
    assert err == f"{SENTINEL}\n" * 2


def test_twice_is_forbidden(client: Client) -> None:
    assert init(client, "def main(a): return a").status_code == 200
    answer = init(client, "def main(a): return {}")
    assert answer.status_code == 403
    assert answer.json() == {"error": "Cannot initialize the action more than once."}
    assert client.post("/run", json={"value": {"x": 1}}).json() == {"x": 1}


@pytest.mark.parametrize("value", [{}, {"code": ""}, {"code": " \n"}, {"code": 5}, {"code": None}])
def test_nothing_to_execute(client: Client, value: dict[str, Any]) -> None:
    answer = client.post("/init", json={"value": value})
    assert answer.status_code == 403
    assert answer.json() == {"error": "Missing main/no code to execute."}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def main(", "SyntaxError"),
        ("x = 1", "defines no function 'main'"),
        ("raise ValueError('bad')", "ValueError: bad"),
        ("import sys; sys.exit(1)", "exit(1)"),
    ],
)
def test_failed_init_can_be_tried_again(client: Client, code: str, message: str) -> None:
    answer = init(client, code)
    assert answer.status_code == 502
    assert message in answer.json()["error"]
    assert init(client, "def main(a): return a").status_code == 200


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def main(a): return None", "main returned None; it must return a dict or a list"),
        ("def main(a): return 'x'", "main returned str"),
        ("def main(a): raise ValueError('bad')", "ValueError: bad"),
        ("def main(a): raise SystemExit(1)", "exit(1)"),
    ],
)
def test_failed_runs(
    client: Client, code: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    init(client, code)
    answer = client.post("/run", json={"value": {}})
    assert answer.status_code == 502
    assert message in answer.json()["error"]
    out, err = capfd.readouterr()
    assert out == f"{SENTINEL}\n"
    assert message in err.splitlines()[-2] or err.startswith("Traceback ")
    assert err.endswith(f"\n{SENTINEL}\n")


def test_environment_of_init_and_run(client: Client) -> None:
    code = """
import os
def main(args):
    return {k: os.environ.get(k) for k in ("MINE", "OBJ", "__OW_ACTIVATION_ID", "__OW_DEADLINE",
                                           "__OW_NAMESPACE", "__OW_ACTION_NAME", "__OW_VALUE")}
"""
    init(client, code, env={"MINE": "x", "OBJ": {"a": 1}})
    message = {
        "value": {},
        "namespace": "guest",
        "action_name": "/guest/act",
        "activation_id": "ab",
        "deadline": 17,
        "a=b": "odd",
    }
    assert client.post("/run", json=message).json() == {
        "MINE": "x",
        "OBJ": '{"a": 1}',
        "__OW_ACTIVATION_ID": "ab",
        "__OW_DEADLINE": "17",
        "__OW_NAMESPACE": "guest",
        "__OW_ACTION_NAME": "/guest/act",
        "__OW_VALUE": None,
    }


def test_arrays_and_large_inputs(client: Client) -> None:
    init(client, "def start(args): return [len(args['x'])]", main="start")
    assert client.post("/run", json={"value": {"x": "y" * 2_000_000}}).json() == [2_000_000]


def test_binary_text_and_zip(client: Client) -> None:
    assert init(client, "UEsDBBQ=", binary=True).status_code == 502
    assert init(client, "not base64!", binary=True).status_code == 502
    text = base64.b64encode(b"def main(a): return {'x': 1}").decode()
    assert init(client, text, binary=True).status_code == 200
    assert client.post("/run", json={"value": {}}).json() == {"x": 1}


def test_malformed_requests(client: Client) -> None:
    for path in ("/init", "/run"):
        for body in (b"", b"{", b"[1]", b"\xff"):
            answer = client.post(path, content=body)
            assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert client.post("/run", json={"value": {}}).status_code == 502
    init(client, "def main(a): return a")
    assert client.post("/run", json={"value": 5}).status_code == 404
    assert client.request("GET", "/run").status_code == 405


def test_serving_an_element_with_memory(example: Path, memory_port: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "openwhisk.cli.wskruntime", "--port", "0"]
    command += ["-m", f"mem1:{memory_port}", str(example / "compute1.o.py")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        match = re.search(r"http://\S+", process.stderr.readline())
        assert match is not None
        url = match[0]
        answer = httpx.post(f"{url}/run", json={"value": {}}, timeout=30)
        assert (answer.status_code, answer.json()) == (200, {"value": 12345, "addr": 0})
        assert httpx.post(f"{url}/init", json={"value": {"code": "x"}}).status_code == 403
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert out == f"compute1 wrote 12345\n{SENTINEL}\n"


def test_what_cannot_be_served(
    element: Callable[..., Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([str(element("raise ValueError('bad')\ndef main(a): return a\n"))]) == 1
    assert "wskruntime: The action failed to initialize: ValueError: bad" in capfd.readouterr().err
    assert main([str(element("#@ corunning: [m]\ndef main(a): return a\n"))]) == 1
    assert "e coruns with m: say where" in capfd.readouterr().err
    assert main([str(tmp_path / "x.o.yaml")]) == 1
    assert "only compute elements" in capfd.readouterr().err
    assert main(["--port", "70000"]) == 2
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in capfd.readouterr().err
