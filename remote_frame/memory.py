"""How an element's memory is divided between the worker and its kernel.

A worker holds its interpreter, libraries and stacks before it has read a row. The kernel's own
limit counts its buffers and hash tables, but not what it decodes Parquet into or keeps of freed
blocks: part of the rest stays free for that.
"""

from __future__ import annotations

__all__ = ["WORKER", "element_memory", "kernel_memory"]

WORKER = 96 << 20
"""Bytes that a warm worker holds between elements."""

# Of what the worker leaves, the share that the kernel may count as its own.
_SHARE = 0.75
# However small the element is: less, and the kernel cannot scan a table.
_LEAST = 32 << 20


def kernel_memory(element: int) -> int:
    """The kernel's limit in an element that may hold `element` bytes."""
    return max(int((element - WORKER) * _SHARE), _LEAST)


def element_memory(kernel: int) -> int:
    """What an element has to be allowed for its kernel to have `kernel` bytes; the inverse of
    `kernel_memory`.
    """
    return WORKER + int(max(kernel, _LEAST) / _SHARE)
