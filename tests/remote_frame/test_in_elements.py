"""The same expressions inside an element, on what other elements wrote: real workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import remote_frame
from openwhisk.app import load_directory
from openwhisk.control import EmbeddedControlPlane
from remote_frame import LocalExecutor, RemoteFrame, col, lit
from remote_frame import selectors as cs

CHAIN = '''
"""What the test computes here and an element computes there."""

import remote_frame
from remote_frame import col, lit
from remote_frame import selectors as cs


def chain(trades, quotes, action=None):
    """Each trade beside the last quote, with windows, a statement and data of its own."""
    beside = trades.join_asof(quotes, on="at", by="who", strategy="backward", tolerance=30)
    ranked = beside.with_columns(
        rank=col("size").rank("dense", descending=True).over("who"),
        so_far=col("size").cum_sum().over("who", order_by="at").cast("int64"),
        away=(col("size") - col("size").mean()).round(6),
    )
    names = remote_frame.from_dict({"who": ["a", "b"], "name": ["Ann", "Bob"]}, action)
    named = ranked.join(names, on="who", how="left").fill_null("nobody", subset="name")
    best = named.sql("select name, max(rank) as worst from self group by name")
    both = named.join(best, on="name")
    more = remote_frame.concat([both, both.filter(col("rank") == 1).with_columns(at=lit(-1))],
                               how="vertical_relaxed")
    return more.select(cs.all().exclude("^x.*$")).sort("at", "who", "size", "bid")
'''
WRITER = """#@ type: compute
#@ corunning:
#@   data: {trans: data, type: rdma}
#@ limits: {cpu: 1, mem: 256 MB}
import remote_frame


def main(params, action):
    n = 300
    trades = remote_frame.from_dict(
        {
            "at": [i * 7 for i in range(n)],
            "who": ["abc"[i % 3] for i in range(n)],
            "size": [i * 31 % 97 for i in range(n)],
        },
        action,
    )
    quotes = trades.filter(remote_frame.col("size") > 40).select(
        "who", at=remote_frame.col("at") - 5, bid="size"
    )
    data = action.get_transport("data", "rdma")
    return {"trades": trades.write(data), "quotes": quotes.write(data)}
"""
READER = """#@ type: compute
#@ parents: [writer]
#@ import: [chain]
#@ corunning:
#@   data: {trans: data, type: rdma}
#@ limits: {cpu: 1, mem: 384 MB}
import remote_frame
from chain import chain


def main(params, action):
    (written,) = params["writer"]
    trades = remote_frame.open(written["trades"], action)
    quotes = remote_frame.open(written["quotes"], action)
    answer = chain(trades, quotes, action)
    assert "in this element" in repr(answer)
    again = remote_frame.open(answer.write(action.get_transport("data", "rdma")), action)
    rows = again.sort("at", "who", "size", "bid").to_dicts()
    height = answer.select(remote_frame.len()).to_dict()
    return {"rows": rows, "repr": repr(trades), "height": height}
"""
DATA = """type: memory
corunning: [writer, reader]
access: exchange
elastic: true
limits: {mem: 64 MB}
"""


def chain() -> Any:
    space: dict[str, Any] = {}
    exec(CHAIN, space)
    return space["chain"]


def expected() -> list[dict[str, Any]]:
    n = 300
    trades = remote_frame.from_dict(
        {
            "at": [i * 7 for i in range(n)],
            "who": ["abc"[i % 3] for i in range(n)],
            "size": [i * 31 % 97 for i in range(n)],
        }
    )
    quotes = trades.filter(col("size") > 40).select("who", at=col("at") - 5, bid="size")
    found: list[dict[str, Any]] = chain()(trades, quotes).to_dicts()
    return found


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_an_element_says_what_this_process_says(tmp_path: Path, transport: str) -> None:
    files = {
        "writer.o.py": WRITER,
        "reader.o.py": READER,
        "chain.py": CHAIN,
        "data.o.yaml": DATA,
    }
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    app = load_directory(folder)
    control = EmbeddedControlPlane(cores=2, preimport=("remote_frame.api", "operators.duckdb"))
    try:
        control.put_application(app)
        activation = control.wait(control.invoke(app.name, transport=transport), timeout=100)
    finally:
        control.close()
    assert activation.status == "success", activation.error
    result = activation.result["reader"]
    assert result["rows"] == expected()
    assert len(result["rows"]) > 300
    assert result["height"] == {"len": [len(result["rows"])]}
    assert result["repr"].startswith("RemoteFrame of 3 columns, computed in this element")


def test_a_frame_of_an_action_stays_with_it() -> None:
    """Warm kernels and data of one element are not those of another."""

    class Action:
        def resource(self, key: str, factory: Any) -> Any:
            return factory()

    one, two = Action(), Action()
    data = pa.table({"a": [1]})
    first = remote_frame.from_arrow(data, one)
    assert isinstance(first.executor, LocalExecutor)
    assert first.executor.action is one
    again = remote_frame.from_arrow(data, one)
    assert first.join(again, on="a").select(x=col("a") + lit(1)).to_dict() == {"x": [2]}
    free = remote_frame.from_arrow(data)
    joined = free.join(first, on="a")
    assert isinstance(joined, RemoteFrame)
    assert joined.executor is first.executor
    assert joined.select(cs.integer()).to_dict() == {"a": [1]}
    with pytest.raises(remote_frame.FrameError, match="different executors"):
        first.join(remote_frame.from_arrow(data, two), on="a")
