"""``rundisagg``: the seed's commands, chains by hand, and every way in which it says no."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openwhisk.cli.memory import parse_memory
from openwhisk.cli.rundisagg import main

ROOT = Path(__file__).parents[3]


def rundisagg(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "openwhisk.cli.rundisagg", *map(str, args)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_seeds_example_by_its_commands(example: Path, memory_port: int) -> None:
    mem = f"mem1:{memory_port}"
    one = rundisagg(example / "compute1.o.py", "-m", mem)
    assert (one.returncode, one.stderr) == (0, "")
    assert one.stdout == 'compute1 wrote 12345\n{"value": 12345, "addr": 0}\n'
    two = rundisagg(example / "compute2.o.py", "-m", mem, "-p")
    assert two.returncode == 0, two.stderr
    assert two.stdout == 'compute2 fetched 12345 True\n{"fetched": 12345, "same": true}\n'
    first, second = two.stderr.splitlines()
    assert first.startswith("profile: ")
    assert " s of cpu, peak memory of the process " in first
    assert second == (
        "profile: mem1: read 4 bytes in 1 calls, wrote 0 bytes in 0 calls, mapped 0 bytes"
    )
    stored = sorted(p.name for p in (example / ".rundisagg").iterdir())
    assert stored == [".gitignore", "compute1@0.json", "compute2@0.json"]


def test_a_memory_server_that_is_not_there(example: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    done = rundisagg(example / "compute1.o.py", "-m", f"mem1:{port}")
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("rundisagg: memory element mem1: ")
    assert line.endswith(f"(start one with: memory_server {port})")
    assert not (example / ".rundisagg").exists()


def test_token_host_and_durl(
    example: Path, start_memory_server: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    path = str(example / "compute1.o.py")
    with start_memory_server("--token", "s3cret") as port:
        assert main([path, "-m", f"mem1:127.0.0.1:{port}", "--token", "s3cret"]) == 0
        durl = f"mem1;rdma_tcp;url,tcp://127.0.0.1:{port};token,s3cret;"
        assert main([path, "-m", durl]) == 0
        capfd.readouterr()
        assert main([path, "-m", f"mem1:{port}", "--token", "wr0ng"]) == 1
        assert main([path, "-m", f"mem1:{port}"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert "wr0ng" not in err


def test_copies_of_a_chain_by_hand(
    element: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    many = element(
        """\
        #@ parallelism: 2
        #@ parameters: {base: 10}
        import os
        def main(params, action):
            assert os.environ["__OW_PAR"] == str(action.index)
            assert os.environ["__OW_PAR_N"] == str(action.count)
            return {"x": params["base"] + action.index}
        """,
        "many.o.py",
    )
    join = element(
        "#@ parents: [many]\ndef main(params, action):\n    return params\n", "join.o.py"
    )
    out = str(tmp_path / "out")
    assert main([str(join), "-d", out]) == 1
    assert "join waits for many, whose result is not in" in capfd.readouterr().err
    assert main([str(many), "-d", out, "-i", "1"]) == 0
    assert main([str(join), "-d", out]) == 1
    assert "join waits for many, whose copy 0 has not run yet" in capfd.readouterr().err
    assert main([str(many), "-d", out]) == 0
    capfd.readouterr()
    assert main([str(join), "-d", out]) == 0
    assert json.loads(capfd.readouterr().out) == {"many": [{"x": 10}, {"x": 11}]}
    assert "__OW_PAR" not in os.environ
    # Other numbers of copies: the old results are no longer taken for complete.
    assert main([str(many), "-d", out, "-i", "2", "-n", "3"]) == 0
    assert main([str(join), "-d", out]) == 1
    assert "different numbers of copies (2, 3)" in capfd.readouterr().err
    params = ["--params", '{"base": 5}']
    assert main([str(many), "-d", out, "-n", "1", *params]) == 0
    capfd.readouterr()
    assert main([str(join), "-d", out]) == 0
    assert json.loads(capfd.readouterr().out) == {"many": [{"x": 5}]}


def test_a_damaged_result_is_named(
    element: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = element("#@ parents: [a]\ndef main(params, action):\n    return {}\n")
    for text in ("{", "[]", '{"count": 1}', '{"count": "x", "result": 1}'):
        (tmp_path / "a@0.json").write_text(text)
        assert main([str(path), "-d", str(tmp_path)]) == 1
        err = capfd.readouterr().err
        assert err.startswith(f"rundisagg: {tmp_path / 'a@0.json'}: not a result of a: ")
        assert len(err.splitlines()) == 1


def test_a_failing_element_shows_its_traceback_and_stores_nothing(
    element: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = element(
        """\
        #@ type: compute
        def main(params, action):
            print("before")
            raise ValueError("no good")
        """
    )
    assert main([str(path), "-d", str(tmp_path / "out")]) == 1
    out, err = capfd.readouterr()
    assert out == "before\n"
    assert f'File "{path}", line 4, in main\n    raise ValueError("no good")' in err
    assert err.splitlines()[-1] == "rundisagg: element e failed: ValueError: no good"
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_not_json_is_one_line(
    element: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(element("def main(p, a): return {'x': {1}}\n"))]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("rundisagg: element e failed: result['x'] is set")
    assert len(err.splitlines()) == 1


def test_helper_modules_beside_the_element(
    element: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    element("VALUE = 7\n", "beside_the_element.py")
    path = element("import beside_the_element as b\ndef main(p, a): return {'x': b.VALUE}\n")
    assert main([str(path)]) == 0
    assert capfd.readouterr().out == '{"x": 7}\n'
    sys.modules.pop("beside_the_element")


def test_merged_memory_is_inside_the_process(
    element: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = element(
        """\
        #@ withMerged:
        #@ - action: {namespace: whisk.system, name: local}
        #@   resources: {mem: 64 KB}
        #@   elem: Memory
        from disagg import *
        def main(params, action):
            trans = action.get_transport('local', 'rdma')
            trans.reg(8)
            trans.buf[0:2] = b'hi'
            trans.write(2, addr=100, offset=0)
            trans.read(2, addr=100, offset=4)
            action.profile('end')
            return {'size': trans.size, 'got': bytes(trans.buf[4:6]).decode(),
                    'names': list(action.memory_elements)}
        """
    )
    assert main([str(path), "-p"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == {"size": 65536, "got": "hi", "names": ["local"]}
    assert "profile: local: read 2 bytes in 1 calls, wrote 2 bytes in 1 calls" in err
    assert "profile: mark 'end' at " in err


def test_transport_names_of_the_element(
    element: Callable[..., Path], memory_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = element(
        """\
        #@ corunning: {mem1: {trans: t, type: rdma}}
        def main(params, action):
            a, b = action.get_transport('t', 'rdma'), action.get_transport('mem1', 'rdma')
            return {'same': a is b, 'element': a.element}
        """
    )
    for name in ("mem1", "t"):
        assert main([str(path), "-m", f"{name}:{memory_port}"]) == 0
        assert json.loads(capfd.readouterr().out) == {"same": True, "element": "mem1"}


COMPUTE = "#@ corunning: [mem1]\ndef main(p, a): return {}\n"


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        ([], 1, "e coruns with mem1: say where with -m 'mem1:PORT'"),
        (["-m", "mem1"], 2, "-m: 'mem1' is not NAME:PORT"),
        (["-m", "mem1:x"], 2, "-m: 'mem1:x' is not NAME:PORT"),
        (["-m", "mem1:0"], 2, "port 0 is not 1 to 65535"),
        (["-m", "mem1:99999"], 2, "port 99999 is not 1 to 65535"),
        (["-m", "mem1;rdma_tcp;"], 2, "durl 'mem1' has no address"),
        (["-m", "mem1;rdma_tcp;url"], 2, "not of the form KEY,VALUE"),
        (["-m", "mem1:1", "-m", "mem1:2"], 2, "memory element mem1 is given twice"),
        (["-m", "mem1;no_such;url,tcp://localhost:1;"], 1, "no transport of type 'no_such'"),
        (["-i", "1"], 2, "-i 1: e has 1 copies, numbered from 0"),
        (["-i", "-1"], 2, "-i -1: e has 1 copies"),
        (["-n", "0"], 2, "-i 0: e has 0 copies"),
        (["--params", "x"], 2, "--params is not JSON"),
        (["--params", "[1]"], 2, "--params must be a JSON object"),
    ],
)
def test_one_clear_line(
    element: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    args: list[str],
    status: int,
    message: str,
) -> None:
    assert main([str(element(COMPUTE)), *args]) == status
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.o.py", "#@ limits: {mem: 12 XB}\ndef main(p, a): return {}\n", ":1: e: limits: mem "),
        ("e.o.py", "#@ type: compute\ndef main(\n", ":2: e: not Python: '(' was never closed"),
        ("e.o.py", "x = 1\n", ":1: e: defines no function main(params, action)"),
        ("e.o.yaml", "limits: {mem: 1 MB}\n", "only compute elements (NAME.o.py) can be run"),
        ("e.py", "", "only compute elements (NAME.o.py) can be run"),
    ],
)
def test_elements_that_cannot_be_run(
    element: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    name: str,
    text: str,
    message: str,
) -> None:
    path = element(text, name)
    assert main([str(path)]) == 1
    err = capfd.readouterr().err
    assert f"{path}{message}" in err or f"{path}: {message}" in err
    assert len(err.splitlines()) == 1


def test_an_element_that_does_not_exist(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([str(tmp_path / "gone.o.py")]) == 1
    assert capfd.readouterr().err == (
        f"{tmp_path / 'gone.o.py'}: cannot be read: No such file or directory\n"
    )


@pytest.mark.parametrize("args", [[], ["e.o.py", "--what"], ["e.o.py", "--timeout", "0"]])
def test_wrong_usage(args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    assert "usage: rundisagg" in capfd.readouterr().err


def test_a_results_directory_that_cannot_be_made(
    element: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = element("def main(p, a): return {}\n")
    assert main([str(path), "-d", str(path)]) == 1
    assert capfd.readouterr().err == f"rundisagg: {path}: File exists\n"


def test_forms_of_memory_addresses() -> None:
    assert str(parse_memory("m:1", None)) == "m;rdma_tcp;url,tcp://localhost:1;"
    assert str(parse_memory("m:h.x:65535", None)) == "m;rdma_tcp;url,tcp://h.x:65535;"
    assert str(parse_memory("m:[::1]:7", "t")) == "m;rdma_tcp;url,tcp://[::1]:7;token,t;"
    full = "m;rdma_shm;url,unix://@x;token,a;"
    assert str(parse_memory(full, "b")) == full
