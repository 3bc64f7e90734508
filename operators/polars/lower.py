"""Lower a plan to a function of Polars' lazy frames, written as a person would write it.

Each relation is a method call on the frame of its input. Columns go by name in Polars, so that
every frame here has names of its own, made unique; what the plan calls by position is looked up.
Relations that occur twice (the same object) are assigned to a variable that is read twice: Polars
computes them once.

Joins of unlike kinds, conditions and functions that Polars would answer otherwise than DuckDB are
refused (`UnsupportedPlan`); whoever lowers has another kernel for those.
"""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Aggregate, Call, Case, Column, Expr, Lit, ScalarSubquery, Window
from operators.fragment import FragmentInput
from operators.polars.expressions import Writer
from operators.polars.fragment import FUNCTION, PolarsFragment
from operators.polars.types import NAMES, polars_type
from operators.rel import (
    Aggregation,
    Filter,
    InputSource,
    Join,
    Limit,
    ParquetSource,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Source,
    Values,
    walk,
)
from operators.rewrite import (
    columns_used,
    conjuncts,
    expressions,
    map_expr,
    remap,
    subqueries,
)

__all__ = ["lower"]

_WIDTH = 96

# What a module has besides, into which a function may be put.
_TAKEN = ("element", "main")


def lower(plan: Rel) -> PolarsFragment:
    """The function that computes `plan`.

    Raises
    ------
    UnsupportedPlan
        If Polars has not, or answers otherwise, something in the plan.
    """
    lowering = _Lowering(plan)
    frame = lowering.frame(plan).exact()
    inputs = tuple(
        FragmentInput(i.name, i.source, tuple(i.columns)) for i in lowering.inputs.values()
    )
    head = f"def {FUNCTION}({', '.join(i.name for i in inputs)}):"
    body = [*lowering.statements, f"return {frame.chained()}"]
    text = head + "".join("\n" + _indented(line) for line in body)
    return PolarsFragment(text, inputs, plan.schema)


@dataclass
class _Input:
    name: str
    source: Source
    columns: list[str]


@dataclass(frozen=True)
class _Frame:
    """A lazy frame under construction: method calls on a variable.

    `names` are those of the relation's columns, by position; `whole` says that the frame has these
    columns, in this order, and no others. `chosen` are the old and new names of the columns that
    the last call chooses, if that is all that it does; `constant` are names of columns that may
    be one value to Polars.
    """

    base: str
    calls: tuple[str, ...]
    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    whole: bool = True
    chosen: tuple[tuple[str, str], ...] = ()
    constant: frozenset[str] = frozenset()

    def then(self, call: str, *, whole: bool | None = None) -> _Frame:
        """With another method call, which leaves the columns as they are."""
        whole = self.whole if whole is None else whole
        return replace(self, calls=(*self.calls, call), whole=whole, chosen=())

    def exact(self) -> _Frame:
        """Without other columns."""
        if self.whole:
            return self
        if not self.names:
            raise UnsupportedPlan("a relation without columns")
        return self.then(_call("select", map(_name, self.names)), whole=True)

    def chained(self) -> str:
        """The text of the whole chain."""
        line = self.base + "".join(f".{c}" for c in self.calls)
        if "\n" not in line and len(line) <= _WIDTH - 12:
            return line
        return "(\n" + _indented("\n".join([self.base, *(f".{c}" for c in self.calls)])) + "\n)"

    def argument(self) -> str:
        """The text of a short chain, for the argument of a call."""
        return self.base + "".join(f".{c}" for c in self.calls)

    @property
    def writer(self) -> Writer:
        """Writes expressions over the columns."""
        return Writer(self.names, self.types, constant=[n in self.constant for n in self.names])


