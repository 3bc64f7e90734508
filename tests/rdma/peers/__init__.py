"""Independent peers of libd over RDMA: a client and a memory server on Debian's pyverbs.

Written from docs/libd-protocol.md, with nothing of libd in them, so that libd is tested against
something that does not share its mistakes.
"""
