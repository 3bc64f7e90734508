"""Running an element: results, failures, and that nothing of a run stays behind."""

from __future__ import annotations

import os
import sys
from textwrap import dedent
from typing import Any

import pytest

from openwhisk.runtime import Action, Outcome, call_element, load_code, run_element
from openwhisk.runtime import loader as loader_module


@pytest.fixture
def action(transports: Any) -> Action:
    return Action("elem", transports, activation_id="a" * 32, index=1, count=3)


def run(code: str, action: Action, params: Any = None, **options: Any) -> Outcome:
    return run_element(dedent(code), options.pop("main", "main"), params or {}, action, **options)


def failure(outcome: Outcome, kind: str, message: str, phase: str) -> str:
    assert outcome.failure is not None, outcome
    assert not outcome.ok
    assert outcome.result is None
    assert outcome.failure.type == kind
    assert message in outcome.failure.message
    assert outcome.failure.phase == phase
    return outcome.failure.traceback


def test_params_action_and_result(action: Action) -> None:
    outcome = run(
        "def main(params, action):\n    return {'sum': sum(params['p']), 'me': action.index}\n",
        action,
        {"p": [1, 2]},
    )
    assert outcome == Outcome({"sum": 3, "me": 1})
    assert outcome.ok


def test_plain_actions_take_params_only(action: Action) -> None:
    assert run("def main(args): return dict(args, b=2)", action, {"a": 1}).result == {
        "a": 1,
        "b": 2,
    }


def test_another_main(action: Action) -> None:
    assert run("def start(p, a): return {'x': (1, 2)}", action, main="start").result == {
        "x": [1, 2]
    }


def test_from_disagg_import_star_gives_libds_names(action: Action) -> None:
    outcome = run(
        """
        from disagg import *
        import disagg
        def main(params, action):
            return {"libd": LibdAction.__name__, "error": issubclass(BoundsError, LibdError),
                    "all": sorted(disagg.__all__) == dir(disagg), "durl": Durl.parse("a;b;").name}
        """,
        action,
    )
    assert outcome.result == {"libd": "LibdAction", "error": True, "all": True, "durl": "a"}


def test_disagg_has_only_what_it_says(action: Action) -> None:
    outcome = run("import disagg\ndef main(p, a): return {'x': disagg.nothing}", action)
    failure(outcome, "AttributeError", "module 'disagg' has no attribute 'nothing'", "run")


def test_tracebacks_show_the_elements_own_source(action: Action) -> None:
    code = "def main(params, action):\n    return helper()\n\ndef helper():\n    return 1 // 0\n"
    outcome = run(code, action, file="dir/elem.o.py", first_line=8)
    text = failure(outcome, "ZeroDivisionError", "integer division", "run")
    assert text.startswith('Traceback (most recent call last):\n  File "dir/elem.o.py", line 9, in')
    assert 'File "dir/elem.o.py", line 12, in helper\n    return 1 // 0' in text
    assert "openwhisk" not in text


def test_tracebacks_keep_causes(action: Action) -> None:
    code = """
    def main(params, action):
        try:
            {}["x"]
        except KeyError as error:
            raise RuntimeError("no x") from error
    """
    text = failure(run(code, action), "RuntimeError", "no x", "run")
    assert "KeyError: 'x'" in text
    assert "direct cause" in text


