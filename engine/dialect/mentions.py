"""Which columns of which tables a statement can mean.

Wide tables cost the planner as much as wide queries: it carries every column of every relation
through every rule. A column that no identifier of the statement names, and no star covers, cannot
matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlglot import exp

from engine.dialect.outputs import TableLookup

__all__ = ["Mentions", "NarrowTables", "by_order", "covered", "tables_of"]


_TELLING = (exp.Star, exp.Columns, exp.Join, exp.Table)


@dataclass(frozen=True, slots=True)
class Mentions:
    """What the identifiers and stars of a statement may stand for; names are in lower case.

    Attributes
    ----------
    names
        All identifiers.
    whole
        Tables of which every column counts.
    """

    names: frozenset[str]
    whole: frozenset[str]

    @classmethod
    def of(cls, tree: exp.Expr, nodes: Iterable[exp.Expr] | None = None) -> Mentions:
        """What a statement mentions; `nodes` are all of its nodes, where they are known."""
        names: set[str] = set()
        whole: set[str] = set()
        for node in tree.walk() if nodes is None else nodes:
            if isinstance(node, exp.Identifier):  # a third of all
                names.add(str(node.this).lower())
                continue
            if not isinstance(node, _TELLING):
                continue
            match node:
                case exp.Star():
                    whole |= covered(node, tree)
                case exp.Columns():
                    whole |= tables_of(tree)
                case exp.Join() if node.args.get("method"):  # NATURAL names no column
                    whole |= tables_of(node.parent or tree)
                case exp.Table() if by_order(node):
                    whole.add(node.name.lower())
        return cls(frozenset(names), frozenset(whole))

    def columns(self, table: str, names: Sequence[str]) -> tuple[int, ...]:
        """Positions of the columns that count, of a table that has columns of these names. One is
        left where none is mentioned: its rows may be.
        """
        if table.lower() in self.whole:
            return tuple(range(len(names)))
        return tuple(i for i, n in enumerate(names) if n.lower() in self.names) or (0,)


def covered(star: exp.Star, tree: exp.Expr) -> set[str]:
    """Tables that a star of a statement stands for all columns of, in lower case."""
    if isinstance(star.parent, exp.Count):
        return set()
    select = star.parent_select
    if select is None:
        return tables_of(tree)
    if isinstance(select.parent, exp.Exists):
        return set()
    items = [select.args.get("from_"), *(select.args.get("joins") or ())]
    # Subqueries among them have lists of columns, and perhaps stars, of their own.
    tables = [
        node
        for item in items
        if item is not None
        for node in item.walk(prune=lambda n: isinstance(n, exp.Select))
        if isinstance(node, exp.Table) and not _is_cte(node)
    ]
    if isinstance(star.parent, exp.Column) and star.parent.table:
        name = star.parent.table.lower()
        tables = [t for t in tables if t.alias_or_name.lower() == name]
    return {t.name.lower() for t in tables}


def by_order(table: exp.Table) -> bool:
    """Whether every column of a table counts because of how it stands in the statement: alone, or
    with its columns renamed in order.
    """
    alias = table.args.get("alias")
    renamed = alias is not None and bool(alias.args.get("columns"))
    return (renamed or not isinstance(table.parent, exp.From | exp.Join)) and not _is_cte(table)


def tables_of(node: exp.Expr) -> set[str]:
    """All tables that are named below a node, in lower case."""
    return {t.name.lower() for t in node.find_all(exp.Table) if not _is_cte(t)}


def _is_cte(table: exp.Table) -> bool:
    """Whether a name is that of a CTE around it, which hides a table. In what defines it, and in
    those before it, it does not yet.
    """
    inside: exp.Expr | None = table
    passed: set[int] = set()
    while inside is not None:
        passed.add(id(inside))
        clause = inside.args.get("with_")
        for cte in clause.expressions if clause is not None else ():
            if id(cte) in passed:
                break
            if cte.alias.lower() == table.name.lower():
                return True
        inside = inside.parent
    return False


class NarrowTables:
    """The tables of a catalog, narrowed to the columns that one statement mentions."""

    def __init__(self, tables: TableLookup, mentions: Mentions) -> None:
        self._tables = tables
        self._mentions = mentions

    def resolve(self, name: str) -> tuple[str, Sequence[tuple[str, str]]]:
        """See `TableLookup`."""
        found, columns = self._tables.resolve(name)
        kept = self._mentions.columns(found, [n for n, _ in columns])
        return found, [columns[i] for i in kept]
