"""Numbers of bytes as people write them.

``KB``, ``MB``, ``GB``, ``TB`` are powers of 1024, as OpenWhisk and the prototype's element files
use them, and so are ``KiB`` … ``TiB``, and the bare letters. A bare number is bytes.
"""

from __future__ import annotations

import re

from libd.errors import SizeError

__all__ = ["format_size", "lease_ms", "parse_size"]

_SIZE = re.compile(r"\s*(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?)\s*(?P<unit>[A-Za-z]*)\s*\Z")
_POWERS = {"": 0, "b": 0} | {
    prefix + suffix: power
    for power, prefix in enumerate("kmgtp", start=1)
    for suffix in ("", "b", "ib")
}


def parse_size(text: str | int) -> int:
    """Return the number of bytes that `text` names: ``"64 MB"``, ``"1.5GiB"``, ``"4096"``,
    ``4096``.

    Raises
    ------
    SizeError
        (a `ValueError`) if it is not a size, is negative, or is not a whole number of bytes.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise SizeError(f"a size cannot be negative: {text}")
        return text
    match = _SIZE.match(text) if isinstance(text, str) else None
    if match is None:
        raise SizeError(
            f"not a size in bytes: {text!r} (write for example '64 MB', '1.5 GiB' or 4096)"
        )
    power = _POWERS.get(match["unit"].lower())
    if power is None:
        raise SizeError(
            f"unknown unit {match['unit']!r} in size {text!r} (use B, KB, MB, GB, TB, KiB, MiB …)"
        )
    whole, _, fraction = match["number"].replace("_", "").partition(".")
    # Integers throughout: a float has too few digits for a large size.
    scale: int = 10 ** len(fraction)
    value, rest = divmod(int(whole + fraction) << (10 * power), scale)
    if rest and power == 0:
        raise SizeError(f"not a whole number of bytes: {text!r}")
    return value


def format_size(size: int) -> str:
    """Return `size` bytes as a short text for people: ``1536`` → ``"1.5 KiB"``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def lease_ms(lease: float | None) -> int:
    """Return a lease in ms as the protocol has it; 0 for none."""
    if lease is None:
        return 0
    if isinstance(lease, str) or not 0 < lease < 1e9:
        raise SizeError(f"a lease is a positive number of seconds, not {lease}")
    return max(int(lease * 1000), 1)
