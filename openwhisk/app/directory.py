"""An application as a directory of element files."""

from __future__ import annotations

from pathlib import Path

from openwhisk.app.completion import complete
from openwhisk.app.elementfile import (
    COMPUTE_SUFFIX,
    MEMORY_SUFFIXES,
    element_name,
    format_element,
    read_element,
    unreadable,
)
from openwhisk.app.fields import NAME
from openwhisk.app.model import Application, ComputeElement, Location
from openwhisk.app.source import Report
from openwhisk.app.validation import validate


def load_directory(path: str | Path, name: str | None = None) -> Application:
    """Read the element files in a directory, complete and validate the application.

    Parameters
    ----------
    path
        The directory; sub-directories are not looked into.
    name
        Name of the application; by default the directory's.

    Returns
    -------
    Application
        Its elements are in the order of their file names. ``warnings`` says what was put right.

    Raises
    ------
    ApplicationError
        With file and line of every problem.
    """
    directory = Path(path)
    if not directory.is_dir():
        what = "not a directory" if directory.exists() else "no such directory"
        raise unreadable(what, str(path))
    report = Report()
    try:
        files = sorted(p for p in directory.iterdir() if p.is_file())
    except OSError as error:
        raise unreadable(f"cannot be read: {error.strerror}", str(path)) from None
    elements = []
    for file in files:
        if element_name(file) is None:
            if ".o." in file.name and not file.name.startswith("."):
                report.warn("not a kind of element that is known; ignored", Location(str(file)))
            continue
        element = read_element(file, report)
        if element is not None:
            elements.append(element)
    if not elements and not report.problems:
        report.error("holds no element file (NAME.o.py, NAME.o.yaml)", Location(str(path)))
    report.check()
    name = name if name is not None else directory.resolve().name
    app = complete(Application(name, elements, report.warnings))
    warnings = validate(app)
    return Application(app.name, app.elements, warnings)


def write_directory(app: Application, path: str | Path) -> list[Path]:
    """Write one element file per element, and the helper modules that elements carry.

    The directory is made if it does not exist. Files of the same names are replaced.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ApplicationError
        If the directory holds element files that do not belong to `app`, if the name of an element
        or of a helper module is no file name, or if two elements carry different helper modules of
        one name. Nothing is written.
    """
    directory = Path(path)
    texts: dict[str, str] = {}
    report = Report()
    for element in app:
        if not NAME.fullmatch(element.name):
            report.error(f"{element.name!r} is no element name", element.location)
            continue
        suffix = COMPUTE_SUFFIX if isinstance(element, ComputeElement) else MEMORY_SUFFIXES[0]
        texts[element.name + suffix] = format_element(element)
        if isinstance(element, ComputeElement):
            for module, text in element.modules.items():
                if not module.isidentifier():
                    report.error(f"{element.name}: {module!r} is no module name", element.location)
                elif texts.setdefault(f"{module}.py", text) != text:
                    report.error(
                        f"{element.name}: another element carries a different module {module!r}",
                        element.location,
                    )
    if directory.is_dir():
        for file in sorted(directory.iterdir()):
            if element_name(file) is not None and file.name not in texts:
                report.error(
                    f"is in the way: it does not belong to application {app.name}",
                    Location(str(file)),
                )
    report.check()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise unreadable(f"cannot be written: {error.strerror}", str(path)) from None
    return [directory / name for name in texts]
