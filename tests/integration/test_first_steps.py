"""What a newcomer tries: the README, the examples, the seed's commands."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

API_TEST = "API test int = 12345, fetch = 12345 True\n"
MODULES = {
    "scad": "scad.cli",
    "memory_server": "libd.memory_server",
    "rundisagg": "openwhisk.cli.rundisagg",
    "wskgen": "openwhisk.cli.wskgen",
    "wskish": "openwhisk.cli.wskish",
    "wskruntime": "openwhisk.cli.wskruntime",
}


@pytest.fixture
def two_node(world: Any, root: Path) -> Path:
    """The seed's example, where it may be written to."""
    target: Path = world.home / "corunning-2-node"
    shutil.copytree(
        root / "examples" / "corunning-2-node", target, ignore=shutil.ignore_patterns(".*")
    )
    return target


@pytest.fixture(params=["module", "script"])
def rundisagg(request: Any, script: Any) -> list[str]:
    if request.param == "script":
        return [script("rundisagg")]
    return ["-m", "openwhisk.cli.rundisagg"]


def test_the_three_commands(world: Any, two_node: Path, rundisagg: list[str]) -> None:
    server, port = world.memory_server("--size", "64KB")
    for element, says in (("compute1", "wrote 12345"), ("compute2", "fetched 12345 True")):
        path = str(two_node / f"{element}.o.py")
        status, out, err = world.run(*rundisagg, path, "-m", f"mem1:{port}")
        assert (status, err) == (0, "")
        assert f"{element} {says}" in out
    assert json.loads(out.splitlines()[-1]) == {"fetched": 12345, "same": True}
    server.terminate()
    assert world.finish(server).status == 0


def test_memory_server_as_a_script(world: Any, script: Any) -> None:
    server = world.start(script("memory_server"), "0", "--size", "64KB", "--json")
    assert "tcp_url" in json.loads(server.stdout.readline())
    server.terminate()
    assert world.finish(server).status == 0


@pytest.mark.slow
def test_the_two_nodes_on_a_control_plane(world: Any, two_node: Path) -> None:
    server, url = world.serve()
    wskish = ["-m", "openwhisk.cli.wskish", "--apihost", url]
    made = world.run("-m", "openwhisk.cli.wskgen", "-o", "app.json", str(two_node))
    assert (made.status, made.err) == (0, "")
    for name, source in (("json", "app.json"), ("folder", str(two_node))):
        assert world.run(*wskish, "put", name, source).status == 0
        posted = world.run(*wskish, "post", name, "--result")
        assert posted.status == 0, posted
        assert json.loads(posted.out) == {"compute2": {"fetched": 12345, "same": True}}
    posted = world.run(*wskish, "post", "json")
    activation = json.loads(posted.out)["activationId"]
    world.run(*wskish, "post", "json", "--blocking")
    got = world.run(*wskish, "get", activation)
    assert json.loads(got.out)["response"]["success"] is True
    logs = world.run(*wskish, "get", activation, "--logs")
    assert "compute1 wrote 12345" in logs.out
    server.terminate()
    assert world.finish(server).status == 0


def test_wskgen_and_back(world: Any, two_node: Path) -> None:
    wskgen = ["-m", "openwhisk.cli.wskgen"]
    assert world.run(*wskgen, "-o", "a.json", str(two_node)).status == 0
    assert world.run(*wskgen, "--reverse", "-o", "again", "a.json").status == 0
    assert world.run(*wskgen, "-o", "b.json", "again", "--name", two_node.name).status == 0
    a, b = (json.loads((world.home / name).read_text()) for name in ("a.json", "b.json"))
    assert a == b


# -- examples --------------------------------------------------------------------------------------


def test_runtime_example_local(world: Any, root: Path) -> None:
    example = str(root / "examples" / "runtime_example_local.py")
    assert world.run(example) == (0, API_TEST, "")
    server, port = world.memory_server("--size", "64KB")
    assert world.run(example, "--tcp", str(port)) == (0, API_TEST, "")
    server.terminate()
    world.finish(server)


def test_runtime_example_without_a_server(world: Any, root: Path, one_line: Any) -> None:
    finished = world.run(str(root / "examples" / "runtime_example_local.py"), "--tcp", "1")
    one_line(finished, "client1", status=1)


PROGRAMS = sorted(
    str(path.relative_to(Path(__file__).parents[2]))
    for path in (Path(__file__).parents[2] / "examples").rglob("*.py")
    if not path.name.endswith(".o.py") and path.name != "runtime_example_local.py"
)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_example(world: Any, root: Path, program: str) -> None:
    status, out, err = world.run(str(root / program))
    assert (status, err) == (0, ""), out
    assert out


def test_every_folder_of_elements(root: Path, capsys: Any) -> None:
    from openwhisk.cli.wskgen import main

    folders = sorted({path.parent for path in (root / "examples").rglob("*.o.*")})
    assert folders
    for folder in folders:
        assert main(["--check", str(folder)]) == 0
        assert capsys.readouterr() == ("", ""), folder


def test_logistic_regression(world: Any) -> None:
    pytest.importorskip("sklearn")
    status, out, err = world.run("-m", "logistic_regression.run")
    assert (status, err) == (0, ""), out
    assert "scikit-learn" in out


# -- README ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text()


def test_first_program(world: Any, readme: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        path = world.home / f"program{number}.py"
        path.write_text(block)
        status, out, err = world.run(str(path))
        assert (status, err) == (0, ""), out
        assert "40" in out


def commands(readme: str) -> Iterator[str]:
    table = readme.partition("## Commands")[2]
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        yield from re.findall(r"`([^`]+)`", row.replace("\\|", "|"))


def test_every_command_of_the_table_has_help(world: Any, readme: str, script: Any) -> None:
    """And names the flags that the table shows."""
    tried = 0
    for command in commands(readme):
        words = command.split()
        if words[0] == "python":
            program = ["-m", words[2]]
        elif words[0] in MODULES:
            program = [script(words[0])]
        else:
            continue  # a further option of the command before it
        if words[:2] in (["scad", "doctor"], ["scad", "sql"]):
            program.append(words[1])
        status, out, err = world.run(*program, "--help")
        assert (status, err) == (0, ""), command
        assert out.startswith("usage:"), command
        for flag in re.findall(r" (--?[a-z][a-z-]*)", command):
            assert flag in out, command
        tried += 1
    assert tried >= 8


def test_doctor(world: Any) -> None:
    finished = world.run("-m", "scad.cli", "doctor")
    assert finished.status == 0, finished
    assert finished.out.endswith("Scad runs here.\n")
    findings = json.loads(world.run("-m", "scad.cli", "doctor", "--json").out)
    assert {"name", "detail", "level"} <= findings[0].keys()


def test_sql(world: Any) -> None:
    status, out, err = world.run("-m", "scad.cli", "sql", "select 7/2 as x", "--format", "json")
    assert (status, err) == (0, "")
    assert json.loads(out) == [{"x": 3.5}] or json.loads(out) == {"x": 3.5}


def test_division_of_literals_and_columns() -> None:
    """By a session in this process; nothing of it is left in the process."""
    import psutil
    import pyarrow as pa

    from scad import Session

    before = psutil.Process().num_fds()
    children = psutil.Process().children()  # control planes that other tests share
    with Session(parallelism=1) as session:
        session.register("t", pa.table({"a": [7], "b": [2]}))
        answer = session.sql("select 7/2, a/b from t").collect()
    assert [column.to_pylist() for column in answer.columns] == [[3.5], [3.5]]
    assert psutil.Process().children() == children
    assert psutil.Process().num_fds() <= before + 5  # what libraries open once
