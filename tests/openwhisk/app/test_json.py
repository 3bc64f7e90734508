"""The application JSON: forms that are read, mistakes and their JSON paths, and that nothing is
lost on the way."""

from __future__ import annotations

import json
import keyword
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openwhisk.app import (
    Application,
    ApplicationError,
    ComputeElement,
    Corunning,
    Limits,
    MemoryElement,
    Merged,
    complete,
    format_element,
    load_directory,
    load_element,
)

MAIN = "def main(params, action):\n    return {}\n"
MiB = 1 << 20


def document() -> dict[str, Any]:
    return {
        "functions": [
            {
                "name": "demo",
                "objects": [
                    {
                        "name": "c",
                        "exec": {"kind": "python:default", "code": MAIN, "main": "main"},
                        "limits": {
                            "timeout": 1500,
                            "concurrency": 1,
                            "resources": {"cpu": 0.5, "mem": "64 MB", "storage": "1 MB"},
                        },
                        "porusParams": {
                            "runtimeType": "compute",
                            "relationships": {
                                "corunning": {"m": {"trans": "t", "type": "rdma"}},
                                "dependents": [],
                                "parents": [],
                            },
                            "parallelism": 2,
                            "withMerged": [],
                        },
                        "parameters": [{"key": "x", "value": 1}],
                        "annotations": [{"key": "note", "value": "hi"}],
                    },
                    {
                        "name": "m",
                        "limits": {"resources": {"mem": "1 MB"}},
                        "porusParams": {
                            "runtimeType": "memory",
                            "relationships": {"corunning": ["c"], "dependents": [], "parents": []},
                        },
                        "annotations": [
                            {"key": "access", "value": "exchange"},
                            {"key": "elastic", "value": True},
                            {"key": "lifetime", "value": "session"},
                        ],
                    },
                ],
            }
        ],
        "publish": False,
    }


EXPECTED = Application(
    "demo",
    [
        ComputeElement(
            "c",
            MAIN,
            kind="python:default",
            corunning={"m": Corunning("m", "t")},
            parallelism=2,
            limits=Limits(cpu=0.5, mem=64 * MiB, storage=MiB, timeout=1.5),
            parameters={"x": 1},
            annotations={"note": "hi"},
        ),
        MemoryElement(
            "m",
            corunning=("c",),
            limits=Limits(cpu=0.0, mem=MiB),
            access="exchange",
            lifetime="session",
            elastic=True,
        ),
    ],
)


def test_the_documented_form_is_read() -> None:
    assert Application.from_json(document()) == EXPECTED
    assert Application.from_json(json.dumps(document())) == EXPECTED
    assert Application.from_json(json.dumps(document()).encode()) == EXPECTED


def test_a_put_names_the_application() -> None:
    app = Application.from_json(document(), name="other")
    assert app.name == "other"
    assert app.to_json()["functions"][0]["name"] == "other"


def test_the_older_flat_form_is_read() -> None:
    flat = document()
    for item in flat["functions"][0]["objects"]:
        item |= item.pop("porusParams")
        item["limits"] |= item["limits"].pop("resources")
    assert Application.from_json(flat) == EXPECTED
    for item in flat["functions"][0]["objects"]:
        item |= item.pop("relationships")
        item["type"] = item.pop("runtimeType")
        item["annotations"] = {a["key"]: a["value"] for a in item["annotations"]}
    assert Application.from_json(flat) == EXPECTED


def test_elements_of_several_functions_are_one_application() -> None:
    two = document()
    c, m = two["functions"][0]["objects"]
    two["functions"] = [{"name": "demo", "objects": [c]}, {"name": "more", "objects": [m]}]
    assert Application.from_json(two) == EXPECTED


def test_metadata_in_the_code_is_dropped() -> None:
    doc = document()
    doc["functions"][0]["objects"][0]["exec"]["code"] = "#@ type: compute\r\n" + MAIN
    assert Application.from_json(doc) == EXPECTED


def test_written_form() -> None:
    assert Application.from_json(EXPECTED.to_json()) == EXPECTED
    c, m = EXPECTED.to_json()["functions"][0]["objects"]
    assert c["limits"]["timeout"] == 1500
    assert c["limits"]["resources"] == {"cpu": 0.5, "mem": "64 MB", "storage": "1 MB"}
    assert c["porusParams"]["relationships"]["corunning"] == {"m": {"trans": "t", "type": "rdma"}}
    assert c["exec"]["binary"] is False
    assert m["porusParams"]["runtimeType"] == "memory"
    assert {"key": "elastic", "value": True} in m["annotations"]
    plain = replace(EXPECTED.memory["m"], access="shared", elastic=False, lifetime="application")
    app = Application("demo", [EXPECTED["c"], plain])
    assert app.to_json()["functions"][0]["objects"][1]["annotations"] == []


