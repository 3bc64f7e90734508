"""Columns that a table has and no query can name: those of types that the engine does not have.

They are not there for the binder and the planner. A statement that stands for them all the same (a
star, a table whose columns are meant by their order) is refused, unless it leaves them out itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlglot import exp

from engine.dialect.mentions import Mentions, by_order, covered, tables_of
from engine.errors import SqlError, UnsupportedSqlError

__all__ = ["Hidden", "explained", "leave_out"]

Hidden = Mapping[str, Mapping[str, str]]
"""By table, in lower case: the names of its hidden columns, and why they are hidden."""


def explained(error: SqlError, hidden: Hidden, mentions: Mentions) -> SqlError:
    """The error for a statement that was refused: if what was not found is hidden, it says so."""
    words = str(error).lower()
    for table, columns in hidden.items():
        for column, reason in columns.items():
            if column.lower() in mentions.names and column.lower() in words:
                return UnsupportedSqlError(_words(table, column, reason))
    return error


def leave_out(tree: exp.Expr, nodes: Iterable[exp.Expr], hidden: Hidden) -> bool:
    """Take hidden columns out of the lists of stars that exclude them.

    Parameters
    ----------
    tree
        A statement; it is changed.
    nodes
        All of its nodes.
    hidden
        Of the tables that the statement names.

    Returns
    -------
    bool
        Whether anything was changed.

    Raises
    ------
    UnsupportedSqlError
        If the statement stands for a hidden column without naming it.
    """
    changed = False
    for node in nodes:
        if isinstance(node, exp.Star):
            changed |= _leave_out_of(node, tree, hidden)
        elif isinstance(node, exp.Columns):
            _refuse(tables_of(tree), hidden, "COLUMNS stands for it")
        elif isinstance(node, exp.Join) and node.args.get("method"):
            _refuse(tables_of(node.parent or tree), hidden, "a NATURAL join may compare it")
        elif isinstance(node, exp.Table) and by_order(node):
            _refuse({node.name.lower()}, hidden, "all columns are meant")
    return changed


def _leave_out_of(star: exp.Star, tree: exp.Expr, hidden: Hidden) -> bool:
    listed = star.args.get("except_") or []
    excluded = {e.name.lower() for e in listed}
    gone = set()
    for table in covered(star, tree):
        columns = hidden.get(table, {})
        if left := [c for c in columns if c.lower() not in excluded]:
            listing = ", ".join(exp.to_identifier(c).sql(dialect="duckdb") for c in columns)
            words = _words(table, left[0], columns[left[0]])
            raise UnsupportedSqlError(f"{words}; leave it out: * EXCLUDE ({listing})")
        gone |= {c.lower() for c in columns}
    kept = [e for e in listed if e.name.lower() not in gone]
    if len(kept) == len(listed):
        return False
    star.set("except_", kept or None)
    return True


def _refuse(tables: Iterable[str], hidden: Hidden, why: str) -> None:
    for table in tables:
        for column, reason in hidden.get(table, {}).items():
            raise UnsupportedSqlError(f"{_words(table, column, reason)}; {why}")


def _words(table: str, column: str, reason: str) -> str:
    return f"column {column!r} of table {table!r}: {reason}"
