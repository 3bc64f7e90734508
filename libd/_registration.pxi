"""Memory of this process that an RDMA device may reach.

A registration pins the pages that are mapped at an address now. If the address were mapped to other pages later, the device
would go on with the old ones and nobody would notice; so a registration lasts for as long as something is known to keep the
pages where they are, its owner:

- a `Buffer` (``trans.reg``): for its life;
- a NumPy array that owns its data, whatever view of it is passed; a `pyarrow.Buffer`: until it is collected. (From then on
  NumPy refuses to ``resize`` the array in place, as for any array with weak references.) Owners above 16 MiB of which less than a quarter is asked for are left alone: a
  registration is of the whole owner and makes all of its pages resident.

Memory of anything else (``bytes``, ``bytearray``, ``mmap``, arrays that lie in foreign memory) is registered for one operation
if it is longer than 64 KiB, and copied through registered memory of the transport otherwise.
"""

cdef uint64_t REGISTER_FROM = 16 << 10  # bytes; shorter transfers are copied, unless a Buffer is there
cdef uint64_t REGISTER_WHOLE = 16 << 20


@cython.final
cdef class Registration:
    cdef libd_local *local

    def __init__(self):
        raise TypeError("made by transports")

    def __dealloc__(self):
        if self.local is not NULL:
            with nogil:  # the pages of a large one take their time
                libd_local_release(self.local)


cdef inline libd_local *local_of(Registration registration):
    """What a transfer is told of the memory; the caller keeps the registration until it is over."""
    return NULL if registration is None else registration.local


cdef dict registrations = {}  # (domain, id of owner) -> (weak reference to the owner, Registration)
cdef object ndarray = None
cdef object arrow_buffer = None


cdef int find_types() except -1:
    global ndarray, arrow_buffer
    if ndarray is None and "numpy" in sys.modules:
        ndarray = getattr(sys.modules["numpy"], "ndarray", None)
    if arrow_buffer is None and "pyarrow.lib" in sys.modules:
        arrow_buffer = getattr(sys.modules["pyarrow.lib"], "Buffer", None)
    return 0


cdef object owner_of(obj):
    """What keeps the memory of `obj` where it is; None if nothing is known to."""
    while True:
        kind = type(obj)
        if kind is Buffer:
            return obj
        if kind is memoryview:
            obj = obj.obj
        elif kind is ndarray:
            base = obj.base
            if base is None:
                return obj if obj.flags.owndata else None
            obj = base
        elif kind is arrow_buffer and kind is not None:
            return obj
        else:
            return None


cdef Registration register(libd_domain *domain, void *data, uint64_t size):
    """Register memory; None if the device takes no more."""
    cdef Registration made = Registration.__new__(Registration)
    cdef libd_error err
    cdef int code
    with nogil:
        code = libd_local_register(domain, data, size, &made.local, &err)
    if code:
        made.local = NULL
        return None
    return made


cdef Registration registration_of(libd_domain *domain, obj, void *data, uint64_t size):
    """The registration that holds `size` bytes at `data`, the memory of `obj`; None if none may last."""
    cdef Py_buffer view
    cdef Registration found
    cdef bint fits
    if ndarray is None or arrow_buffer is None:
        find_types()
    owner = owner_of(obj)
    if owner is None:
        return None
    try:
        PyObject_GetBuffer(owner, &view, PyBUF_ANY_CONTIGUOUS)
    except (BufferError, ValueError):
        return None
    base, length = <size_t>view.buf, view.len
    PyBuffer_Release(&view)  # whoever called holds the memory
    fits = base <= <size_t>data and <size_t>data + size <= base + length
    if not fits or (length > REGISTER_WHOLE and size < length // 4):
        return None
    key = (<size_t>domain, id(owner))
    entry = registrations.get(key)
    if entry is not None and entry[0]() is owner:
        found = entry[1]
        if libd_local_holds(found.local, <void *><size_t>base, length):
            return found
    found = register(domain, <void *><size_t>base, length)
    if found is None and registrations:
        registrations.clear()  # what is in use stays registered
        found = register(domain, <void *><size_t>base, length)
    if found is not None:
        registrations[key] = (weakref.ref(owner, lambda gone: registrations.pop(key, None)), found)
    return found


class Registrations:
    """What was registered with the device of a transport.

    `live` and `bytes` are registrations that exist now, `made` counts the lasting ones that were made and `passing` those for
    one transfer: by all transports of this process to the device. `used` counts the ranges that this transport moved
    straight to or from a lasting one, `staged` those that it copied.
    """

    __slots__ = ("bytes", "live", "made", "passing", "staged", "used")

    def __init__(self, **values):
        for name, value in values.items():
            setattr(self, name, value)

    def __repr__(self):
        return "Registrations(" + ", ".join(f"{n}={getattr(self, n)}" for n in self.__slots__) + ")"
