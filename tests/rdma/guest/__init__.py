"""A guest with Soft-RoCE: real RDMA verbs on machines without an RDMA device.

docs/rdma-testing.md tells how to use it. QEMU emulates a machine that boots Debian's kernel with
this machine's own files as its root; what the guest writes stays in its memory. Not covered: the
verbs themselves, and any kernel but Debian's.
"""
