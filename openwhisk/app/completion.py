"""Adding the sides of relationships that were not declared: `complete`."""

from __future__ import annotations

from dataclasses import replace

from openwhisk.app.model import Application, ComputeElement, Corunning, Element, place
from openwhisk.app.source import Report


def complete(app: Application) -> Application:
    """Return `app` with every relationship declared on both sides.

    What was declared on one side only is added to the other, with a warning in ``warnings``. Names
    of elements that do not exist are left alone; `validate` reports them.
    """
    added = Report()
    compute, memory = app.compute, app.memory
    parents = {e.name: dict.fromkeys(e.parents) for e in app}
    dependents = {e.name: dict.fromkeys(e.dependents) for e in app}
    corunning = {n: dict(e.corunning) for n, e in compute.items()}
    users = {n: dict.fromkeys(e.corunning) for n, e in memory.items()}

    def note(element: Element, key: str, other: str, does_not: str) -> None:
        where = place(element, key, other)
        added.warn(f"{element.name}: {key} names {other}, which does not {does_not}; added", where)

    for element in app:
        name = element.name
        for parent in element.parents:
            if parent in compute and name not in dependents[parent]:
                dependents[parent][name] = None
                note(element, "parents", parent, f"name {name} among its dependents")
        for dependent in element.dependents:
            if name in compute and dependent in app and name not in parents[dependent]:
                parents[dependent][name] = None
                note(element, "dependents", dependent, f"name {name} among its parents")
        for other in element.corunning:
            if other == name:
                continue
            if other in memory and name in compute and name not in users[other]:
                users[other][name] = None
                note(element, "corunning", other, f"name {name} in its corunning")
            elif other in compute and name not in corunning[other]:
                kind = "rdma"
                if isinstance(element, ComputeElement):
                    kind = element.corunning[other].type
                corunning[other][name] = Corunning(name, type=kind)
                note(element, "corunning", other, f"name {name} in its corunning")

    def completed(element: Element) -> Element:
        name = element.name
        if element is not app[name]:
            return element  # a second element of this name, which `validate` reports
        element = replace(element, parents=tuple(parents[name]), dependents=tuple(dependents[name]))
        if isinstance(element, ComputeElement):
            return replace(element, corunning=corunning[name])
        return replace(element, corunning=tuple(users[name]))

    if not added.warnings:
        return app
    return Application(app.name, (completed(e) for e in app), (*app.warnings, *added.warnings))
