"""The tests. A package, so that `python -m tests.rdma.guest` means this one."""
