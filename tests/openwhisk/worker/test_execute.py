"""What a worker keeps from one run to the next, and when it gives it back."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

# A worker limits its own process, and what it holds is about all of it: each test has one of its
# own.
PREAMBLE = """
import msgspec
from openwhisk.worker.execute import Executor
from openwhisk.worker.limits import held_data, may_keep
from openwhisk.worker.messages import ElementCode, Run

MiB = 1 << 20
KEEPER = '''
import mmap

class Keeper:
    def __init__(self):
        self.told, self.kept = 0, None

    def keep(self, size):
        self.kept = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.kept.write(bytes(size))

    def when_idle(self):
        self.told += 1
        if self.kept is not None:
            self.kept.close()
            self.kept = None

def main(params, action):
    keeper = action.resource("keeper", Keeper)
    told = keeper.told
    if params.get("keep"):
        keeper.keep(params["keep"])
    return {"told": told}
'''
number = 0

def run(executor, mem=1 << 30, code=KEEPER, **params):
    global number
    number += 1
    pack = lambda value: msgspec.Raw(msgspec.msgpack.encode(value))
    return executor.run(Run(
        number, "activation", "app", "element", 0, 1, number,
        ElementCode(code, "main", [], {}, pack({}), [], "element.py", 1),
        False, pack(params), [], mem, 0, 1.0, 60.0, 1 << 20,
    ))

def result(done):
    return msgspec.msgpack.decode(done.result)

executor = Executor()
"""


def check(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_worker_rests_after_its_first_run_and_then_where_it_kept_much() -> None:
    check("""
    assert run(executor).metrics.restless, "what it holds at least is not known yet"
    executor.rest()
    assert not run(executor).metrics.restless
    assert not run(executor, keep=20 * MiB).metrics.restless
    fat = run(executor, keep=100 * MiB)
    assert fat.metrics.restless
    assert fat.metrics.anon > 100 * MiB
    rested = executor.rest()
    assert rested.anon < fat.metrics.anon - 90 * MiB
    assert not run(executor).metrics.restless
    """)


def test_what_a_worker_could_give_back_does_not_count_as_held() -> None:
    check("""
    run(executor, keep=40 * MiB)
    rested = executor.rest()
    done = run(executor, keep=40 * MiB)
    assert held_data() > rested.data + 30 * MiB
    assert done.metrics.data < rested.data + 5 * MiB
    executor.rest()
    assert executor.rest().data < rested.data + 5 * MiB, "nothing to give back, this time"
    assert run(executor, keep=40 * MiB).metrics.data < rested.data + 5 * MiB
    """)


KEEPS = """
import mmap, sys

def main(params, action):
    # Address space that nobody gives back, as stacks of threads are, and that nobody touches.
    sys.kept = mmap.mmap(-1, params["size"], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return {}
"""


def test_what_a_worker_never_gave_back_counts_as_held() -> None:
    check(f"""
    keeps = {KEEPS!r}
    run(executor)
    executor.rest()
    before = held_data()
    done = run(executor, code=keeps, size=100 * MiB)
    assert not done.metrics.restless
    assert done.metrics.data >= before + 100 * MiB
    done = run(executor, code=keeps, size=200 * MiB)
    assert done.metrics.restless, "it may be what could be given back"
    assert executor.rest().data >= before + 200 * MiB
    """)


def test_a_worker_rests_before_an_element_that_needs_its_limit() -> None:
    check("""
    fresh = held_data()
    run(executor)
    executor.rest()
    told = result(run(executor, keep=40 * MiB))["told"]
    assert result(run(executor))["told"] == told, "there is room"
    limit = fresh + 60 * MiB
    assert may_keep(limit, fresh) < 40 * MiB
    assert result(run(executor, mem=limit))["told"] == told + 1
    """)


BROKEN = """
import sys

class Broken:
    def __init__(self):
        self.number = sys.made = getattr(sys, "made", 0) + 1

    def when_idle(self):
        raise OSError("gone")

    def close(self):
        raise OSError("gone, too")

def main(params, action):
    return {"number": action.resource("broken", Broken).number}
"""


def test_a_resource_that_fails_when_idle_is_made_anew() -> None:
    check(f"""
    import logging
    code = {BROKEN!r}
    logging.disable()
    for expected in (1, 2, 3):
        assert result(run(executor, code=code)) == {{"number": expected}}
        executor.rest()
    """)


def test_resources_are_made_before_the_first_run_as_far_as_that_works() -> None:
    code = "def main(p, action):\n    return {'made': action.resource('made', lambda: 'late')}\n"
    check(f"""
    import logging
    logging.disable()

    def fails(resources):
        resources.get("made", lambda: 1 / 0)

    def works(resources):
        resources.get("made", lambda: "early")

    assert result(run(Executor(), code={code!r})) == {{"made": "late"}}
    executor.prepare([fails, works, fails])
    assert result(run(executor, code={code!r})) == {{"made": "early"}}
    """)
