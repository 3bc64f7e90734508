"""The text of a compute element: a short Python file that a person can read, run and edit.

Nothing of the query is pasted into Python syntax unquoted: names, paths and numbers go through
`repr`, the SQL through `quoted_text`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from engine.stages.model import Exchange, Stage, StageInput, StagePlan

__all__ = ["element_code", "quoted_text"]

_WIDTH = 96


def quoted_text(text: str) -> str:
    """`text` as a Python literal that reads like the text: triple-quoted, over several lines.

    Backslashes are doubled, quotes that would end the literal escaped and control characters
    written as escapes; other Unicode stays as it is. Evaluating the literal gives `text` back,
    with one newline before and after it.
    """
    out = []
    for char in text:
        if char == "\\":
            out.append("\\\\")
        elif char == "\n" or (char.isprintable() and char != '"'):
            out.append(char)
        elif char == '"':
            # Only the third of three quotes in a row could end the literal.
            out.append('\\"' if out[-2:] == ['"', '"'] else '"')
        else:
            out.append(char.encode("unicode_escape").decode("ascii"))
    return '"""\n' + "".join(out) + '\n"""'


def element_code(plan: StagePlan, stage: Stage, sql: str) -> str:
    """The Python source of a stage's element, without the `#@` lines."""
    reads = [_read(plan, i) for i in stage.inputs] + [
        f"{p.name!r}: element.part({_list(p.paths)}, action)," for p in stage.parts
    ]
    inputs = "{\n" + textwrap.indent("\n".join(reads), " " * 8) + "\n    }" if reads else "{}"
    return (
        f"{_docstring(plan, stage)}\n\n"
        "from engine import element\n\n"
        f"SQL = {quoted_text(sql.strip())}\n\n\n"
        "def main(params, action):\n"
        f"    inputs = {inputs}\n"
        "    rows = element.run(SQL, inputs, action)\n"
        f"    return {_write(stage.output)}\n"
    )


def _docstring(plan: StagePlan, stage: Stage) -> str:
    lines = [f"Stage {stage.id}: {_title(stage)}.", ""]
    lines += [f"Reads {_describe_input(plan, i)}." for i in stage.inputs]
    lines += [f"Reads its part of {_plain(p.table)}." for p in stage.parts]
    lines.append(f"Writes {_describe_output(stage.output)}.")
    body = "\n".join(textwrap.fill(line, _WIDTH) if line else "" for line in lines)
    return f'"""{body}\n"""'


def _plain(text: str) -> str:
    """A name for a docstring: nothing in it can end the literal or escape anything."""
    return "".join(c if c.isprintable() and c not in "\"\\'" else "?" for c in text)


def _title(stage: Stage) -> str:
    copies = f", in {stage.parallelism} copies" if stage.parallelism > 1 else ""
    return stage.what.replace("_", " ", 1) + copies


def _describe_input(plan: StagePlan, needed: StageInput) -> str:
    writer = plan.writer(needed.exchange).name
    share = {
        "all": "all of {}",
        "part": "its partition of {}",
        "own": "of {} what the copy with its own number wrote",
    }[needed.mode]
    return f"{share.format(needed.exchange)}, which {writer} wrote"


def _describe_output(output: Exchange) -> str:
    if output.kind == "result":
        return "the answer"
    if output.kind == "hash":
        keys = ", ".join(_plain(output.schema[k].name) for k in output.keys)
        return f"{output.name}, scattered by {keys} into {output.partitions} partitions"
    readers = {
        "gather": "for one reader",
        "broadcast": "for readers that each take all of it",
        "forward": "for the reader with the same number",
    }[output.kind]
    return f"{output.name}, {readers}"


def _read(plan: StagePlan, needed: StageInput) -> str:
    writer = plan.writer(needed.exchange).name
    return f"{needed.name!r}: element.read_{needed.mode}(params[{writer!r}], action),"


def _list(paths: Sequence[str]) -> str:
    if len(paths) == 1:
        return f"[{paths[0]!r}]"
    return "[\n" + "".join(f"    {p!r},\n" for p in paths) + "]"


def _write(output: Exchange) -> str:
    transport = f'action.get_transport({output.name!r}, "rdma")'
    if output.kind != "hash":
        return f"element.write(rows, {transport})"
    return (
        f"element.exchange(\n        rows, {transport}, "
        f"keys={list(output.keys)!r}, partitions={output.partitions}\n    )"
    )
