"""Bad input: one clear line on stderr, a non-zero status, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

USAGE = 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--queries", "100"], "100"),
        (["--queries", "0"], "0"),
        (["--queries", "one"], "one"),
        (["--queries", ""], "queries"),
        (["--queries", "9-3"], "9-3"),
        (["--sf", "-1"], "-1"),
        (["--sf", "nan"], "nan"),
        (["--sf", "much"], "much"),
        (["--compute-memory", "12XB"], "12XB"),
        (["--compute-memory", "-1MB"], "--compute-memory"),
        (["--compute-memory", "0"], "0"),
        (["--parallelism", "0"], "parallelism"),
        (["--transport", "rdma"], "no active RDMA port"),
        (["--transport", "pigeon"], "pigeon"),
        (["--policy", "fine"], "disaggregate"),
        (["--policy"], "expected one argument"),
        (["--json", "nowhere/figures.json"], "nowhere"),
        (["--quieres", "1"], "--quieres"),
        (["1"], "1"),
    ],
)
def test_usage(arguments: list[str], says: str, capsys: Any, one_line: Any) -> None:
    """In this process, because it is the same code and a process costs time."""
    from tpcds.run import main

    with pytest.raises(SystemExit) as raised:
        main(arguments)
    said = capsys.readouterr()
    assert raised.value.code == USAGE
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert says in said.err


def test_usage_as_a_process(world: Any, one_line: Any) -> None:
    one_line(world.run("-m", "tpcds.run", "--queries", "1,100"), "100", status=USAGE)


def test_compute_memory_too_small_to_start(world: Any, one_line: Any) -> None:
    finished = world.finish(world.tpcds("--queries", "1", "--compute-memory", "10MB"))
    one_line(finished, "10", status=1)
    assert finished.out == ""


# -- data ----------------------------------------------------------------------------------------


@pytest.fixture
def foreign(world: Any, data: Any) -> Path:
    """A folder of tables that did not come from the generator, to be spoilt."""
    target: Path = world.home / "tables"
    target.mkdir()
    for path in data.directory.glob("*.parquet"):
        os.link(path, target / path.name)
    return target


def spoil(path: Path, content: bytes) -> None:
    path.unlink()  # not through the link
    path.write_bytes(content)


def test_missing_folder(world: Any, one_line: Any) -> None:
    one_line(world.run("-m", "tpcds.run", "--data", "nowhere"), "nowhere", status=1)


def test_missing_tables(world: Any, foreign: Path, one_line: Any) -> None:
    for name in ("item", "store_sales"):
        (foreign / f"{name}.parquet").unlink()
    finished = world.run("-m", "tpcds.run", "--data", "tables", "--queries", "1")
    one_line(finished, "item", "store_sales", status=1)


def test_truncated_file(world: Any, foreign: Path, one_line: Any) -> None:
    path = foreign / "item.parquet"
    whole = path.read_bytes()
    spoil(path, whole[: len(whole) // 2])
    finished = world.run("-m", "tpcds.run", "--data", "tables", "--queries", "42")
    one_line(finished, "item.parquet", status=1)


@pytest.mark.slow
def test_garbage_in_the_middle(world: Any, foreign: Path) -> None:
    """The footer is whole: it is the query that fails."""
    for name in ("item", "date_dim", "store_sales"):
        path = foreign / f"{name}.parquet"
        whole = bytearray(path.read_bytes())
        whole[4 : len(whole) * 3 // 4] = os.urandom(len(whole) * 3 // 4 - 4)
        spoil(path, bytes(whole))
    status, out, err = world.run("-m", "tpcds.run", "--data", "tables", "--queries", "42")
    assert status == 1
    assert "Traceback" not in out + err
    assert "q42   failed" in out
    assert "verified" not in out
    assert "KernelError" not in out + err
    why = next(line for line in out.splitlines() if line.startswith("q42: "))
    assert ".parquet" in why, why  # which file, or the files that were read together
    assert all(c.isprintable() for line in out.splitlines() for c in line)


# -- SQL -----------------------------------------------------------------------------------------


@pytest.fixture
def orders(world: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path: Path = world.home / "orders.parquet"
    pq.write_table(pa.table({"customer": [1, 2, 1], "price": [10.0, 20.0, 30.0]}), path)
    return path


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("selct * from orders", "selct"),
        ("select (", "syntax error"),
        ("", "the query is empty"),
        (" ;; -- nothing", "the query is empty"),
        ("select * from nothing", "nothing"),
        ("select colour from orders", "colour"),
        ("select customer from orders; select 1", "one"),
        ("drop table orders", "DROP"),
        ("select nofunction(price) from orders", "nofunction"),
        ("select cast('x' as integer)", "'x'"),
        ("select price + 'x' from orders", "'x'"),
    ],
)
def test_sql(orders: Path, query: str, says: str, capfd: Any, tmp_path: Path) -> None:
    from scad.cli import main

    status = main(["sql", query, "--table", f"orders={orders}", "--parallelism", "1"])
    said = capfd.readouterr()
    assert status == 1, said
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert "Traceback" not in said.err
    assert says.lower() in said.err.lower()


@pytest.mark.slow
def test_sql_as_a_process(world: Any, orders: Path, one_line: Any) -> None:
    finished = world.run(
        "-m", "scad.cli", "sql", "select colour from orders", "--table", "orders=orders.parquet"
    )
    one_line(finished, "colour", status=1)
    finished = world.run("-m", "scad.cli", "sql", "select 1", "--table", "orders=missing.parquet")
    one_line(finished, "missing.parquet", status=1)


# -- memory servers ------------------------------------------------------------------------------

ELEMENT = """\
#@ type: compute
#@ corunning:
#@   mem1:
#@     trans: mem1
#@     type: rdma

