"""Transport addresses: ``NAME;TYPE;[KEY,VALUE;]*``, for example
``mem1;rdma_tcp;url,tcp://localhost:2333;``.

Settings that the transports of this package read:

``url``
    ``tcp://HOST:PORT``, or for ``rdma_shm`` ``unix://@NAME`` (an abstract socket).
``size``
    ``rdma_local`` and the servers: bytes of memory, also ``64 MB``.
``token``
    The server's token, or the tenant's if ``eid`` is given.
``eid``
    Number of a granted element on the server; without it the server's default region is meant.
``tenant``
    Number of the tenant of ``eid``.
``key``
    32 hexadecimal digits: the element's capability.
``element``
    Name of the memory element that refs carry; by default what the server says, else the durl's
    name.
``elastic``
    ``rdma_local``: ``true`` for an element without a region 0 that grows up to ``size``.
``timeout``
    Seconds to connect.
``stall``
    Seconds without a byte after which a server that owes an answer is given up.
``stripes``
    ``rdma_tcp``: connections that transfers of 4 MiB or more are cut up over, 1 to 16.
``device``
    ``rdma_uverbs`` and ``rdma_uverbs_server``: the RDMA device, ``NAME[:PORT[:GID INDEX]]``; by
    default the first that has an active port. The url is where the server is over TCP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from libd.errors import DurlError

__all__ = ["Durl"]

_NAME = re.compile(r"[^;,\s]+\Z")
_SECRET = frozenset({"token", "key"})


@dataclass(frozen=True, slots=True)
class Durl:
    """The address of a transport.

    Attributes
    ----------
    name
        The transport's name in the element.
    type
        The transport's type, for example ``rdma_tcp``.
    config
        Read-only settings by key; empty for a transport that is configured later.

    Notes
    -----
    ``str()`` gives the exact text back, secrets included; ``repr()`` hides them, so that a durl in
    a traceback or a log gives nothing away.
    """

    name: str
    type: str
    config: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, value in (("name", self.name), ("type", self.type)):
            if not _NAME.match(value):
                shown = re.split(r"[;,\s]", value)[0]
                raise DurlError(
                    f"durl {what} {shown!r} is empty or goes on with ';', ',' or white space"
                )
        for key, value in self.config.items():
            if not _NAME.match(key) or ";" in value or "\n" in value:
                raise DurlError(
                    f"durl {self.name!r}: setting {key!r} holds a character that a durl cannot "
                    "carry"
                )
        object.__setattr__(self, "config", MappingProxyType(dict(self.config)))

    @classmethod
    def parse(cls, text: str | Durl) -> Durl:
        """Read a durl.

        Raises
        ------
        DurlError
            if `text` is not ``NAME;TYPE;[KEY,VALUE;]*``; the message holds no secret.
        """
        if isinstance(text, Durl):
            return text
        parts = text.strip().split(";")
        if parts[-1] == "":
            parts.pop()
        if len(parts) < 2:
            name = re.split(r"[,\s]", parts[0])[0] if parts else ""
            raise DurlError(f"durl {name!r}… is not of the form NAME;TYPE;[KEY,VALUE;]*")
        name, type_, *settings = parts
        config: dict[str, str] = {}
        for number, setting in enumerate(settings, 1):
            key, comma, value = setting.partition(",")
            if not comma or not key:
                raise DurlError(
                    f"durl {name!r}: setting number {number} is not of the form KEY,VALUE"
                )
            if key in config:
                raise DurlError(f"durl {name!r}: setting {key!r} is given twice")
            config[key] = value
        return cls(name, type_, config)

    @property
    def configured(self) -> bool:
        """Whether this names an address, rather than a transport that is configured later."""
        return bool(self.config)

    def __str__(self) -> str:
        return ";".join([self.name, self.type, *(f"{k},{v}" for k, v in self.config.items())]) + ";"

    def __repr__(self) -> str:
        shown = {k: "…" if k in _SECRET else v for k, v in self.config.items()}
        return f"Durl({self.name!r}, {self.type!r}, {shown})"

    def __hash__(self) -> int:
        return hash((self.name, self.type, tuple(sorted(self.config.items()))))

    def __reduce__(self) -> tuple[object, ...]:
        return (Durl, (self.name, self.type, dict(self.config)))
