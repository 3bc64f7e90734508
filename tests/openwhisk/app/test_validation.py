"""What is refused, what is put right, and where the messages point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from openwhisk.app import (
    Application,
    ApplicationError,
    AppWarning,
    ComputeElement,
    Corunning,
    Limits,
    MemoryElement,
    Merged,
    complete,
    load_directory,
    validate,
)

MAIN = "def main(params, action):\n    return {}\n"
MEM = Limits(cpu=0.0, mem=1024)


def problems(app: Application) -> list[str]:
    with pytest.raises(ApplicationError) as caught:
        validate(app)
    return [str(p) for p in caught.value.problems]


def pair(**changes: object) -> Application:
    a = ComputeElement("a", MAIN, dependents=("b",), corunning={"m": Corunning("m")})
    b = ComputeElement("b", MAIN, parents=("a",))
    m = MemoryElement("m", corunning=("a",), limits=MEM)
    return Application("demo", [replace(a, **changes), b, m])  # type: ignore[arg-type]


def test_a_valid_application_has_no_warnings() -> None:
    assert validate(pair()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parents": ("zz",)}, "a: parents names zz, but there is no such element"),
        ({"dependents": ("b", "zz")}, "a: dependents names zz, but there is no such element"),
        ({"corunning": {"zz": Corunning("zz")}}, "a: corunning names zz, but there is no such"),
        ({"parents": ("a",)}, "a: parents names the element itself"),
        ({"corunning": {"a": Corunning("a")}}, "a: corunning names the element itself"),
        ({"parents": ("m",)}, "a: parents names memory element m, which has no result"),
        ({"parallelism": 0}, "parallelism must be 1 to 10000, not 0"),
        ({"parallelism": -3}, "parallelism must be 1 to 10000, not -3"),
        ({"parallelism": 10**9}, "parallelism must be 1 to 10000"),
        ({"limits": Limits(cpu=0.0)}, "limits.cpu must be more than 0 cores"),
        ({"limits": Limits(cpu=math.nan)}, "limits.cpu must be more than 0 cores"),
        ({"limits": Limits(cpu=math.inf)}, "limits.cpu must be more than 0 cores"),
        ({"limits": Limits(mem=0)}, "limits.mem must be at least 1 byte"),
        ({"limits": Limits(mem=1 << 63)}, "limits.mem must be at least 1 byte and below 2**63"),
        ({"limits": Limits(storage=-1)}, "limits.storage must be at least 0"),
        ({"limits": Limits(timeout=0.0)}, "limits.timeout must be 0.001 to 1e9"),
        ({"limits": Limits(timeout=math.inf)}, "limits.timeout must be 0.001 to 1e9"),
        ({"corunning": {"m": Corunning("m", type="tcp")}}, "type must be rdma or mem, not 'tcp'"),
        ({"corunning": {"m": Corunning("m", "x;y")}}, "trans 'x;y' is no transport name"),
        (
            {"corunning": {"m": Corunning("m", "t"), "b": Corunning("b", "t")}},
            "transport 't' stands for both m and b",
        ),
        ({"with_merged": (Merged("m", MEM),)}, "withMerged: m is also an element"),
        ({"with_merged": (Merged("x", MEM), Merged("x", MEM))}, "withMerged names x twice"),
        ({"with_merged": (Merged("x", Limits(mem=0)),)}, "withMerged.x.mem must be at least 1"),
        ({"with_merged": (Merged("", MEM),)}, "withMerged: '' is no element name"),
        ({"kind": "nodejs:default"}, "kind 'nodejs:default' cannot be run, only python"),
        ({"annotations": {"import": 1}}, "annotation 'import' is reserved"),
        ({"parameters": {"x": {1, 2}}}, "parameters['x'] is set, which is not JSON"),
        ({"parameters": {"x": math.nan}}, "parameters['x'] is nan"),
        ({"annotations": {"x": "\ud800"}}, "half a surrogate pair"),
        ({"modules": {"a-b": ""}}, "'a-b' is no module name"),
        ({"main": "not a name"}, "main 'not a name' is no function name"),
        ({"code": ""}, "there is no code"),
        ({"code": "x = 1\n"}, "defines no function main(params, action)"),
        ({"code": "from disagg import *\n"}, "defines no function main(params, action)"),
        ({"code": "def main(\n"}, "not Python: '(' was never closed (line 1 of the code)"),
        ({"code": "x = '\0'\ndef main(p, a): pass\n"}, "not Python"),
        ({"code": "x = " + "(" * 5000}, "not Python"),
        ({"code": "def other(p, a): pass\n"}, "defines no function main"),
        ({"code": "class A:\n    def main(p, a): pass\n"}, "defines no function main"),
        ({"code": "async def main(p, a): pass\n"}, "main must not be async"),
        ({"code": "def main(): pass\n"}, "main cannot be called as main(params, action)"),
        ({"code": "def main(a, b, c): pass\n"}, "main cannot be called as main(params, action)"),
        ({"code": "def main(a, b, *, c): pass\n"}, "main cannot be called"),
    ],
)
def test_a_wrong_compute_element(changes: dict[str, object], message: str) -> None:
    found = problems(pair(**changes))
    assert any(message in p for p in found), found


@pytest.mark.parametrize(
    "code",
    [
        "def main(params): return {}\n",
        "def main(*args): return {}\n",
        "def main(params, action=None, more=1): return {}\n",
        "main = lambda params, action: {}\n",
        "from helper import main\n",
        "from helper import run as main\n",
        "from helper import *\n",
        "try:\n    from fast import main\nexcept ImportError:\n    def main(p, a): return {}\n",
        "if True:\n    def main(p, a): return {}\n",
        "x = '\\d'\ndef main(p, a): return {}\n",
        "import functools\n@functools.cache\ndef main(p, a): return {}\n",
    ],
)
def test_main_may_come_about_in_many_ways(code: str) -> None:
    assert validate(pair(code=code)) == []


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        (MemoryElement("m", limits=Limits(mem=0)), "limits.mem must be at least 1 byte"),
        (MemoryElement("m", limits=Limits(mem=-5)), "limits.mem must be at least 1 byte"),
        (MemoryElement("m", limits=MEM, parallelism=2), "cannot have copies"),
        (MemoryElement("m", limits=MEM, dependents=("b",)), "has no result that b could wait for"),
        (MemoryElement("m", limits=MEM, corunning=("n",)), "names n, which is a memory element"),
        (MemoryElement("m", limits=MEM, parents=("n",)), "names n, which is a memory element"),
        (MemoryElement("m", limits=MEM, access="x"), "access must be"),  # type: ignore[arg-type]
        (MemoryElement("m", limits=MEM, annotations={"access": 1}), "'access' is reserved"),
    ],
)
def test_a_wrong_memory_element(memory: MemoryElement, message: str) -> None:
    n = MemoryElement("n", limits=MEM, corunning=("b",))
    app = Application("demo", [*pair().elements[:2], memory, n])
    found = problems(app)
    assert any(message in p for p in found), found


def test_an_application_needs_a_compute_element_and_a_name() -> None:
    assert "no compute element" in problems(Application("x", []))[0]
    assert "no compute" in problems(Application("x", [MemoryElement("m", limits=MEM)]))[0]
    assert "'a/b' is no application name" in problems(Application("a/b", pair()))[0]


def test_duplicate_names_say_where_the_other_is(write: Callable[..., Path]) -> None:
    directory = write({"a.o.py": MAIN, "a.o.yaml": "limits: {mem: 1 MB}\n"})
    with pytest.raises(ApplicationError) as caught:
        load_directory(directory)
    assert str(caught.value) == (
        f"{directory / 'a.o.yaml'}:1: two elements are called 'a', "
        f"also declared at {directory / 'a.o.py'}:1"
    )
    twice = Application("demo", [ComputeElement("a", MAIN), ComputeElement("a", MAIN)])
    assert problems(twice) == ["two elements are called 'a'"]


def test_a_cycle_is_printed_with_its_place(write: Callable[..., Path]) -> None:
    directory = write(
        {
            "a.o.py": "#@ dependents:\n#@ - b\n" + MAIN,
            "b.o.py": "#@ dependents:\n#@ - c\n" + MAIN,
            "c.o.py": "#@ type: compute\n#@ dependents:\n#@ - b\n" + MAIN,
        }
    )
    with pytest.raises(ApplicationError) as caught:
        load_directory(directory)
    assert str(caught.value) == (
        f"{directory / 'b.o.py'}:2: elements depend on one another: b -> c -> b"
    )


def test_unknown_names_point_at_their_line(write: Callable[..., Path]) -> None:
    directory = write(
        {"a.o.py": "#@ parents:\n#@ - x\n#@ corunning:\n#@   y:\n#@     type: rdma\n" + MAIN}
    )
    with pytest.raises(ApplicationError) as caught:
        load_directory(directory)
    assert str(caught.value).splitlines() == [
        f"{directory / 'a.o.py'}:2: a: parents names x, but there is no such element",
        f"{directory / 'a.o.py'}:4: a: corunning names y, but there is no such element",
    ]


@pytest.mark.parametrize(
    ("code", "line", "message"),
    [
        ("x = 1\nif True\n    pass\n", 4, "expected ':'"),
        ("x = 1\nasync def main(p, a): pass\n", 4, "must not be async"),
        ("x = 1\n", 3, "defines no function main"),
    ],
)
def test_mistakes_in_code_point_at_the_line_of_the_file(
    write: Callable[..., Path], code: str, line: int, message: str
) -> None:
    directory = write({"a.o.py": "#@ type: compute\n#@ parallelism: 2\n" + code})
    with pytest.raises(ApplicationError) as caught:
        load_directory(directory)
    assert str(caught.value).startswith(f"{directory / 'a.o.py'}:{line}: a: ")
    assert message in str(caught.value)


def test_code_is_not_executed(write: Callable[..., Path], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    load_directory(write({"a.o.py": f"open({str(mark)!r}, 'w')\n" + MAIN}))
    assert not mark.exists()


@pytest.mark.parametrize("far", [False, True])
def test_corunning_and_depending_contradict(far: bool) -> None:
    a = ComputeElement("a", MAIN, corunning={"c": Corunning("c")}, dependents=("b",))
    b = ComputeElement("b", MAIN, dependents=("c",))
    c = ComputeElement("c", MAIN)
    if not far:
        a, b = replace(a, dependents=("c",)), ComputeElement("b", MAIN)
    found = problems(complete(Application("demo", [a, b, c])))
    assert found == [
        "c coruns with a and depends on it: they cannot both start together and one after the other"
    ]


def test_one_sided_relationships_are_completed_with_warnings() -> None:
    a = ComputeElement("a", MAIN, dependents=("b",))
    b = ComputeElement("b", MAIN, corunning={"m": Corunning("m", "t")})
    c = ComputeElement("c", MAIN, parents=("b",), corunning={"d": Corunning("d", type="mem")})
    d = ComputeElement("d", MAIN)
    e = ComputeElement("e", MAIN)
    m = MemoryElement("m", corunning=("a",), parents=("e",), limits=MEM)
    n = MemoryElement("n", limits=MEM)
    given = Application("demo", [a, b, c, d, e, m, n])
    app = complete(given)
    assert app.compute["b"].parents == ("a",)
    assert app.compute["b"].dependents == ("c",)
    assert app.compute["a"].corunning == {"m": Corunning("m")}
    assert app.memory["m"].corunning == ("a", "b")
    assert app.compute["d"].corunning == {"c": Corunning("c", type="mem")}
    assert app.compute["e"].dependents == ("m",)
    assert len(app.warnings) == 6
    assert all(isinstance(w, AppWarning) for w in app.warnings)
    assert str(app.warnings[0]) == (
        "a: dependents names b, which does not name a among its parents; added"
    )
    assert complete(app) == app
    assert complete(app).warnings == app.warnings
    # An application that was not completed gets the same warnings from validate.
    unused = AppWarning("n: no compute element coruns with it")
    assert validate(given) == [*app.warnings, unused]
    assert validate(app) == [*app.warnings, unused]


def test_a_contradictory_gang_is_refused() -> None:
    # watch coruns with both steps, which follow one another around the same shared memory.
    m = Corunning("m")
    one = ComputeElement("one", MAIN, corunning={"m": m}, dependents=("two",))
    two = ComputeElement("two", MAIN, corunning={"m": m})
    watch = ComputeElement("watch", MAIN, corunning={"m": m})
    memory = MemoryElement("m", limits=MEM)
    app = Application("demo", [one, two, watch, memory])
    assert problems(app) == [
        "one, two, watch must start together (they corun), but two depends on one"
    ]
    exchange = Application("demo", [one, two, watch, replace(memory, access="exchange")])
    assert all("added" in w.message for w in validate(exchange))


def test_gangs_that_wait_for_one_another_are_refused() -> None:
    a = ComputeElement("a", MAIN, corunning={"b": Corunning("b")}, dependents=("c",))
    b = ComputeElement("b", MAIN, parents=("d",))
    c = ComputeElement("c", MAIN, corunning={"d": Corunning("d")})
    d = ComputeElement("d", MAIN)
    found = problems(Application("demo", [a, b, c, d]))
    assert len(found) == 1
    assert found[0].startswith("elements that must start together wait for one another: (")


def test_memory_that_starts_after_its_own_gang_is_refused() -> None:
    a = ComputeElement("a", MAIN, corunning={"m": Corunning("m")}, dependents=("m",))
    m = MemoryElement("m", limits=MEM)
    assert problems(Application("demo", [a, m])) == ["a coruns with m, which starts only after a"]


def test_directories_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ApplicationError, match="no such directory"):
        load_directory(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(ApplicationError, match="not a directory"):
        load_directory(tmp_path / "file")
    with pytest.raises(ApplicationError, match="holds no element file"):
        load_directory(tmp_path)


def test_unknown_kinds_of_element_files_are_named(write: Callable[..., Path]) -> None:
    directory = write({"a.o.py": MAIN, "b.o.js": "", "README.md": "", "helper.py": ""})
    (warning,) = load_directory(directory).warnings
    assert str(warning) == f"{directory / 'b.o.js'}: not a kind of element that is known; ignored"


def test_code_that_its_author_answers_for_is_not_parsed() -> None:
    assert validate(pair(code="def main(\n", checked=True)) == []
    assert validate(pair(parameters={"a": {1}}, checked=True)) == []
    # It is about the code, and no part of what an application is.
    assert pair(checked=True).compute["a"] == pair().compute["a"]
