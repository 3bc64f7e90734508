"""Element files: what is read from them, and the line that each mistake is reported at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from openwhisk.app import (
    ApplicationError,
    ComputeElement,
    Corunning,
    Limits,
    MemoryElement,
    Merged,
    format_element,
    load_directory,
    load_element,
)

MiB = 1 << 20
MAIN = "\ndef main(params, action):\n    return {}\n"


def compute(header: str, code: str = MAIN) -> str:
    lines = dedent(header).strip().splitlines()
    return "".join(f"#@ {line}\n" for line in lines) + code


def test_a_full_compute_element(write: Callable[..., Path]) -> None:
    directory = write(
        {
            "c.o.py": compute(
                """
                type: compute
                corunning:
                  mem1:
                    trans: m
                    type: mem
                  mem2:
                parents: [a]
                dependents:
                  - d
                parallelism: 3
                limits: {cpu: 0.5, mem: 512M, storage: 64 KB, timeout: 1.5}
                withMerged:
                  - action:
                      namespace: whisk.system
                      name: "local"
                    resources:
                      mem: 2 MB
                      cpu: 0.5
                      storage: 1M
                    elem: Memory
                import: [json, helper]
                main: main
                parameters: {x: [1, 2]}
                """
            ),
            "helper.py": "ANSWER = 42\n",
        }
    )
    element = load_element(directory / "c.o.py")
    assert element == ComputeElement(
        "c",
        MAIN,
        corunning={"mem1": Corunning("mem1", "m", "mem"), "mem2": Corunning("mem2")},
        parents=("a",),
        dependents=("d",),
        parallelism=3,
        limits=Limits(cpu=0.5, mem=512 * MiB, storage=64 * 1024, timeout=1.5),
        with_merged=(Merged("local", Limits(cpu=0.5, mem=2 * MiB, storage=MiB)),),
        imports=("json", "helper"),
        modules={"helper": "ANSWER = 42\n"},
        parameters={"x": [1, 2]},
    )


def test_a_full_memory_element(write: Callable[..., Path]) -> None:
    directory = write(
        {
            "m.o.yaml": """\
            type: memory
            corunning: {a: , b: }
            parents: a
            limits:
              mem: 1.5 GB
            access: exchange
            lifetime: session
            elastic: true
            """
        }
    )
    element = load_element(directory / "m.o.yaml")
    assert element == MemoryElement(
        "m",
        corunning=("a", "b"),
        parents=("a",),
        limits=Limits(cpu=0.0, mem=1536 * MiB),
        access="exchange",
        lifetime="session",
        elastic=True,
    )
    assert isinstance(element, MemoryElement)
    assert element.size == 1536 * MiB


def test_an_element_without_metadata_has_the_defaults(write: Callable[..., Path]) -> None:
    element = load_element(write({"c.o.py": MAIN}) / "c.o.py")
    assert element == ComputeElement("c", MAIN)


def test_comments_may_stand_before_the_metadata_and_lines_are_those_of_the_file(
    write: Callable[..., Path],
) -> None:
    directory = write({"c.o.py": "# a licence\n\n#@ parallelism: many\ndef main(p, a): pass\n"})
    with pytest.raises(ApplicationError) as caught:
        load_element(directory / "c.o.py")
    assert str(caught.value).startswith(f"{directory / 'c.o.py'}:3: ")


def test_code_with_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "c.o.py"
    path.write_bytes(b"\xef\xbb\xbf#@ parallelism: 2\r\ndef main(p, a):\r\n    return {}\r\n")
    element = load_element(path)
    assert isinstance(element, ComputeElement)
    assert element.parallelism == 2
    assert element.code == "def main(p, a):\n    return {}\n"
    assert element.first_line == 2


@pytest.mark.parametrize(
    ("header", "line", "message"),
    [
        ("type: memory", 1, "type must be compute, not 'memory'"),
        ("type: compute\nparalelism: 2", 2, "unknown key 'paralelism'; did you mean 'parallelism'"),
        ("type: compute\ntype: compute", 2, "key 'type' is given twice"),
        ("parallelism: true", 1, "must be a whole number, not true"),
        ("parallelism: 1.5", 1, "must be a whole number, not 1.5"),
        ("parents: {a: b}", 1, "must be a list of names, not a mapping"),
        ("parents:\n- [a]", 2, "parents.0 must be a name in quotes, not a list"),
        ("dependents:\n- 7", 2, "must be a name in quotes, not 7"),
        ("corunning: 3", 1, "must be a list of names, not 3"),
        ("corunning:\n  m: rdma", 2, "must be a mapping, not 'rdma'"),
        ("corunning:\n  m:\n    tarns: x", 3, "unknown key 'tarns'; did you mean 'trans'"),
        ("corunning:\n  m:\n    trans: 5", 3, "trans must be text, not 5"),
        ("limits:\n  mem: 12 XB", 2, "unknown unit 'XB' in size '12 XB'"),
        ("limits:\n  cpu: 1\n  mem: lots", 3, "not a size in bytes: 'lots'"),
        ("limits:\n  mem: -1", 2, "cannot be negative"),
        ("limits:\n  mem: 1.5", 2, "must be a size such as '64 MB', not 1.5"),
        ("limits:\n  mem: [1]", 2, "must be a size such as '64 MB', not a list"),
        ("limits:\n  cpu: two", 2, "cpu must be a number, not 'two'"),
        ("limits:\n  ram: 1", 2, "unknown key 'ram'"),
        ("limits: 5", 1, "limits must be a mapping, not 5"),
        ("withMerged: m", 1, "must be a list, not 'm'"),
        ("withMerged:\n- elem: Compute", 2, "elem must be Memory"),
        ("withMerged:\n- elem: Memory", 2, "has no action.name"),
        ("parameters: [1]", 1, "must be a mapping, not a list"),
        ("parameters: {a: 2020-01-01}", 1, "is datetime.date, which is not JSON"),
        ("main: 3", 1, "main must be text, not 3"),
        ("- a", 1, "must be a mapping, not a list"),
        ("a: [", 1, "not YAML"),
        ("a: b: c", 1, "not YAML: mapping values are not allowed here"),
        ("a: !!python/object:os.system x", 1, "not YAML: could not determine a constructor"),
        ("[a]: 1", 1, "a key must be a plain word"),
    ],
)
def test_mistakes_in_a_header_name_their_line(
    write: Callable[..., Path], header: str, line: int, message: str
) -> None:
    path = write({"c.o.py": compute(header)}) / "c.o.py"
    with pytest.raises(ApplicationError) as caught:
        load_element(path)
    found = [str(p) for p in caught.value.problems]
    assert any(message in p for p in found), found
    lines = [p.location.line for p in caught.value.problems if p.location]
    assert line in lines or (message == "not YAML" and lines[0] is not None)


def test_all_mistakes_are_reported_at_once(write: Callable[..., Path]) -> None:
    path = write({"c.o.py": compute("parallelism: x\nlimits: {mem: 12 XB}\nfoo: 1")}) / "c.o.py"
    with pytest.raises(ApplicationError) as caught:
        load_element(path)
    assert [p.location.line for p in caught.value.problems if p.location] == [1, 2, 3]
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type: memory\n", "limits.mem is missing"),
        ("type: memory\nlimits: {cpu: 1}\n", "limits.mem is missing"),
        ("", "limits.mem is missing"),
        ("type: compute\nlimits: {mem: 1 MB}\n", "type must be memory"),
        ("limits: {mem: 1 MB}\naccess: private\n", "access must be shared or exchange"),
        ("limits: {mem: 1 MB}\nlifetime: 5\n", "lifetime must be application or session, not 5"),
        ("limits: {mem: 1 MB}\nelastic: maybe\n", "elastic must be true or false, not 'maybe'"),
        ("limits: {mem: 1 MB}\nwithMerged: []\n", "unknown key 'withMerged'"),
        ("just text", "must be a mapping"),
        ("a: 1\n---\nb: 2\n", "not YAML: but found another document"),
    ],
)
def test_mistakes_in_a_memory_element(write: Callable[..., Path], text: str, message: str) -> None:
    path = write({"m.o.yaml": text}) / "m.o.yaml"
    with pytest.raises(ApplicationError, match=f"^{path}:[0-9]+: ") as caught:
        load_element(path)
    assert message in str(caught.value)


def test_aliases_cannot_blow_up(write: Callable[..., Path]) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    path = write({"m.o.yaml": "\n".join(lines)}) / "m.o.yaml"
    with pytest.raises(ApplicationError, match="too many values"):
        load_element(path)


def test_recursive_and_deep_yaml_is_refused(write: Callable[..., Path]) -> None:
    directory = write({"m.o.yaml": "parameters: &p {x: *p}\n", "n.o.yaml": "[" * 1500})
    for name in ("m", "n"):
        with pytest.raises(ApplicationError, match="not YAML"):
            load_element(directory / f"{name}.o.yaml")


@pytest.mark.parametrize("name", ["c.py", "c.o.js", "c.yaml"])
def test_other_files_are_not_elements(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(MAIN)
    with pytest.raises(ApplicationError, match=r"must end in \.o\.py or \.o\.yaml"):
        load_element(tmp_path / name)


@pytest.mark.parametrize("name", ["a b.o.py", ".o.py", "ä.o.py", "-x.o.py", "a@1.o.py"])
def test_names_that_no_element_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(MAIN)
    with pytest.raises(ApplicationError, match="is no element name"):
        load_element(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "c.o.py").write_bytes(b"# \xff\xfe\n")
    with pytest.raises(ApplicationError, match="not UTF-8 text: byte 2 is wrong"):
        load_element(tmp_path / "c.o.py")
    with pytest.raises(ApplicationError, match="cannot be read: No such file"):
        load_element(tmp_path / "gone.o.py")
    (tmp_path / "d.o.py").mkdir()
    with pytest.raises(ApplicationError, match="cannot be read: Is a directory"):
        load_element(tmp_path / "d.o.py")


def test_the_prototypes_none_is_nobody(write: Callable[..., Path]) -> None:
    directory = write({"c.o.py": compute("parents:\n- None\ndependents:\n- ~")})
    app = load_directory(directory)
    assert app.compute["c"].parents == ()
    assert app.compute["c"].dependents == ()
    messages = [str(w) for w in app.warnings]
    assert len(messages) == 2
    assert messages[0].startswith(f"{directory / 'c.o.py'}:2: c: parents names nobody")


def test_format_element_is_readable(write: Callable[..., Path]) -> None:
    directory = write({"c.o.py": compute("corunning: [m]\nlimits: {mem: 64 MB}\nparallelism: 2")})
    assert format_element(load_element(directory / "c.o.py")) == (
        "#@ type: compute\n#@ corunning:\n#@   m:\n#@     trans: m\n#@     type: rdma\n"
        "#@ parallelism: 2\n#@ limits:\n#@   mem: 64 MB\n" + MAIN
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# @ type: compute\n# @ parents: [a]\n", 1),
        ("#!/usr/bin/env python\n\n# @ type: compute\n", 3),
        ("# @type: compute\n", 1),
        ("#@ type: compute\n# @ parents: [a]\n", 2),
    ],
)
def test_metadata_that_a_formatter_made_a_comment_is_an_error(
    write: Callable[..., Path], text: str, line: int
) -> None:
    directory = write({"c.o.py": text + MAIN})
    with pytest.raises(ApplicationError, match="formatter") as caught:
        load_element(directory / "c.o.py")
    (problem,) = caught.value.problems
    assert problem.location is not None
    assert problem.location.line == line


def test_comments_that_only_look_like_metadata_are_none(write: Callable[..., Path]) -> None:
    text = "# @author somebody\n# mail a @ b: c\n#@ parents: [a]\n" + MAIN + "\n# @ later: x\n"
    element = load_element(write({"c.o.py": text}) / "c.o.py")
    assert isinstance(element, ComputeElement)
    assert element.parents == ("a",)