C = "$.functions[0].objects[0]"
M = "$.functions[0].objects[1]"
GONE = object()


@pytest.mark.parametrize(
    ("path", "value", "where", "message"),
    [
        (["functions"], GONE, "$.functions", "is missing"),
        (["functions"], [], "$.functions", "must be a list that is not empty"),
        (["functions"], {}, "$.functions", "must be a list that is not empty, not a mapping"),
        (["functions", 0], 7, "$.functions[0]", "must be an object, not 7"),
        (["functions", 0, "name"], GONE, "$.functions[0].name", "is missing; it must be text"),
        (["functions", 0, "objects"], GONE, "$.functions[0].objects", "is missing"),
        ([0, "name"], GONE, f"{C}.name", "is missing; it must be text"),
        ([0, "name"], 5, f"{C}.name", "must be text, not 5"),
        ([0, "exec"], GONE, f"{C}.exec", "is missing"),
        ([0, "exec", "code"], GONE, f"{C}.exec.code", "is missing"),
        ([0, "exec", "code"], ["x"], f"{C}.exec.code", "must be text, not a list"),
        ([0, "exec", "code"], "", f"{C}.exec.code", "there is no code"),
        ([0, "exec", "code"], "x = ", f"{C}.exec.code", "not Python"),
        ([0, "exec", "binary"], True, f"{C}.exec.binary", "must be false"),
        ([0, "exec", "kind"], "nodejs:20", f"{C}.exec", "cannot be run, only python"),
        ([0, "limits"], GONE, f"{C}.limits", "is missing"),
        ([0, "limits", "resources", "mem"], GONE, f"{C}.limits.resources.mem", "is missing"),
        ([0, "limits", "resources", "mem"], "12 XB", f"{C}.limits.resources.mem", "unknown unit"),
        ([0, "limits", "resources", "cpu"], "x", f"{C}.limits.resources.cpu", "be a number"),
        ([0, "limits", "resources", "cpu"], 10**400, f"{C}.limits.resources.cpu", "too large"),
        ([0, "limits", "timeout"], "soon", f"{C}.limits.timeout", "must be a number"),
        ([0, "limits", "timeout"], 0, f"{C}.limits.timeout", "limits.timeout must be 0.001"),
        ([0, "porusParams"], [], f"{C}.porusParams", "must be a mapping, not a list"),
        ([0, "porusParams", "parallelism"], 0, f"{C}.porusParams.parallelism", "must be 1 to"),
        ([0, "porusParams", "runtimeType"], "x", f"{C}.porusParams.runtimeType", "compute or"),
        (
            [0, "porusParams", "relationships", "parents"],
            ["zz"],
            f"{C}.porusParams.relationships.parents[0]",
            "there is no such element",
        ),
        ([0, "parameters"], [1], f"{C}.parameters[0]", "must be an object with key and value"),
        ([1, "limits"], GONE, f"{M}.limits", "is missing"),
        ([1, "annotations", 0, "value"], "x", f"{M}.annotations", "access must be shared or"),
    ],
)
def test_mistakes_name_their_json_path(
    path: list[Any], value: Any, where: str, message: str
) -> None:
    doc = document()
    if isinstance(path[0], int):
        path = ["functions", 0, "objects", *path]
    target: Any = doc
    for step in path[:-1]:
        target = target[step]
    if value is GONE:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    with pytest.raises(ApplicationError) as caught:
        Application.from_json(doc, file="app.json")
    found = [str(p) for p in caught.value.problems]
    assert any(p.startswith(f"app.json: {where}") and message in p for p in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{\n\n", "app.json:3: not JSON"),
        ("", "app.json:1: not JSON"),
        ("[1]", "app.json: $: an application is an object, not a list"),
        ("null", "app.json: $: an application is an object, not nothing"),
        ('{"functions": NaN}', "app.json: not JSON: NaN is not JSON"),
        ("[" * 100_000, "app.json: not JSON"),
        (b"\xff\xfe\xff", "app.json: not JSON"),
    ],
)
def test_texts_that_are_no_application(text: str | bytes, message: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        Application.from_json(text, file="app.json")
    assert str(caught.value).startswith(message)


def test_a_directory_with_foreign_elements_is_not_written(write: Callable[..., Path]) -> None:
    directory = write({"old.o.py": MAIN})
    with pytest.raises(ApplicationError, match=r"old\.o\.py: is in the way"):
        EXPECTED.write_directory(directory)
    assert [p.name for p in directory.iterdir()] == ["old.o.py"]


def test_different_helpers_of_one_name_cannot_share_a_directory(tmp_path: Path) -> None:
    a = ComputeElement("a", MAIN, imports=("h",), modules={"h": "x = 1\n"})
    b = replace(a, name="b", modules={"h": "x = 2\n"})
    with pytest.raises(ApplicationError, match="carries a different module 'h'"):
        Application("demo", [a, b]).write_directory(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    app = Application("demo", [ComputeElement("../evil", MAIN)])
    with pytest.raises(ApplicationError, match="is no element name"):
        app.write_directory(tmp_path / "out")
    helper = ComputeElement("a", MAIN, modules={"../evil": ""})
    with pytest.raises(ApplicationError, match="is no module name"):
        Application("demo", [helper]).write_directory(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


# Round trips

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
RESERVED = {"import", "modules", "access", "lifetime", "elastic"}
PAIRS = st.dictionaries(TEXT.filter(lambda k: k not in RESERVED), JSON, max_size=3)
LIMITS = st.builds(
    Limits,
    cpu=st.floats(0.01, 64),
    mem=st.integers(1, 2**62),
    storage=st.integers(0, 2**62),
    timeout=st.integers(1, 10**9).map(lambda ms: ms / 1000),
)
CODE = st.sampled_from(
    [
        MAIN,
        "\n\n" + MAIN,
        "# a comment\n" + MAIN,
        "x = 'ä€😀'\n" + MAIN.rstrip("\n"),
        '"""Text\n\n#@ not: metadata\n"""\n' + MAIN,
    ]
)
MODULES = st.dictionaries(
    st.from_regex(r"[a-z]{1,6}", fullmatch=True).filter(lambda n: not keyword.iskeyword(n)),
    st.just("X = 1\n"),
    max_size=2,
)


@st.composite
def applications(draw: st.DrawFn) -> Application:
    # Case-insensitive uniqueness keeps the files apart on any file system.
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique_by=str.lower))
    cut = draw(st.integers(1, len(names)))
    elements: list[ComputeElement | MemoryElement] = []
    for i, name in enumerate(names[:cut]):
        modules = draw(MODULES)
        memory = draw(st.lists(st.sampled_from(names[cut:]), unique=True)) if names[cut:] else []
        merged = [Merged(f"merged.{k}", draw(LIMITS)) for k in range(draw(st.integers(0, 2)))]
        elements.append(
            ComputeElement(
                name,
                draw(CODE),
                parents=tuple(draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else ()),
                corunning={m: Corunning(m, draw(st.sampled_from([m, f"t.{m}"]))) for m in memory},
                parallelism=draw(st.integers(1, 10_000)),
                limits=draw(LIMITS),
                with_merged=tuple(
                    replace(m, limits=replace(m.limits, timeout=Limits().timeout)) for m in merged
                ),
                imports=tuple(draw(st.permutations(["json", *modules]))),
                modules=modules,
                parameters=draw(PAIRS),
                annotations=draw(PAIRS),
            )
        )
    for name in names[cut:]:
        elements.append(
            MemoryElement(
                name,
                limits=draw(LIMITS),
                # Exchanges bind nobody: any combination of relationships is possible.
                access="exchange",
                lifetime=draw(st.sampled_from(["application", "session"])),
                elastic=draw(st.booleans()),
                parameters=draw(PAIRS),
                annotations=draw(PAIRS),
            )
        )
    return complete(Application("demo", elements))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(applications())
def test_json_and_directories_lose_nothing(app: Application) -> None:
    text = json.dumps(app.to_json())
    again = Application.from_json(text)
    assert again == app
    assert json.dumps(again.to_json()) == text
    with tempfile.TemporaryDirectory() as tmp:
        app.write_directory(tmp)
        loaded = load_directory(tmp, "demo")
        assert loaded.warnings == tuple(
            w for w in loaded.warnings if "no compute element coruns" in w.message
        )
        # Files have an order of their own; the elements are the same.
        assert sorted(loaded, key=lambda e: e.name) == sorted(app, key=lambda e: e.name)
        first = loaded.to_json()
        loaded.write_directory(tmp)
        assert load_directory(tmp, "demo").to_json() == first


@settings(max_examples=30, deadline=None)
@given(applications())
def test_one_element_file_loses_nothing(app: Application) -> None:
    with tempfile.TemporaryDirectory() as tmp:
        for element in app:
            if isinstance(element, ComputeElement):
                element = replace(element, modules={})
            suffix = "py" if isinstance(element, ComputeElement) else "yaml"
            path = Path(tmp, f"{element.name}.o.{suffix}")
            path.write_text(format_element(element), encoding="utf-8")
            assert load_element(path) == element
            path.unlink()