class _Lowering:
    def __init__(self, plan: Rel) -> None:
        self.inputs: dict[Source, _Input] = {}
        self.statements: list[str] = []
        self._names: Counter[str] = Counter((FUNCTION, *NAMES, *_TAKEN))
        self._uses: Counter[int] = Counter()
        self._shared: dict[int, _Frame] = {}
        self._count(plan)

    def _count(self, rel: Rel) -> None:
        self._uses[id(rel)] += 1
        if self._uses[id(rel)] > 1:
            return
        for child in rel.inputs():
            self._count(child)
        for expr in expressions(rel):
            for sub in subqueries(expr):
                self._count(sub)

    def _fresh(self, base: str) -> str:
        """An identifier that nothing else in the function has."""
        base = "".join(c if c.isalnum() else "_" for c in base.lower()).strip("_")
        if not base.isidentifier() or keyword.iskeyword(base) or not base.isascii():
            base = "t"
        while True:
            self._names[base] += 1
            n = self._names[base]
            name = base if n == 1 else f"{base}_{n}"
            if n == 1 or name not in self._names:
                self._names[name] += n > 1
                return name

    def frame(self, rel: Rel) -> _Frame:
        """The frame of `rel`; one that is used more than once is a variable."""
        if self._uses[id(rel)] == 1 or isinstance(rel, Scan | Values):
            return self._build(rel)
        if id(rel) not in self._shared:
            frame = self._build(rel).exact()
            if _is_work(rel):
                frame = frame.then("cache()")
            self._shared[id(rel)] = self._variable(frame, "shared")
        return self._shared[id(rel)]

    def _variable(self, frame: _Frame, hint: str = "t") -> _Frame:
        name = self._fresh(hint)
        self.statements.append(f"{name} = {frame.chained()}")
        return replace(frame, base=name, calls=())

    def _operand(self, frame: _Frame) -> _Frame:
        """A frame that may stand in parentheses."""
        text = frame.argument()
        return frame if "\n" not in text and len(text) <= 50 else self._variable(frame)

    def _build(self, rel: Rel) -> _Frame:
        match rel:
            case Scan():
                return self._scan(rel)
            case Values():
                return self._values(rel)
            case Filter():
                return self._filter(rel)
            case Project():
                return self._project(rel)
            case Aggregation():
                return self._aggregation(rel)
            case Sort():
                return self._sort(rel)
            case Limit(count=count, offset=offset):
                frame = self.frame(rel.input)
                if count is None:
                    return frame.then(f"slice({offset})") if offset else frame
                return frame.then(f"slice({offset}, {count})" if offset else f"head({count})")
            case Join():
                return self._join(rel)
            case SetOperation():
                return self._set(rel)
        raise UnsupportedPlan(f"Polars has no {type(rel).__name__}")

    # What has one input

    def _scan(self, scan: Scan) -> _Frame:
        match scan.source:
            case ParquetSource(table=name, part=None, hive=()) | InputSource(name=name):
                pass
            case _:
                raise UnsupportedPlan("parts of tables, and columns in paths")
        if len(set(scan.source_schema.names)) < len(scan.source_schema):
            raise UnsupportedPlan("a table with two columns of one name")
        known = self.inputs.get(scan.source)
        if known is None:
            known = self.inputs[scan.source] = _Input(self._fresh(name), scan.source, [])
        used = {*scan.columns, *columns_used(scan.predicate)} or {0}  # some column has the rows
        for i in used:
            polars_type(scan.source_schema[i].type)
        wanted = {*known.columns, *(scan.source_schema[i].name for i in used)}
        known.columns = [n for n in scan.source_schema.names if n in wanted]
        names = scan.source_schema.names
        frame = _Frame(known.name, (), names, scan.source_schema.types, whole=False)
        if scan.predicate is not None:
            frame = self._filtered(frame, scan.predicate)
        return self._selected(frame, scan.columns, scan.schema.names)

    def _selected(self, frame: _Frame, positions: Sequence[int], wanted: Sequence[str]) -> _Frame:
        """The columns at `positions` under the names that are wanted, as far as these differ."""
        if not positions:
            return replace(frame, names=(), types=(), whole=False)
        names = _unique(wanted)
        if frame.whole and names == frame.names and tuple(positions) == tuple(range(len(names))):
            return frame
        types = tuple(frame.types[p] for p in positions)
        constant = frozenset(
            n for p, n in zip(positions, names, strict=True) if frame.names[p] in frame.constant
        )
        chosen = tuple((frame.names[p], n) for p, n in zip(positions, names, strict=True))
        if frame.chosen:  # a choice of what was just chosen
            before = {new: old for old, new in frame.chosen}
            chosen = tuple((before[old], new) for old, new in chosen)
            frame = replace(frame, calls=frame.calls[:-1])
        terms = [
            _name(old) if old == new else f"pl.col({_name(old)}).alias({_name(new)})"
            for old, new in chosen
        ]
        frame = frame.then(_call("select", terms))
        return replace(
            frame, names=names, types=types, whole=True, chosen=chosen, constant=constant
        )

    def _values(self, rel: Values) -> _Frame:
        if not rel.rows or not len(rel.schema):
            raise UnsupportedPlan("literal rows without rows or columns")
        writer = Writer((), ())
        rows = []
        for row in rel.rows:
            if not all(isinstance(cell, Lit) for cell in row):
                raise UnsupportedPlan("literal rows of expressions")
            names = _unique(rel.schema.names)
            cells = [
                f"{writer.write(c)}.cast({polars_type(f.type)}).alias({_name(n)})"
                for n, c, f in zip(names, row, rel.schema, strict=True)
            ]
            rows.append(f"pl.select({', '.join(cells)}).lazy()")
        base = rows[0] if len(rows) == 1 else _call("pl.concat", [_listed(rows)])
        return _Frame(base, (), _unique(rel.schema.names), rel.schema.types)

    def _filtered(self, frame: _Frame, predicate: Expr) -> _Frame:
        rest = []
        for term in conjuncts(predicate):
            looked_up = self._equal_to_scalar(frame, term)
            if looked_up is None:
                rest.append(term)
            else:
                frame = looked_up
        if not rest:
            return frame
        frame, rest = self._with_scalars(frame, rest)
        terms = [frame.writer.condition(t) for t in rest]
        return frame.then(_call("filter", terms))

    def _equal_to_scalar(self, frame: _Frame, term: Expr) -> _Frame | None:
        """The rows where a column is what a scalar subquery gives, by a join: Polars takes it to
        leave few rows, and orders other joins by that.
        """
        match term:
            case Call(function="equal", args=(Column() as column, ScalarSubquery() as scalar)):
                pass
            case Call(function="equal", args=(ScalarSubquery() as scalar, Column() as column)):
                pass
            case _:
                return None
        if column.type != scalar.type:
            return None
        value = self.frame(scalar.rel)
        name = _name(value.names[0])
        if not _one_row(scalar.rel):
            value = value.then(f"select(pl.col({name}).item(allow_empty=True))")
        on = [f"left_on={_name(frame.names[column.index])}", f"right_on={name}"]
        one = self._operand(value).argument()
        return frame.then(_call("join", [one, *on, 'how="semi"']))

    def _filter(self, rel: Filter) -> _Frame:
        frame = self.frame(rel.input)
        filtered = self._filtered(frame, rel.predicate)
        width = len(frame.names)
        return replace(filtered, names=filtered.names[:width], types=filtered.types[:width])

    def _with_scalars(self, frame: _Frame, exprs: Sequence[Expr]) -> tuple[_Frame, list[Expr]]:
        """The values of scalar subqueries as columns of the frame, and the expressions over it."""
        columns: dict[int, Column] = {}

        def visit(expr: Expr) -> Expr:
            nonlocal frame
            if not isinstance(expr, ScalarSubquery):
                return expr
            if id(expr.rel) not in columns:
                frame = self._with_scalar(frame, expr)
                columns[id(expr.rel)] = Column(expr.type, len(frame.names) - 1)
            return columns[id(expr.rel)]

        replaced = [map_expr(e, visit) for e in exprs]
        return frame, replaced

    def _with_scalar(self, frame: _Frame, expr: ScalarSubquery) -> _Frame:
        value = self.frame(expr.rel)
        name = _free("scalar", frame.names)
        text = f"pl.col({_name(value.names[0])})"
        if not _one_row(expr.rel):
            # None if there is no row, an error if there are two.
            text += ".item(allow_empty=True)"
        one = self._operand(value.then(f"select({text}.alias({_name(name)}))"))
        joined = frame.exact().then(f'join({one.argument()}, how="cross")', whole=False)
        return replace(
            joined,
            names=(*frame.names, name),
            types=(*frame.types, expr.type),
            constant=frame.constant | {name},
        )

    def _project(self, rel: Project) -> _Frame:
        if all(isinstance(e, Column) for e in rel.exprs):
            positions = [e.index for e in rel.exprs if isinstance(e, Column)]
            return self._selected(self.frame(rel.input), positions, rel.schema.names)
        below = self.frame(rel.input)
        frame, exprs = self._with_scalars(below, rel.exprs)
        writer, names, terms = frame.writer, _unique(rel.schema.names), []
        for expr, name in zip(exprs, names, strict=True):
            if isinstance(expr, Column) and frame.names[expr.index] == name:
                terms.append(_name(name))
                continue
            text = writer.window(expr) if isinstance(expr, Window) else writer.write(expr)
            terms.append(f"{_operand_text(text)}.alias({_name(name)})")
        constant = frozenset(
            n
            for e, n in zip(exprs, names, strict=True)
            if isinstance(e, Case)
            or not columns_used(e)
            or (isinstance(e, Column) and frame.names[e.index] in frame.constant)
        )
        frame = replace(frame, constant=constant)
        if not any(columns_used(e) for e in exprs):
            # In `select` constants are one row, however many there are below.
            frame = frame.then(_call("with_columns", terms), whole=False)
            return replace(frame, names=names, types=rel.schema.types).exact()
        return replace(
            frame.then(_call("select", terms)), names=names, types=rel.schema.types, whole=True
        )

    def _aggregation(self, rel: Aggregation) -> _Frame:
        frame = self.frame(rel.input)
        several = rel.grouping_sets is not None and len(rel.grouping_sets) > 1
        if rel.grouping_sets is not None and not several:
            raise UnsupportedPlan("one grouping set")
        exprs = [*rel.keys]
        scalars = [e for m in rel.measures for e in m.args if any(True for _ in subqueries(e))]
        if scalars or any(True for k in exprs for _ in subqueries(k)):
            raise UnsupportedPlan("a subquery among groups and aggregates")
        names = _unique(rel.schema.names)
        keys = [
            _name(n)
            if isinstance(k, Column) and frame.names[k.index] == n
            else f"{_operand_text(frame.writer.write(k))}.alias({_name(n)})"
            for k, n in zip(rel.keys, names, strict=False)
        ]
        if several:
            return self._grouping_sets(rel, frame, names, keys)
        measures = self._measures(rel.measures, frame, names[len(keys) :], bool(keys))
        if keys and measures:
            frame = frame.then(_call("group_by", keys)).then(_call("agg", measures))
        elif keys:
            frame = frame.then(_call("select", keys)).then("unique()")
        elif measures:
            frame = frame.then(_call("select", measures))
        else:
            raise UnsupportedPlan("an aggregation to nothing")
        return replace(frame, names=names, types=rel.schema.types, whole=True)

    def _measures(
        self, measures: Sequence[Aggregate], frame: _Frame, names: Sequence[str], grouped: bool
    ) -> list[str]:
        return [
            f"{_operand_text(frame.writer.aggregate(m, grouped=grouped))}.alias({_name(n)})"
            for m, n in zip(measures, names, strict=True)
        ]

    def _grouping_sets(
        self, rel: Aggregation, frame: _Frame, names: Sequence[str], keys: Sequence[str]
    ) -> _Frame:
        """One aggregation for each set, put together."""
        assert rel.grouping_sets is not None
        if not rel.measures:
            raise UnsupportedPlan("grouping sets without aggregates")
        frame = self._variable(frame, "grouped")
        measures = self._measures(rel.measures, frame, names[len(keys) + 1 :], False)
        parts = []
        for chosen in rel.grouping_sets:
            one = frame
            if chosen:
                one = one.then(_call("group_by", [keys[i] for i in chosen]))
                one = one.then(_call("agg", measures))
            else:
                one = one.then(_call("select", measures))
            absent = [i for i in range(len(keys)) if i not in chosen]
            # SQL's GROUPING: the first key is the highest bit.
            grouping = sum(1 << (len(keys) - 1 - i) for i in absent)
            added = [
                f"pl.lit(None, {polars_type(rel.keys[i].type)}).alias({_name(names[i])})"
                for i in absent
            ]
            added.append(f"pl.lit({grouping}, pl.Int64).alias({_name(names[len(keys)])})")
            one = one.then(_call("with_columns", added)).then(_call("select", map(_name, names)))
            parts.append(self._operand(one).argument())
        base = f"pl.concat({_listed(parts)})"
        return _Frame(base, (), tuple(names), rel.schema.types)

    def _sort(self, rel: Sort) -> _Frame:
        frame = self.frame(rel.input)
        keys = [k for k in rel.keys if columns_used(k.expr)]  # a constant orders nothing
        if not keys:
            return frame
        if any(any(True for _ in subqueries(k.expr)) for k in keys):
            raise UnsupportedPlan("a subquery in ORDER BY")
        ordering = frame.writer.sort(keys)
        terms = [
            _name(frame.names[k.expr.index]) if isinstance(k.expr, Column) else text
            for k, text in zip(keys, ordering.keys, strict=True)
        ]
        arguments = [terms[0] if len(terms) == 1 else _listed(terms)]
        if any(ordering.descending):
            arguments.append(f"descending={_flags(ordering.descending)}")
        if any(ordering.nulls_last):
            arguments.append(f"nulls_last={_flags(ordering.nulls_last)}")
        return frame.then(_call("sort", arguments))

    # Joins and sets

    def _join(self, rel: Join) -> _Frame:
        if rel.kind == "asof" or not rel.left_keys:
            return self._keyless(rel)
        if len(set(rel.null_equal)) > 1:
            raise UnsupportedPlan("a join in which some keys only may be NULL")
        if (
            rel.kind == "semi"
            and rel.condition is not None
            and _distinct(rel.right, rel.right_keys)
        ):
            # A row finds one partner at most, so that no row comes twice.
            joined = self._join(replace(rel, kind="inner", build=None))
            width = len(rel.left.schema)
            return replace(
                joined, names=joined.names[:width], types=joined.types[:width], whole=False
            )
        left, right = self.frame(rel.left), self.frame(rel.right)
        above, right = self._placed(rel, right)
        left_on, right_on = [], []
        if rel.kind not in ("semi", "anti"):
            right = self._renamed(right, left.names)
        for a, b in zip(rel.left_keys, rel.right_keys, strict=True):
            x, y = _key(left, a, right.types[b]), _key(right, b, left.types[a])
            left_on.append(x)
            right_on.append(y)
        nulls = ["nulls_equal=True"] if any(rel.null_equal) else []
        on = [f"left_on={_one_or_list(left_on)}", f"right_on={_one_or_list(right_on)}"]
        if rel.kind == "mark":
            return self._mark(rel, left, right, left_on, right_on, nulls)
        right = self._operand(right)
        if rel.kind in ("semi", "anti"):
            arguments = [right.argument(), *on, f'how="{rel.kind}"', *nulls]
            return left.then(_call("join", arguments))
        arguments = [right.argument(), *on, f'how="{rel.kind}"', *nulls, "coalesce=False"]
        joined = replace(
            left.then(_call("join", arguments), whole=left.whole and right.whole),
            names=(*left.names, *right.names),
            types=(*left.types, *right.types),
        )
        if above:
            terms = [joined.writer.condition(t) for t in above]
            joined = joined.then(_call("filter", terms))
        return joined

    def _placed(self, rel: Join, right: _Frame) -> tuple[list[Expr], _Frame]:
        """The terms of a join's condition that apply above it; those of the right side alone are
        applied there.
        """
        width = len(rel.left.schema)
        above = []
        for term in conjuncts(rel.condition):
            if any(True for _ in subqueries(term)):
                raise UnsupportedPlan("a subquery in a join's condition")
            used = columns_used(term)
            if rel.kind == "inner":
                above.append(term)
            elif rel.kind in ("left", "semi", "anti", "mark") and used and min(used) >= width:
                moved = remap(term, {i: i - width for i in used})
                right = right.then(_call("filter", [right.writer.condition(moved)]))
            else:
                raise UnsupportedPlan(f"a condition of a {rel.kind} join")
        return above, right

    def _keyless(self, rel: Join) -> _Frame:
        if rel.kind not in ("inner", "cross") or not (
            rel.condition is None or _one_row(rel.left) or _one_row(rel.right)
        ):
            raise UnsupportedPlan(f"a {rel.kind} join without keys")
        left = self.frame(rel.left).exact()
        right = self._operand(self._renamed(self.frame(rel.right), left.names).exact())
        joined = replace(
            left.then(f'join({right.argument()}, how="cross")'),
            names=(*left.names, *right.names),
            types=(*left.types, *right.types),
        )
        if rel.condition is None:
            return joined
        joined, (condition,) = self._with_scalars(joined, [rel.condition])
        terms = [joined.writer.condition(t) for t in conjuncts(condition)]
        return joined.then(_call("filter", terms))

    def _mark(
        self,
        rel: Join,
        left: _Frame,
        right: _Frame,
        left_on: Sequence[str],
        right_on: Sequence[str],
        nulls: Sequence[str],
    ) -> _Frame:
        """Whether there is a partner, as a column: no left row may find two."""
        name = _free(rel.schema.names[-1] or "mark", left.names)
        keys = [f"key_{i}" for i in range(len(right_on))]
        while set(keys) & {*left.names, name}:
            keys = [k + "_" for k in keys]
        terms = [
            f"{t if t.startswith('pl.') else f'pl.col({t})'}.alias({_name(k)})"
            for t, k in zip(right_on, keys, strict=True)
        ]
        partners = self._variable(
            right.then(_call("select", terms))
            .then("unique()")
            .then(f"with_columns(pl.lit(True).alias({_name(name)}))"),
            "partners",
        )
        on = [
            f"left_on={_one_or_list(left_on)}",
            f"right_on={_one_or_list([_name(k) for k in keys])}",
        ]
        call = _call("join", [partners.base, *on, 'how="left"', *nulls])
        marked = left.exact().then(call, whole=False)
        marked = marked.then(f"with_columns(pl.col({_name(name)}).fill_null(False))")
        return replace(marked, names=(*left.names, name), types=(*left.types, pa.bool_()))

    def _renamed(self, frame: _Frame, taken: Sequence[str]) -> _Frame:
        """With no column called as one of `taken` is."""
        frame = frame.exact()
        used = {*taken, *frame.names}
        renamed = {}
        for name in frame.names:
            if name in taken:
                renamed[name] = _free(name, used)
                used.add(renamed[name])
        if not renamed:
            return frame
        pairs = ", ".join(f"{_name(a)}: {_name(b)}" for a, b in renamed.items())
        names = tuple(renamed.get(n, n) for n in frame.names)
        return replace(frame.then(f"rename({{{pairs}}})"), names=names)

    def _set(self, rel: SetOperation) -> _Frame:
        names = _unique(rel.schema.names)
        parts = []
        for operand in rel.operands:
            if operand.schema.types != rel.schema.types:
                raise UnsupportedPlan("a set operation on unlike types")
            frame = self.frame(operand)
            if frame.names != names or not frame.whole:
                frame = self._selected(frame, range(len(names)), names)
            parts.append(frame)
        if rel.operation == "union":
            texts = [self._operand(p).argument() for p in parts]
            union = _Frame(_call("pl.concat", [_listed(texts)]), (), names, rel.schema.types)
            return union if rel.all else union.then("unique()")
        if rel.all:
            raise UnsupportedPlan(f"{rel.operation} all")
        how = "semi" if rel.operation == "intersect" else "anti"
        frame = parts[0].then("unique()")
        for part in parts[1:]:
            other = self._operand(part).argument()
            on = _one_or_list([_name(n) for n in names])
            arguments = [other, f"on={on}", f'how="{how}"', "nulls_equal=True"]
            frame = frame.then(_call("join", arguments))
        return frame


