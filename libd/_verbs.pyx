"""RDMA devices of this machine, as libibverbs lists them. Built only where its headers are."""

from libc.stdint cimport uint64_t

cdef extern from "<infiniband/verbs.h>" nogil:
    struct ibv_device:
        pass

    struct ibv_context:
        pass

    struct ibv_device_attr:
        char fw_ver[64]
        uint64_t max_mr_size
        int max_qp
        int max_mr
        unsigned char phys_port_cnt

    ibv_device **ibv_get_device_list(int *count)
    void ibv_free_device_list(ibv_device **devices)
    const char *ibv_get_device_name(ibv_device *device)
    ibv_context *ibv_open_device(ibv_device *device)
    int ibv_close_device(ibv_context *context)
    int ibv_query_device(ibv_context *context, ibv_device_attr *attributes)


def devices():
    """List the RDMA devices.

    Returns
    -------
    list of dict
        For each device its ``name``, and if it can be opened ``firmware``, ``ports``, ``max_mr_size`` (bytes), ``max_mr``
        and ``max_qp``; if not, ``error``.
    """
    cdef int count = 0, i
    cdef ibv_context *context
    cdef ibv_device_attr attributes
    cdef ibv_device **found = ibv_get_device_list(&count)
    result = []
    if found is NULL:
        return result  # no RDMA subsystem in this kernel
    try:
        for i in range(count):
            about = {"name": ibv_get_device_name(found[i]).decode()}
            context = ibv_open_device(found[i])
            if context is NULL:
                about["error"] = "cannot be opened"
            else:
                if ibv_query_device(context, &attributes) == 0:
                    about["firmware"] = attributes.fw_ver.decode(errors="replace")
                    about["ports"] = attributes.phys_port_cnt
                    about["max_mr_size"] = attributes.max_mr_size
                    about["max_mr"] = attributes.max_mr
                    about["max_qp"] = attributes.max_qp
                else:
                    about["error"] = "cannot be queried"
                ibv_close_device(context)
            result.append(about)
    finally:
        ibv_free_device_list(found)
    return result
