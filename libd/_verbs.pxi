"""RDMA devices of this machine."""

cdef dict port_states = {1: "down", 2: "initializing", 3: "armed", 4: "active", 5: "active (deferred)"}
cdef tuple atomic_domains = ("none", "device", "global")


cdef dict describe_port(libd_verbs_port *port):
    return {
        "number": port.number,
        "state": port_states.get(port.state, "unknown"),
        "mtu": port.mtu,
        "lid": port.lid,
        "link_layer": "Ethernet" if port.ethernet else "InfiniBand",
        "gids": [
            {
                "index": port.gids[i].index,
                "gid": str(IPv6Address((<char *>port.gids[i].raw)[:16])),
                "type": (<bytes>port.gids[i].type).decode(errors="replace"),
            }
            for i in range(port.gid_count)
        ],
    }


def rdma_devices():
    """List the RDMA devices.

    Returns
    -------
    list of dict
        For each device its ``name``, and if it can be opened ``firmware``, ``ports`` (how many), ``max_mr_size`` (bytes),
        ``max_mr``, ``max_qp``, ``max_reads`` (under way at a time), ``atomics`` (``none``; ``device``: atomic among RDMA
        operations of the device; ``global``: with the CPU too) and ``port`` (a list: ``number, state, mtu, lid, link_layer,
        gids``); if not, ``error``.

    Raises
    ------
    UnsupportedError
        if libd was built without verbs, or libibverbs is not installed.
    """
    cdef libd_verbs_device *found
    cdef libd_verbs_device *device
    cdef size_t count, i
    cdef unsigned n
    cdef libd_error err
    cdef int code
    with nogil:
        code = libd_verbs_devices(&found, &count, &err)
    if code:
        raise_error(&err, "RDMA devices")
    result = []
    try:
        for i in range(count):
            device = &found[i]
            about = {"name": (<bytes>device.name).decode(errors="replace")}
            if device.error:
                about["error"] = os.strerror(device.error)
            else:
                about["firmware"] = (<bytes>device.firmware).decode(errors="replace")
                about["ports"] = device.ports
                about["max_mr_size"] = device.max_mr_size
                about["max_mr"] = device.max_mr
                about["max_qp"] = device.max_qp
                about["max_reads"] = device.max_reads
                about["atomics"] = atomic_domains[device.atomics if device.atomics < 3 else 0]
                about["port"] = [describe_port(&device.port[n]) for n in range(min(device.ports, <unsigned>LIBD_VERBS_PORTS))]
            result.append(about)
    finally:
        free(found)
    return result