def _is_work(rel: Rel) -> bool:
    """Whether `rel` is more than a filtered scan. Those are better read by each reader for itself,
    which needs less of them.
    """
    return any(isinstance(r, Join | Aggregation | SetOperation | Sort) for r in walk(rel))


def _one_row(rel: Rel) -> bool:
    """Whether a relation certainly has one row."""
    match rel:
        case Aggregation(keys=(), grouping_sets=None):
            return True
        case Project(input=below) | Sort(input=below):
            return _one_row(below)
        case Values(rows=rows):
            return len(rows) == 1
        case Join(left=left, right=right, left_keys=(), condition=None, kind="inner" | "cross"):
            return _one_row(left) and _one_row(right)
    return False


def _distinct(rel: Rel, columns: Collection[int]) -> bool:
    """Whether no two rows of a relation have the same values in `columns`."""
    match rel:
        case Aggregation(keys=keys, grouping_sets=None):
            return {*range(len(keys))} <= {*columns}
        case Project(input=below, exprs=exprs):
            found = {e.index for i in columns if isinstance(e := exprs[i], Column)}
            return _distinct(below, found)
        case Filter(input=below) | Sort(input=below) | Limit(input=below):
            return _distinct(below, columns)
    return False


def _key(frame: _Frame, position: int, other: pa.DataType) -> str:
    """A join key as the name of a column, or an expression of the type that both keys have."""
    name, type = _name(frame.names[position]), frame.types[position]
    if type == other:
        return name
    if pt.is_signed_integer(type) and pt.is_signed_integer(other):
        return (
            name
            if type.bit_width > other.bit_width
            else f"pl.col({name}).cast({polars_type(other)})"
        )
    raise UnsupportedPlan(f"a join of {type} with {other}")


