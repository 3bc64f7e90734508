"""The text of a compute element: a short Python file that a person can read, run and edit.

Nothing of the query is pasted into Python syntax unquoted: names, paths and numbers go through
`repr`, the SQL through `quoted_text`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

import pyarrow as pa

from engine.codegen.reduction import Reduction
from engine.errors import EngineError
from engine.resident.keys import WantedKeys
from engine.resident.needs import ranges
from engine.stages.model import Exchange, Stage, StageInput, StagePlan
from operators.duckdb import Fragment, lower
from operators.fragment import FragmentInput
from operators.polars import NAMES, PolarsFragment
from operators.rel import InputSource, ParquetSource
from remote_frame.types import type_to_text

__all__ = ["element_code", "polars_code", "quoted_text", "runs_in_polars"]

_WIDTH = 96
_PLAIN = re.compile(r'(?:[\n !#-\[\]-~]|"(?!""|\Z))*')


def quoted_text(text: str) -> str:
    """`text` as a Python literal that reads like the text: triple-quoted, over several lines.

    Backslashes are doubled, quotes that would end the literal escaped and control characters
    written as escapes; other Unicode stays as it is. Evaluating the literal gives `text` back,
    with one newline before and after it.
    """
    # What a statement is made of; looking at every character takes a millisecond.
    if _PLAIN.fullmatch(text):
        return f'"""\n{text}\n"""'
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


def element_code(
    plan: StagePlan,
    stage: Stage,
    fragment: Fragment,
    *,
    resident: bool = False,
    reductions: Mapping[str, Reduction] | None = None,
    keys: Sequence[WantedKeys] = (),
) -> str:
    """The Python source of a stage's element, without the `#@` lines.

    Parameters
    ----------
    resident
        Read base tables from resident columns, where the invocation has them.
    reductions
        Inputs of the stage that are base tables of which some rows are read.
    keys
        Keys without which rows of resident tables do not matter.
    """
    # An element cannot say so: only statements that a plan takes as they are need it, and they are
    # refused before.
    assert fragment.join_filters
    lines = []
    statements: list[str] = []
    for table in fragment.inputs:
        name = getattr(table.source, "name", "")
        if reductions and name in reductions:
            text = _reduced(plan, stage, table, reductions[name], statements)
        else:
            text = _read(plan, stage, table, resident)
        lines.append(f"{table.name!r}: {text},")
    tables = _tables(lines)
    fixed = ", fixed_joins=True" if fragment.fixed_joins else ""
    asked = _keys(keys, fragment)
    if asked:
        fixed += ", keys=KEYS"
    return (
        f"{_docstring(plan, stage)}\n\n"
        "from engine import element\n\n"
        f"SQL = {quoted_text(fragment.sql.strip())}\n\n"
        f"{''.join(statements)}"
        f"COLUMNS = {_columns(stage.output)}\n{asked}\n\n"
        "def main(params, action):\n"
        f"    tables = {tables}\n"
        f"    rows = element.run(SQL, tables, COLUMNS, action{fixed})\n"
        f"    return {_write(stage.output)}\n"
    )


def polars_code(
    plan: StagePlan,
    stage: Stage,
    fragment: PolarsFragment,
    *,
    resident: Fragment | None = None,
    keys: Sequence[WantedKeys] = (),
) -> str:
    """The Python source of the element of a stage that runs in Polars; see `element_code`.

    Parameters
    ----------
    resident
        What DuckDB would run: the tables that it reads are looked for in resident columns.
    """
    opened = fragment if resident is None else resident
    lines = [f"{t.name!r}: {_read(plan, stage, t, resident is not None)}," for t in opened.inputs]
    constants = more = ""
    if resident is not None:
        names = {i.source: i.name for i in resident.inputs}
        reads = "".join(
            f"{i.name!r}: ({names[i.source]!r}, {_list(i.columns)}),\n" for i in fragment.inputs
        )
        reads = textwrap.indent(reads, "    ")
        constants, more = f"READS = {{\n{reads}}}\n", ", reads=READS"
        if asked := _keys(keys, resident):
            constants, more = constants + asked, more + ", keys=KEYS"
    return (
        f"{_docstring(plan, stage)}\n\n"
        f"{_imports(fragment.text)}\n\n"
        "from engine import element\n\n\n"
        f"{fragment.text}\n\n\n"
        f"COLUMNS = {_columns(stage.output)}\n{constants}\n\n"
        "def main(params, action):\n"
        f"    tables = {_tables(lines)}\n"
        f"{_RUN_POLARS}{more})\n"
        f"    return {_write(stage.output)}\n"
    )


# The beginning of the line that tells such an element from others.
_RUN_POLARS = "    rows = element.run_polars(query, tables, COLUMNS, action"


def _tables(lines: Sequence[str]) -> str:
    """A dictionary display of these items."""
    return "{\n" + textwrap.indent("\n".join(lines), " " * 8) + "\n    }" if lines else "{}"


def runs_in_polars(code: str) -> bool:
    """Whether the source is that of an element that runs in Polars."""
    return f"\n{_RUN_POLARS}" in code


def _imports(text: str) -> str:
    """The statements that import what a text uses."""
    used = set(re.findall(r"[A-Za-z_]+", text))
    found = [statement for name, statement in NAMES.items() if name in used]
    standard = sorted(s for s in found if s.startswith("from "))
    others = [s for s in found if not s.startswith("from ")]
    return "\n".join(standard) + ("\n\n" if standard else "") + "\n".join(others)


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


def _read(plan: StagePlan, stage: Stage, table: FragmentInput, resident: bool) -> str:
    """The expression that opens one of the statement's tables."""
    match table.source:
        case ParquetSource(paths=paths, part=part, hive=()) as source if resident:
            share = "True" if part is not None else "False"
            within = ranges(stage.plan, source)
            pruned = f", within={within!r}" if within else ""
            return (
                f"element.resident(params, {_list(paths)}, action, "
                f"columns={_list(table.columns)}, part={share}{pruned})"
            )
        case ParquetSource(paths=paths, part=None, hive=hive):
            return f"element.table({_list(paths)}{_hive(hive)})"
        case ParquetSource(paths=paths, hive=hive):
            return f"element.part({_list(paths)}, action{_hive(hive)})"
        case InputSource(name=name):
            needed = next(i for i in stage.inputs if i.name == name)
            writer = plan.writer(needed.exchange)
            chosen = ""
            if set(table.columns) != set(writer.output.schema.names):
                chosen = f", columns={_list(table.columns)}"
            return f"element.read_{needed.mode}(params[{writer.name!r}], action{chosen})"
    raise EngineError(f"an element cannot read a {type(table.source).__name__}")


