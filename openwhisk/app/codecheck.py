"""What can be said about an element's code without running it: `check_code`."""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Iterable

from openwhisk.app.model import ComputeElement, Location, place
from openwhisk.app.source import Report


def check_code(element: ComputeElement, report: Report) -> None:
    """Check that the code is Python and defines its main function, without running it."""
    name = element.name

    def error(message: str, line: int | None) -> None:
        where = element.location
        if where is not None and where.line is not None:
            line = 1 if line is None else line
            report.error(f"{name}: {message}", Location(where.file, element.first_line + line - 1))
        else:
            at = "" if line is None else f" (line {line} of the code)"
            report.error(f"{name}: {message}{at}", place(element, "code"))

    if not element.code.strip():
        error("there is no code", None)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(element.code)
        except SyntaxError as problem:
            error(f"not Python: {problem.msg}", problem.lineno)
            return
        except (ValueError, RecursionError, MemoryError) as problem:
            error(f"not Python: {problem or type(problem).__name__}", None)
            return
    if not element.main.isidentifier():
        error(f"main {element.main!r} is no function name", None)
        return
    definition = _find_definition(tree.body, element.main)
    if definition is None:
        error(f"defines no function {element.main}(params, action)", None)
    elif isinstance(definition, ast.AsyncFunctionDef):
        error(f"{element.main} must not be async", definition.lineno)
    elif isinstance(definition, ast.FunctionDef) and not _callable(definition.args):
        error(
            f"{element.main} cannot be called as {element.main}(params, action)", definition.lineno
        )


def _find_definition(body: Iterable[ast.stmt], name: str) -> ast.AST | None:
    """Return the last statement at module level that may bind `name`, or ``None``."""
    found: ast.AST | None = None
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if statement.name == name:
                    found = statement
            case ast.Import() | ast.ImportFrom():
                names = {a.asname or a.name.partition(".")[0] for a in statement.names}
                # What a star brings cannot be known without importing it; only helpers bring main.
                if name in names or ("*" in names and not _is_disagg(statement)):
                    found = statement
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement]
                if any(
                    isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
                    for t in targets
                    for n in ast.walk(t)
                ):
                    found = statement
            case ast.If() | ast.For() | ast.While() | ast.Try() | ast.With():
                blocks = [
                    getattr(statement, block, []) for block in ("body", "orelse", "finalbody")
                ]
                blocks += [handler.body for handler in getattr(statement, "handlers", [])]
                for block in blocks:
                    found = _find_definition(block, name) or found
    return found


def _is_disagg(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "disagg"


def _callable(arguments: ast.arguments) -> bool:
    """Whether a function takes ``(params, action)``, or ``(params)`` as OpenWhisk's plain actions
    do.
    """
    positional = len(arguments.posonlyargs) + len(arguments.args)
    required = positional - len(arguments.defaults)
    most = math.inf if arguments.vararg else positional
    keyword_only = any(default is None for default in arguments.kw_defaults)
    return not keyword_only and most >= 1 and required <= 2