# Text


def _name(name: str) -> str:
    """A name as people write strings."""
    text = repr(name)
    return f'"{name}"' if text == f"'{name}'" and '"' not in name else text


def _operand_text(text: str) -> str:
    """An expression to whose right a method may be called."""
    return text if _chain(text) else f"({text})"


def _chain(text: str) -> bool:
    """Whether the text is a chain of names and calls, with no operator outside of parentheses."""
    depth, quote, escaped = 0, "", False
    for c in text:
        if quote:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == quote:
                quote = ""
        elif c in "\"'":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif depth == 0 and not (c.isalnum() or c in "._"):
            return False
    return True


def _indented(text: str) -> str:
    return "\n".join("    " + line if line else line for line in text.split("\n"))


def _call(method: str, arguments: Iterator[str] | Sequence[str]) -> str:
    """A call, over several lines where it is long."""
    arguments = list(arguments)
    line = f"{method}({', '.join(arguments)})"
    if len(line) <= _WIDTH - 16 and "\n" not in line:
        return line
    return f"{method}(\n" + "".join(_indented(a) + ",\n" for a in arguments) + ")"


def _listed(texts: Sequence[str]) -> str:
    line = f"[{', '.join(texts)}]"
    if len(line) <= _WIDTH - 20 and "\n" not in line:
        return line
    return "[\n" + "".join(_indented(t) + ",\n" for t in texts) + "]"


def _one_or_list(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _flags(flags: Sequence[bool]) -> str:
    return str(flags[0]) if len(set(flags)) == 1 else str(list(flags))


def _free(base: str, taken: Sequence[str] | set[str]) -> str:
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    return name


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """`names` with repetitions numbered."""
    taken, seen, result = set(names), set[str](), []
    for name in names:
        base = name or "c"
        unique = base if base not in seen else _free(base, taken | seen)
        seen.add(unique)
        result.append(unique)
    return tuple(result)