def main(params, action):
    trans = action.get_transport("mem1", "rdma")
    {body}
    return {{}}
"""


def element(world: Any, body: str = "trans.reg(64); trans.write(4, addr=0, offset=0)") -> str:
    path = world.home / "e.o.py"
    path.write_text(ELEMENT.format(body=body))
    return str(path)


def test_memory_server_that_is_not_there(world: Any, one_line: Any) -> None:
    finished = world.run(
        "-m", "openwhisk.cli.rundisagg", element(world), "-m", "mem1:1", "--timeout", "1"
    )
    one_line(finished, "mem1", "1", status=1)


@pytest.mark.slow
def test_memory_that_is_not_named(world: Any, one_line: Any) -> None:
    one_line(world.run("-m", "openwhisk.cli.rundisagg", element(world)), "mem1")


def test_wrong_token(world: Any, one_line: Any) -> None:
    server, port = world.memory_server("--size", "1MB", "--token", "right")
    program = ["-m", "openwhisk.cli.rundisagg", element(world), "-m", f"mem1:{port}"]
    one_line(world.run(*program, "--token", "wrong"), "mem1", "token", status=1)
    one_line(world.run(*program), "mem1", "token", status=1)
    assert world.run(*program, "--token", "right").status == 0
    server.terminate()
    world.finish(server)


def test_full_memory_server(world: Any) -> None:
    """An element that asks for too much: the error is in its traceback, the last line says it."""
    server, port = world.memory_server("--size", "1MB")
    for body in ("trans.alloc(1 << 30)", "trans.reg(64); trans.write(64, addr=(1 << 20) - 8)"):
        finished = world.run(
            "-m", "openwhisk.cli.rundisagg", element(world, body), "-m", f"mem1:{port}"
        )
        assert finished.status == 1
        last = finished.err.splitlines()[-1]
        assert "mem1" in last, finished.err
        assert last.startswith("rundisagg: element e failed: "), finished.err
        assert "Error: " not in last, finished.err  # the class is for the traceback
    server.terminate()
    world.finish(server)


def test_memory_server_larger_than_the_machine(world: Any, one_line: Any) -> None:
    finished = world.run("-m", "libd.memory_server", "0", "--size", "1000TB")
    one_line(finished, "memory_server", "1000", status=1)


@pytest.mark.slow
def test_busy_port(world: Any, one_line: Any) -> None:
    server, port = world.memory_server("--size", "1MB")
    one_line(world.run("-m", "libd.memory_server", str(port), "--size", "1MB"), str(port), status=1)
    server.terminate()
    world.finish(server)


def test_tiny_control_plane(world: Any) -> None:
    server, url = world.serve("--memory", "64MB")
    status, out, err = world.finish(
        world.tpcds("--queries", "16", "--apihost", url, "--compute-memory", "512MB")
    )
    assert status == 1, out
    assert "Traceback" not in out + err
    assert "memory" in out + err
    server.terminate()
    world.finish(server)


# -- applications --------------------------------------------------------------------------------

BAD_APPLICATIONS = {
    "{": "JSON",
    "[]": "object",
    "{}": "functions",
    '{"functions": [{"name": "f"}]}': "objects",
    '{"functions": [{"name": "f", "objects": [{"name": "a"}]}]}': "a",
    json.dumps(
        {"functions": [{"name": "f", "objects": [{"name": "a", "exec": {"kind": "python:3"}}]}]}
    ): "a",
}


@pytest.mark.parametrize("text", BAD_APPLICATIONS)
def test_wskgen(text: str, tmp_path: Path, capsys: Any) -> None:
    from openwhisk.cli.wskgen import main

    path = tmp_path / "bad.json"
    path.write_text(text)
    assert main(["--check", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    for line in said.err.splitlines():  # one for each thing that is wrong
        assert str(path) in line
    assert BAD_APPLICATIONS[text] in said.err


def test_wskish(world: Any, one_line: Any) -> None:
    server, url = world.serve()
    wskish = ["-m", "openwhisk.cli.wskish", "--apihost", url]
    for number, (text, says) in enumerate(BAD_APPLICATIONS.items()):
        if number % 2:  # a process each: not all
            (world.home / "bad.json").write_text(text)
            refused = world.run(*wskish, "put", "bad", "bad.json")
            assert refused.status == 1
            assert says in refused.err
            for line in refused.err.splitlines():
                assert line.startswith("wskish: "), refused.err
            assert "Traceback" not in refused.err
    one_line(world.run(*wskish, "put", "bad", "missing.json"), "missing.json", status=1)
    one_line(world.run(*wskish, "post", "nothing"), "nothing", status=1)
    one_line(world.run(*wskish, "--auth", "who:what", "list"), "key", status=1)
    server.terminate()
    world.finish(server)


# -- control planes ------------------------------------------------------------------------------


@pytest.mark.slow
def test_unreachable_apihost(world: Any, one_line: Any) -> None:
    finished = world.finish(
        world.tpcds("--queries", "1", "--apihost", "http://127.0.0.1:9", SCAD_AUTH="u:k")
    )
    one_line(finished, "127.0.0.1:9", status=1)
    finished = world.run("-m", "openwhisk.cli.wskish", "--apihost", "127.0.0.1:9", "list")
    one_line(finished, "key", "SCAD_AUTH", status=1)


@pytest.mark.slow
def test_wrong_key(world: Any, one_line: Any) -> None:
    server, url = world.serve()
    finished = world.finish(world.tpcds("--queries", "1", "--apihost", url, SCAD_AUTH="u:wrong"))
    one_line(finished, "key", status=1)
    server.terminate()
    world.finish(server)


@pytest.mark.parametrize("arguments", [["--memory", "12XB"], ["--port", "many"], ["--cores", "-1"]])
def test_control_plane_usage(world: Any, arguments: list[str], one_line: Any) -> None:
    one_line(world.run("-m", "openwhisk", *arguments), "openwhisk: ", *arguments, status=USAGE)


# -- places that cannot be written ---------------------------------------------------------------


def test_json_target(world: Any, one_line: Any) -> None:
    """Said before anything runs: figures of an hour's run must not be lost."""
    (world.home / "figures.json").mkdir()
    finished = world.finish(world.tpcds("--queries", "42", "--json", "figures.json"))
    one_line(finished, "figures.json")
    assert finished.out == ""


def test_cache_folder(world: Any, one_line: Any) -> None:
    cache = world.home / "cache"
    cache.write_text("a file where a folder should be")  # also root cannot write below it
    finished = world.run(
        "-m", "tpcds.run", "--sf", "0.01", "--queries", "42", XDG_CACHE_HOME=str(cache)
    )
    one_line(finished, "cache", status=1)
    shutil.rmtree(cache, ignore_errors=True)


@pytest.mark.slow
def test_emit_folder(world: Any, one_line: Any) -> None:
    (world.home / "taken").write_text("")
    finished = world.finish(world.tpcds("--queries", "42", "--emit", "taken"))
    one_line(finished, "taken")
    assert finished.out == ""


@pytest.mark.slow
def test_temporary_folder_is_not_needed(world: Any) -> None:
    finished = world.finish(world.tpcds("--queries", "42", TMPDIR="/nowhere"))
    assert finished.status == 0, finished
