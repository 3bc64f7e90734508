"""Columns that a table has and no query can name: those of types that the engine does not have.

They are not there for the binder and the planner. A statement that stands for them all the same (a
star, a table whose columns are meant by their order) is refused, unless it leaves them out itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlglot import exp

from engine.errors import UnsupportedSqlError

__all__ = ["Hidden", "leave_out", "refusal"]

Hidden = Mapping[str, Mapping[str, str]]
"""By table, in lower case: the names of its hidden columns, and why they are hidden."""


def refusal(table: str, column: str, reason: str) -> UnsupportedSqlError:
    """The error for a statement that wants a hidden column."""
    return UnsupportedSqlError(f"column {column!r} of table {table!r}: {reason}")


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
    for node in list(nodes):
        if isinstance(node, exp.Star):
            changed |= _leave_out_of(node, tree, hidden)
        elif isinstance(node, exp.Columns):
            _refuse(_tables(tree), hidden, "COLUMNS stands for it")
        elif isinstance(node, exp.Join) and node.args.get("method"):
            _refuse(_tables(node.parent or tree), hidden, "a NATURAL join may compare it")
        elif isinstance(node, exp.Table) and _by_order(node) and not _is_cte(node):
            _refuse({node.name.lower()}, hidden, "all columns are meant")
    return changed


def _leave_out_of(star: exp.Star, tree: exp.Expr, hidden: Hidden) -> bool:
    listed = star.args.get("except_") or []
    excluded = {e.name.lower() for e in listed}
    gone = set()
    for table in _covered(star, tree):
        columns = hidden.get(table, {})
        if left := [c for c in columns if c.lower() not in excluded]:
            listing = ", ".join(exp.to_identifier(c).sql(dialect="duckdb") for c in columns)
            raise UnsupportedSqlError(
                f"{refusal(table, left[0], columns[left[0]])}; leave it out: * EXCLUDE ({listing})"
            )
        gone |= {c.lower() for c in columns}
    kept = [e for e in listed if e.name.lower() not in gone]
    if len(kept) == len(listed):
        return False
    star.set("except_", kept or None)
    return True


def _covered(star: exp.Star, tree: exp.Expr) -> set[str]:
    """Tables of which a star stands for all columns."""
    if isinstance(star.parent, exp.Count):
        return set()
    select = star.parent_select
    if select is None:
        return _tables(tree)
    if isinstance(select.parent, exp.Exists):
        return set()
    items = [select.args.get("from_"), *(select.args.get("joins") or ())]
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


def _by_order(table: exp.Table) -> bool:
    alias = table.args.get("alias")
    renamed = alias is not None and bool(alias.args.get("columns"))
    return renamed or not isinstance(table.parent, exp.From | exp.Join)


def _refuse(tables: Iterable[str], hidden: Hidden, why: str) -> None:
    for table in tables:
        for column, reason in hidden.get(table, {}).items():
            raise UnsupportedSqlError(f"{refusal(table, column, reason)}; {why}")


def _tables(node: exp.Expr) -> set[str]:
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
