"""``-m``: reaching memory servers that were started by hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from libd.durl import Durl
from libd.errors import LibdError
from openwhisk.app.model import ComputeElement
from openwhisk.cli.common import ToolError, UsageError

_ADDRESS = re.compile(
    r"(?P<name>[^:;,\s]+):(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^:;,\s]+):)?(?P<port>[0-9]+)"
)

HELP = (
    "where memory element NAME is: NAME:PORT (on this host), NAME:HOST:PORT, or a durl such as "
    "'NAME;rdma_tcp;url,tcp://HOST:PORT;'. May be repeated"
)


def parse_memory(text: str, token: str | None) -> Durl:
    """Return the durl that a ``-m`` argument means.

    Raises
    ------
    UsageError
        If it is none of the forms, or the port is not one.
    """
    if ";" in text:
        try:
            durl = Durl.parse(text)
        except LibdError as error:
            raise UsageError(f"-m: {error}") from None
        if not durl.configured:
            raise UsageError(f"-m: durl {durl.name!r} has no address (url,tcp://HOST:PORT)")
    else:
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise UsageError(f"-m: {text!r} is not NAME:PORT, NAME:HOST:PORT or a durl")
        port = int(match["port"])
        if not 0 < port < 1 << 16:
            raise UsageError(f"-m: {text!r}: port {port} is not 1 to 65535")
        host = match["host"] or "localhost"
        durl = Durl(match["name"], "rdma_tcp", {"url": f"tcp://{host}:{port}"})
    config = dict(durl.config)
    if token is not None:
        config.setdefault("token", token)
    return Durl(durl.name, durl.type, config)


def transports_of(element: ComputeElement, given: Iterable[Durl]) -> dict[str, Durl]:
    """Return the durls that an element's transports have, by memory element.

    Raises
    ------
    ToolError
        If a name is given twice (`UsageError`), or a corunning memory element is not given at all.
    """
    found: dict[str, Durl] = {}
    by_trans = {c.trans: name for name, c in element.corunning.items()}
    for durl in given:
        name = durl.name if durl.name in element.corunning else by_trans.get(durl.name, durl.name)
        if name in found:
            raise UsageError(f"-m: memory element {name} is given twice")
        corunning = element.corunning.get(name)
        trans = corunning.trans if corunning else durl.name
        # Refs name the memory element, whatever the transport or the server is called.
        found[name] = Durl(trans, durl.type, {**durl.config, "element": name})
    for merged in element.with_merged:
        if merged.name not in found:
            config = {"size": str(merged.limits.mem)}
            found[merged.name] = Durl(merged.name, "rdma_local", config)
    if missing := [name for name in element.corunning if name not in found]:
        raise ToolError(
            f"{element.name} coruns with {', '.join(missing)}: say where with "
            + " ".join(f"-m '{name}:PORT'" for name in missing)
        )
    return found


def connect(action: Any, durls: Iterable[Durl], timeout: float) -> dict[str, Any]:
    """Open every transport on a `libd.LibdAction`, and return them by name.

    Raises
    ------
    ToolError
        Naming the memory server that cannot be reached, and the command that starts one.
    """
    opened = {}
    for durl in durls:
        try:
            action.add_transport(durl)
            opened[durl.name] = action.get_transport(durl.name, "rdma", timeout=timeout)
        except LibdError as error:
            url = durl.config.get("url", durl.type)
            port = url.rpartition(":")[2]
            hint = f" (start one with: memory_server {port})" if url.startswith("tcp://") else ""
            reason = " ".join(str(error).split())
            raise ToolError(f"memory element {durl.name}: {reason}{hint}") from None
    return opened