def test_a_changed_element_of_the_same_name_shows_its_new_source(action: Action) -> None:
    run("def main(p, a):\n    raise ValueError('old')\n", action)
    text = failure(
        run("def main(p, a):\n    raise KeyError('new')\n", action), "KeyError", "", "run"
    )
    assert "raise KeyError('new')" in text


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("def main(\n", "SyntaxError", "'(' was never closed (elem.o.py, line 1)"),
        ("x = '\0'\n", "SyntaxError", "null bytes"),
        ("x = 1\n", "ElementError", "elem.o.py defines no function 'main'"),
        ("main = 5\n", "ElementError", "defines no function 'main'"),
        ("def main(): pass\n", "ElementError", "cannot be called as main(params, action)"),
        ("def main(a, b, c): pass\n", "ElementError", "main(a, b, c) cannot be called"),
        ("import no_such_module\n", "ModuleNotFoundError", "no_such_module"),
        ("raise SystemExit(3)\n", "SystemExit", "the element called exit(3)"),
    ],
)
def test_elements_that_do_not_load(action: Action, code: str, kind: str, message: str) -> None:
    failure(run(code, action), kind, message, "load")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("raise SystemExit", "SystemExit", "the element called exit()"),
        ("import sys; sys.exit('bye')", "SystemExit", "exit('bye')"),
        ("raise MemoryError", "MemoryError", ""),
        ("return main(params, action)", "RecursionError", "recursion"),
        ("raise BaseException('odd')", "BaseException", "odd"),
        ("action.get_transport('x', 'nope')", "TransportNotGrantedError", "no such interface"),
    ],
)
def test_elements_that_raise(action: Action, body: str, kind: str, message: str) -> None:
    failure(run(f"def main(params, action):\n    {body}\n", action), kind, message, "run")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("None", "main returned None; it must return a dict"),
        ("[1]", "main returned list"),
        ("'text'", "main returned str"),
        ("{'a': [0, {1}]}", "result['a'][1] is set, which is not JSON"),
        ("{'a': b'x'}", "result['a'] is bytes"),
        ("{'a': {2: 3}}", "result['a'] has the key 2; JSON needs text keys"),
        ("{'a': float('nan')}", "result['a'] is nan"),
        ("{'a': float('-inf')}", "result['a'] is -inf"),
        ("{'a': '\\ud800'}", "half a surrogate pair"),
        ("{'\\ud800': 1}", "half a surrogate pair"),
        ("{'a': object()}", "result['a'] is object"),
        ("{'a': action}", "is openwhisk.runtime.action.Action"),
        ("{'a': 1j}", "result['a'] is complex"),
        ("loop", "nested more than 100 deep, or contains itself"),
    ],
)
def test_results_that_are_not_json(action: Action, value: str, message: str) -> None:
    code = f"loop = {{}}\nloop['x'] = loop\ndef main(params, action):\n    return {value}\n"
    failure(run(code, action), "ElementError", message, "result")


@pytest.mark.filterwarnings("error")
def test_asynchronous_main_is_refused(action: Action) -> None:
    outcome = run("async def main(p, a): return {}", action)
    failure(outcome, "ElementError", "main is asynchronous", "result")


def test_subclasses_of_plain_types_become_plain(action: Action) -> None:
    code = """
    import collections, enum
    class Colour(enum.IntEnum):
        RED = 1
    class Text(str): pass
    def main(params, action):
        return collections.OrderedDict(c=Colour.RED, t=Text("x"), d=collections.defaultdict(int))
    """
    result = run(code, action).result
    assert result == {"c": 1, "t": "x", "d": {}}
    assert [type(v) for v in result.values()] == [int, str, dict]
    assert type(result) is dict


def test_the_interrupt_of_the_person_at_the_terminal_passes(action: Action) -> None:
    before = (sys.stdout, sys.stderr, dict(os.environ))
    with pytest.raises(KeyboardInterrupt):
        run("def main(p, a): raise KeyboardInterrupt", action)
    assert (sys.stdout, sys.stderr, dict(os.environ)) == before


