"""From an element's source text to a callable.

Code is compiled once per process (an LRU keyed by the hash of the text) and executed in a fresh
module for every run, so that no state passes from one run to the next. While a run lasts its
modules are in `sys.modules` under the names ``NAME.o`` (the element) and their own (helper modules
that came with it), which is what pickling, dataclasses and ``typing`` need.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.machinery
import inspect
import linecache
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from openwhisk.errors import ElementError
from openwhisk.runtime import disagg

_CACHED = 256
_compiled: OrderedDict[tuple[bytes, str, int], CodeType] = OrderedDict()


def compile_source(source: str, file: str, first_line: int = 1) -> CodeType:
    """Compile `source` as if it began on line `first_line` of `file`; the same text is compiled
    once.

    Raises
    ------
    SyntaxError
        If it is not Python (text that cannot be decoded or holds NUL included).
    """
    digest = hashlib.blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    key = (digest, file, first_line)
    if (found := _compiled.get(key)) is not None:
        _compiled.move_to_end(key)
        return found
    padded = "\n" * (first_line - 1) + source
    with warnings.catch_warnings():
        # Whether an element's string escapes are deprecated is its author's business.
        warnings.simplefilter("ignore")
        try:
            code = compile(padded, file, "exec", dont_inherit=True)
        except (ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, SyntaxError):
                raise
            raise SyntaxError(f"{file}: {error or type(error).__name__}") from error
    _compiled[key] = code
    while len(_compiled) > _CACHED:
        _compiled.popitem(last=False)
    return code


def show_source(source: str, file: str, first_line: int = 1) -> None:
    """Make tracebacks through `file` show the lines of `source`."""
    lines = ["\n"] * (first_line - 1) + source.splitlines(keepends=True)
    # No modification time: linecache never looks for such a file on disk.
    linecache.cache[file] = (len(source), None, lines, file)


@dataclass(frozen=True, slots=True)
class LoadedElement:
    """An element whose code was executed and whose main function was found.

    Attributes
    ----------
    main
        The function as the element defines it.
    takes_action
        Whether it is called as ``main(params, action)``, as elements are, or as ``main(params)``,
        as plain OpenWhisk actions are.
    module
        The element's module.
    """

    main: Callable[..., Any]
    takes_action: bool
    module: ModuleType

    def __call__(self, params: Mapping[str, Any], action: Any) -> Any:
        """Call the main function."""
        return self.main(params, action) if self.takes_action else self.main(params)


@contextmanager
def load_code(
    code: str,
    main: str,
    name: str,
    *,
    imports: Iterable[str] = (),
    modules: Mapping[str, str] | None = None,
    file: str | None = None,
    first_line: int = 1,
) -> Iterator[LoadedElement]:
    """Execute an element's code; its modules stay in `sys.modules` for the duration of the ``with``
    block.

    Parameters
    ----------
    code, main, name
        Source text, name of the main function, name of the element.
    imports
        Modules to import first; those in `modules` come from there.
    modules
        Source text of helper modules by name.
    file, first_line
        What tracebacks call the source, and where in it `code` begins.

    Raises
    ------
    ElementError
        If there is no such function, or it cannot be called with ``(params, action)`` or
        ``(params)``.
    BaseException
        Whatever the code raises.
    """
    disagg.install()
    file = file or f"{name}.o.py"
    helpers = dict(modules or {})
    own = f"{name}.o"
    saved = {key: sys.modules.get(key) for key in (own, *helpers)}
    sources = [_Source(n, text, f"{n}.py") for n, text in helpers.items()]
    finder = _HelperFinder({s.name: s for s in sources})
    for key in helpers:
        sys.modules.pop(key, None)
    if helpers:
        sys.meta_path.insert(0, finder)
    try:
        for module_name in imports:
            importlib.import_module(module_name)
        module = ModuleType(own)
        module.__file__ = file
        sys.modules[own] = module
        show_source(code, file, first_line)
        exec(compile_source(code, file, first_line), module.__dict__)
        function = getattr(module, main, None)
        if not callable(function):
            raise ElementError(f"{file} defines no function {main!r}")
        yield LoadedElement(function, _takes_action(function, main, file), module)
    finally:
        if helpers:
            sys.meta_path.remove(finder)
        for key, before in saved.items():
            if before is None:
                sys.modules.pop(key, None)
            else:
                sys.modules[key] = before


def _takes_action(function: Callable[..., Any], main: str, file: str) -> bool:
    if isinstance(function, FunctionType):
        code = function.__code__
        # The form that elements have; asking for a signature takes longer than an empty run.
        if code.co_argcount == 2 and not code.co_kwonlyargcount:
            return True
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True  # a callable without a signature: elements are called with both
    for arguments in ((None, None), (None,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments) == 2
    raise ElementError(f"{file}: {main}{signature} cannot be called as {main}(params, action)")


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    text: str
    file: str


class _HelperFinder(importlib.abc.MetaPathFinder):
    """An import hook for the helper modules of one element."""

    def __init__(self, sources: Mapping[str, _Source]) -> None:
        self._sources = sources

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        source = self._sources.get(name)
        if source is None:
            return None
        return importlib.machinery.ModuleSpec(name, _HelperLoader(source), origin=source.file)


class _HelperLoader(importlib.abc.Loader):
    def __init__(self, source: _Source) -> None:
        self._source = source

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = self._source
        module.__file__ = source.file
        show_source(source.text, source.file)
        exec(compile_source(source.text, source.file), module.__dict__)
