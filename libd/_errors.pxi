"""Return codes become exceptions, here and nowhere else."""

cdef int check_signals() noexcept nogil:
    with gil:
        return PyErr_CheckSignals()


cdef int reraise() except -1:
    return -1  # a signal handler has set the exception


cdef capacity_text(libd_error *err):
    have = format_size(err.have)
    if err.detail == LIBD_CAP_ELEMENT:
        return f"the element's limit has {have} left; raise limits.mem or free regions"
    if err.detail == LIBD_CAP_TENANT:
        return f"the tenant's quota has {have} left; raise the quota or free regions"
    if err.detail == LIBD_CAP_SERVER:
        return f"the memory server has {have} left; start it with a larger --size or free memory"
    if err.detail == LIBD_CAP_MACHINE:
        return f"this machine (or its memory cgroup) can promise {have} more"
    if err.detail == LIBD_CAP_TENANTS:
        return f"a memory server has at most {err.have} tenants; drop some, or start another"
    if err.detail == LIBD_CAP_CONNECTIONS:
        return (
            f"the tenant has {err.have} connections, and the memory server no more for it: close some, or raise its limit "
            "of open files (ulimit -n)"
        )
    if err.detail == LIBD_CAP_DEVICE:
        return "the RDMA device can register no more memory (raise the limit of locked memory, ulimit -l, or free some)"
    if err.detail == LIBD_CAP_FRAGMENTED:
        return f"the largest free piece is {have}; free or ask for less at a time"
    return "the tenant has no region numbers left; free regions"


cdef closed_text(libd_error *err):
    if err.detail == 0:
        return "the transport is closed"
    if err.detail == 1:
        return "the transport belongs to the parent process; open a new one after fork"
    if err.detail == 5:
        return "the connection was given up, because a signal interrupted another call that used it"
    if err.detail == 4:
        return "the memory server is stopping"
    reason = f" ({os.strerror(err.have)})" if err.have else ""
    if err.detail == 3:
        return f"no memory server can be reached there{reason}"
    return f"the memory server closed the connection or is gone{reason}"


cdef unsupported_text(uint64_t lack):
    if lack == LIBD_LACK_DOMAIN:
        return (
            "words of this region are changed atomically on the other side of the fence: a region allocated with "
            'atomics="nic" by RDMA transports only, every other by the CPU'
        )
    if lack == LIBD_LACK_BUILD:
        return "libd was built without verbs; install libibverbs-dev and build it again"
    if lack == LIBD_LACK_LIBRARY:
        return "libibverbs.so.1 is not installed (Debian: libibverbs1, ibverbs-providers)"
    if lack == LIBD_LACK_DEVICE:
        return "this machine has no such RDMA device"
    if lack == LIBD_LACK_SERVER:
        return "the memory server has no RDMA device"
    if lack == LIBD_LACK_WAY:
        return "nothing gets from this machine's RDMA device to the memory server's: are they on one network?"
    return "this transport cannot do that"


cdef int raise_error(libd_error *err, what) except -1:
    """Raise what `err` means; `what` says which transport, element and addresses were concerned."""
    code = err.code
    if code == LIBD_ESIGNAL:
        return reraise()
    if code == LIBD_ECLOSED:
        raise errors.TransportClosedError(f"{what}: {closed_text(err)}")
    if code == LIBD_ETIMEOUT:
        raise errors.TransportTimeoutError(f"{what}: the memory server does not answer in time")
    if code == LIBD_EAUTH and err.detail == LIBD_STRANGER:
        raise errors.AuthError(f"{what}: that socket is of user {err.have}, not of this one, and was shown no token")
    if code == LIBD_EAUTH:
        raise errors.AuthError(f"{what}: the memory server refused the token")
    if code == LIBD_EBOUNDS:
        inside = f" of {format_size(err.detail)} ({err.detail} bytes)" if err.detail else ""
        raise BoundsError(f"{what}: outside of the region{inside}")
    if code == LIBD_ECAP:
        raise CapabilityError(f"{what}: this key or connection does not open that element")
    if code == LIBD_ESTALE and err.have == 1:
        raise StaleRefError(
            f"{what}: the memory server was restarted, or the element dropped, since this transport was opened; what it "
            "referred to is gone: open another transport"
        )
    if code == LIBD_ESTALE:
        raise StaleRefError(f"{what}: the region was freed or replaced since (its memory may hold other data now)")
    if code == LIBD_ECAPACITY:
        raise errors.CapacityError(f"{what}: {capacity_text(err)}")
    if code == LIBD_EUNSUPPORTED:
        raise errors.UnsupportedError(f"{what}: {unsupported_text(err.detail)}")
    if code == LIBD_EPROTO:
        raise errors.ProtocolError(f"{what}: the other side does not speak libd's protocol")
    if code == LIBD_EVERSION:
        raise errors.ProtocolError(
            f"{what}: the memory server speaks protocol version {err.detail}, this libd speaks {LIBD_VERSION}"
        )
    if code == LIBD_EEXIST:
        raise errors.LibdError(f"{what}: exists already")
    if code == LIBD_ENOENT:
        raise errors.LibdError(f"{what}: there is no such thing on this memory server")
    if code == LIBD_EINVAL:
        raise errors.LibdError(f"{what}: not possible with these arguments")
    if code == LIBD_ENOMEM:
        raise errors.CapacityError(f"{what}: out of memory")
    if code == LIBD_ESYS:
        raise errors.LibdError(f"{what}: {os.strerror(err.detail)}") from OSError(err.detail, os.strerror(err.detail))
    raise errors.LibdError(f"{what}: error {code}")


libd_check_signals = check_signals