def test_environment_is_set_and_restored(action: Action, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("__OW_PAR", "before")
    monkeypatch.delenv("__OW_PAR_N", raising=False)
    code = """
    import os
    def main(params, action):
        found = {k: os.environ.get(k) for k in ("__OW_PAR", "__OW_PAR_N", "__OW_ACTION_NAME",
                                                "__OW_ACTIVATION_ID", "EXTRA")}
        os.environ["__OW_PAR"] = "changed"
        return found
    """
    assert run(code, action, env={"EXTRA": "x"}).result == {
        "__OW_PAR": "1",
        "__OW_PAR_N": "3",
        "__OW_ACTION_NAME": "elem",
        "__OW_ACTIVATION_ID": "a" * 32,
        "EXTRA": "x",
    }
    assert os.environ["__OW_PAR"] == "before"
    assert "__OW_PAR_N" not in os.environ
    assert "EXTRA" not in os.environ


def test_no_state_passes_from_run_to_run(action: Action) -> None:
    code = "seen = []\ndef main(p, a):\n    seen.append(1)\n    return {'n': len(seen)}\n"
    assert [run(code, action).result for _ in range(3)] == [{"n": 1}] * 3


def test_helper_modules_come_and_go(action: Action) -> None:
    code = """
    import helper, sys
    def main(params, action):
        return {"x": helper.twice(4), "name": __name__, "mine": __name__ in sys.modules}
    """
    modules = {"helper": "import other\ndef twice(x): return x * other.TWO\n", "other": "TWO = 2\n"}
    outcome = run(code, action, modules=modules, imports=["json", "helper"])
    assert outcome.result == {"x": 8, "name": "elem.o", "mine": True}
    assert not {"helper", "other", "elem.o"} & set(sys.modules)
    again = run(code, action, modules={"helper": "def twice(x): return -x\n"})
    assert again.result["x"] == -4
    failure(run("import helper", action), "ModuleNotFoundError", "helper", "load")


def test_helper_modules_may_hide_installed_ones_for_the_run_only(action: Action) -> None:
    import colorsys

    outcome = run(
        "import colorsys\ndef main(p, a): return {'x': colorsys.X}",
        action,
        modules={"colorsys": "X = 1\n"},
    )
    assert outcome.result == {"x": 1}
    assert sys.modules["colorsys"] is colorsys


def test_errors_in_helper_modules_show_their_source(action: Action) -> None:
    outcome = run("import helper", action, modules={"helper": "\nraise ValueError('bad')\n"})
    text = failure(outcome, "ValueError", "bad", "load")
    assert 'File "helper.py", line 2, in <module>\n    raise ValueError' in text


def test_missing_import_of_the_metadata(action: Action) -> None:
    outcome = run("def main(p, a): return {}", action, imports=["no_such_module"])
    failure(outcome, "ModuleNotFoundError", "no_such_module", "load")


def test_dataclasses_work_in_elements(action: Action) -> None:
    code = """
    from __future__ import annotations
    import dataclasses, typing
    @dataclasses.dataclass
    class Point:
        x: int
    def main(params, action):
        return {"p": dataclasses.asdict(Point(1)), "h": str(typing.get_type_hints(Point)["x"])}
    """
    assert run(code, action).result == {"p": {"x": 1}, "h": "<class 'int'>"}


def test_the_same_text_is_compiled_once_and_the_cache_is_bounded() -> None:
    one = loader_module.compile_source("x = 1", "a.o.py")
    assert loader_module.compile_source("x = 1", "a.o.py") is one
    assert loader_module.compile_source("x = 1", "b.o.py") is not one
    for i in range(300):
        loader_module.compile_source(f"x = {i}", "many.o.py")
    assert len(loader_module._compiled) <= 256
    assert loader_module.compile_source("x = 1", "a.o.py") is not one


def test_a_loaded_element_keeps_its_state_between_calls(action: Action) -> None:
    code = "n = [0]\ndef main(args):\n    n[0] += 1\n    print('call', n[0])\n    return n\n"
    with load_code(code, "main", "elem") as element:
        first = call_element(element, {}, action, allow_array=True)
        second = call_element(element, {}, action, allow_array=True)
        third = call_element(element, {}, action)
    assert (first.result, second.result) == ([1], [2])
    assert second.logs[0].endswith("stdout: call 2")
    failure(third, "ElementError", "must return a dict", "result")


def test_our_own_exceptions_speak_for_themselves(action: Action) -> None:
    ours = run(
        "def main(p, a):\n    from libd.errors import CapacityError\n"
        "    raise CapacityError('mem1 is full')\n",
        action,
    )
    assert ours.failure is not None
    assert str(ours.failure) == "mem1 is full"
    assert "CapacityError: mem1 is full" in ours.failure.traceback
    silent = run(
        "def main(p, a):\n    from libd.errors import CapacityError\n    raise CapacityError\n",
        action,
    )
    assert str(silent.failure) == "CapacityError"
    foreign = run("def main(p, a):\n    raise ValueError('no good')\n", action)
    assert str(foreign.failure) == "ValueError: no good"