def _reduced(
    plan: StagePlan,
    stage: Stage,
    table: FragmentInput,
    reduction: Reduction,
    statements: list[str],
) -> str:
    """The expression that reads some rows of a base table; `statements` gets constants for the
    queries that give their keys.
    """
    keys = []
    for one in reduction.keys:
        constant = f"KEYS_{len(statements) + 1}"
        statements.append(f"{constant} = {quoted_text(one.fragment.sql.strip())}\n\n")
        reads = [f"{i.name!r}: {_read(plan, stage, i, False)}" for i in one.fragment.inputs]
        keys.append(f"{one.column!r}: ({constant}, {{{', '.join(reads)}}}),\n")
    types = {f.name: type_to_text(f.type) for f in reduction.schema}
    columns = {name: types[name] for name in table.columns}
    lines = [
        f"{_list(reduction.source.paths)},\n",
        f"{columns!r},\n",
        "action,\n",
        f"rows={reduction.rows},\n",
        f"reader={reduction.reader},\n",
    ]
    if reduction.within:
        lines.append(f"within={reduction.within!r},\n")
    if reduction.nulls:
        lines.append(f"nulls={list(reduction.nulls)!r},\n")
    if keys:
        lines.append(f"keys={{\n{textwrap.indent(''.join(keys), '    ')}}},\n")
    return f"element.reduced(\n{textwrap.indent(''.join(lines), '    ')})"


def _keys(keys: Sequence[WantedKeys], fragment: Fragment) -> str:
    """Statements for join keys, which read tables of the stage's statement."""
    names = {i.source: i.name for i in fragment.inputs}
    lines = []
    for one in keys:
        question = lower(one.plan, names)
        reads = [i.name for i in question.inputs]
        target = f"{names[one.source]!r}, {one.column!r}, {reads!r}"
        lines.append(f"    ({target}, {quoted_text(question.sql.strip())}),\n")
    return f"\nKEYS = [\n{''.join(lines)}]\n" if lines else ""


def _hive(columns: Sequence[tuple[str, pa.DataType]]) -> str:
    if not columns:
        return ""
    return f", hive={ {name: type_to_text(type) for name, type in columns}!r}"


def _columns(output: Exchange) -> str:
    rows = "".join(f"    ({f.name!r}, {type_to_text(f.type)!r}),\n" for f in output.schema)
    return f"[\n{rows}]"


def _list(texts: Sequence[str]) -> str:
    line = repr(list(texts))
    if len(line) <= _WIDTH - 30:
        return line
    return "[\n" + "".join(f"    {t!r},\n" for t in texts) + "]"


def _write(output: Exchange) -> str:
    transport = f'action.get_transport({output.name!r}, "rdma")'
    if output.kind != "hash":
        return f"element.write(rows, {transport}, action)"
    return (
        f"element.exchange(\n        rows, {transport}, "
        f"keys={list(output.keys)!r}, partitions={output.partitions}, action=action\n    )"
    )
