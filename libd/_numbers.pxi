"""Numbers of callers, checked before C would truncate them."""

cdef uint64_t as_u64(value, what) except? 0:
    cdef int overflow = 1
    cdef long long fast = -1
    if type(value) is int:
        fast = PyLong_AsLongLongAndOverflow(value, &overflow)
    if not overflow and fast >= 0:
        return fast
    number = index(value)
    if not 0 <= number < 1 << 64:
        raise BoundsError(f"{what} {number} is not a 64-bit number")
    return number


cdef uint64_t as_word(value) except? 0:
    number = index(value)
    if not -(1 << 63) <= number < 1 << 64:
        raise BoundsError(f"{number} does not fit into a 64-bit word")
    return number & ((1 << 64) - 1)


cdef uint64_t as_lease(lease) except? 0:
    return lease_ms(lease)
