"""Reading: where the buffers of a part are, and Arrow columns over them."""

cdef int64_t _no_strings = 0  # The offsets of a column of strings without rows.


cdef class Layout:
    """Where the buffers of some columns of a part are, and the columns over those buffers.

    Parameters
    ----------
    kinds, widths
        As for `Scatter`, of all columns of the part.
    columns
        Positions of the columns that are wanted, in any order.
    """

    cdef int n_columns, n_wanted
    cdef scad_type *types
    cdef int *wanted
    cdef uint8_t *is_wanted

    def __cinit__(self, kinds, widths, columns):
        cdef int i
        self.n_columns, self.n_wanted = len(kinds), len(columns)
        self.types = _types(kinds, widths)
        self.wanted = <int *>_alloc(self.n_wanted, sizeof(int))
        self.is_wanted = <uint8_t *>_alloc(self.n_columns, 1)
        for i in range(self.n_wanted):
            if not 0 <= columns[i] < self.n_columns:
                raise IndexError(f"column {columns[i]} of {self.n_columns}")
            self.wanted[i] = columns[i]
            self.is_wanted[self.wanted[i]] = 1

    def __dealloc__(self):
        free(self.types)
        free(self.wanted)
        free(self.is_wanted)

    cdef scad_place *_places(self, int64_t rows, nulls, strings, int64_t *size) except NULL:
        cdef int c, v = 0
        cdef int64_t at = 0, bytes_
        cdef scad_place *places = <scad_place *>_alloc(self.n_columns, sizeof(scad_place))
        try:
            if rows < 0 or rows > (<int64_t>1 << 40) or len(nulls) != self.n_columns:
                raise ValueError(f"{rows} rows with {len(nulls)} counts of nulls for {self.n_columns} columns")
            for c in range(self.n_columns):
                bytes_ = 0
                if scad_is_variable(self.types[c].kind):
                    bytes_ = strings[v]
                    v += 1
                    if bytes_ < 0 or bytes_ > (<int64_t>1 << 40):
                        raise ValueError(f"column {c}: {bytes_} bytes of strings")
                at = c_place(&self.types[c], rows, nulls[c], bytes_, at, &places[c])
            if v != len(strings):
                raise ValueError(f"{len(strings)} lengths for {v} columns of strings")
        except BaseException:
            free(places)
            raise
        size[0] = at
        return places

    def size(self, int64_t rows, nulls, strings):
        """Bytes of a part."""
        cdef int64_t size
        free(self._places(rows, nulls, strings, &size))
        return size

    def spans(self, int64_t rows, nulls, strings):
        """The wanted bytes of a part as ``(offset, length)``, neighbours together, in ascending order."""
        cdef int64_t size, first = 0, end = 0, start
        cdef int c
        cdef scad_place *places = self._places(rows, nulls, strings, &size)
        found = []
        for c in range(self.n_columns):
            start = places[c].validity
            if not self.is_wanted[c] or not (places[c].offsets_size or places[c].data_size):
                continue
            if start != scad_align(end) or not end:
                if end:
                    found.append((first, end - first))
                first = start
            end = places[c].data + places[c].data_size
        if end:
            found.append((first, end - first))
        free(places)
        return found

    def columns(self, int64_t rows, nulls, strings, spans, views):
        """The wanted columns as a capsule (``arrow_array``) of a struct array, which keeps the views alive.

        Parameters
        ----------
        rows, nulls, strings
            As in the part.
        spans
            What `spans` gave.
        views
            A buffer for each, of at least its length.

        Raises
        ------
        ValueError
            If the bytes are no such columns.
        """
        cdef int64_t size, at, null_count
        cdef int i, c, s
        cdef int n_spans = len(spans)
        cdef scad_place *places = self._places(rows, nulls, strings, &size)
        cdef uint8_t **bases = NULL
        cdef int64_t *firsts = NULL
        cdef Py_buffer *held = NULL
        cdef ArrowArray *array = NULL
        cdef ArrowArray *child
        cdef scad_piece piece
        cdef scad_place *place
        cdef uint8_t *base
        views = list(views)
        try:
            array = _new_array(self.n_wanted, n_spans)
            held = (<_Held *>array.private_data).views
            bases = <uint8_t **>_alloc(n_spans, sizeof(void *))
            firsts = <int64_t *>_alloc(n_spans, sizeof(int64_t))
            for s in range(n_spans):
                PyObject_GetBuffer(views[s], &held[s], PyBUF_SIMPLE)
                (<_Held *>array.private_data).taken += 1
                if held[s].len < spans[s][1]:
                    raise ValueError(f"{spans[s][1]} bytes are needed, {held[s].len} given")
                bases[s], firsts[s] = <uint8_t *>held[s].buf, spans[s][0]
            array.length = rows
            for i in range(self.n_wanted):
                c = self.wanted[i]
                place, child = &places[c], array.children[i]
                child.length = rows
                child.null_count = rows if self.types[c].kind == C_NULL else nulls[c]
                if self.types[c].kind == C_NULL:
                    child.n_buffers = 0
                    continue
                child.n_buffers = 3 if scad_is_variable(self.types[c].kind) else 2
                if not place.offsets_size and not place.data_size:
                    if child.n_buffers == 3:
                        child.buffers[1] = &_no_strings
                    continue
                # The last span that starts before the column.
                s = _span_of(firsts, n_spans, place.validity)
                base = bases[s] - firsts[s]
                child.buffers[0] = base + place.validity if place.validity_size else NULL
                if child.n_buffers == 2:
                    child.buffers[1] = base + place.data
                    continue
                child.buffers[1] = base + place.offsets
                child.buffers[2] = base + place.data
                _check_offsets(&self.types[c], base + place.offsets, rows, place.data_size)
            return PyCapsule_New(array, "arrow_array", _drop_capsule)
        except BaseException:
            if array != NULL:
                array.release(array)
                free(array)
            raise
        finally:
            free(places)
            free(bases)
            free(firsts)


cdef int _span_of(const int64_t *firsts, int count, int64_t at) noexcept:
    cdef int low = 0, high = count, middle
    while high - low > 1:
        middle = (low + high) // 2
        if firsts[middle] <= at:
            low = middle
        else:
            high = middle
    return low


cdef int _check_offsets(const scad_type *type, const uint8_t *offsets, int64_t rows, int64_t size) except -1:
    cdef int64_t first, last
    if type.kind == C_VAR32:
        first, last = (<const int *>offsets)[0], (<const int *>offsets)[rows]
    else:
        first, last = (<const int64_t *>offsets)[0], (<const int64_t *>offsets)[rows]
    if first != 0:
        raise ValueError("the first offset of a string column is not 0")
    if last != size:
        raise ValueError(f"the last offset of a string column is {last}, but it has {size} bytes")
    return 0


# A struct array over buffers of Python objects. The consumer may move the children out of their parent and keep them
# longer, so that parent and children share what they point to.
ctypedef struct _Held:
    int users
    int taken
    ArrowArray *children
    ArrowArray **pointers
    const void **buffers
    Py_buffer *views


cdef ArrowArray *_new_array(int n_columns, int n_views) except NULL:
    cdef int i
    cdef ArrowArray *array = <ArrowArray *>calloc(1, sizeof(ArrowArray))
    cdef _Held *held = <_Held *>calloc(1, sizeof(_Held))
    if array == NULL or held == NULL:
        free(array)
        free(held)
        raise MemoryError("an array over remote memory")
    held.users = 1
    held.children = <ArrowArray *>calloc(n_columns + 1, sizeof(ArrowArray))
    held.pointers = <ArrowArray **>calloc(n_columns + 1, sizeof(void *))
    held.buffers = <const void **>calloc(3 * n_columns + 1, sizeof(void *))
    held.views = <Py_buffer *>calloc(n_views + 1, sizeof(Py_buffer))
    array.private_data, array.release = held, _release
    if held.children == NULL or held.pointers == NULL or held.buffers == NULL or held.views == NULL:
        _release(array)
        free(array)
        raise MemoryError("an array over remote memory")
    array.n_buffers, array.n_children = 1, n_columns
    array.buffers = held.buffers + 3 * n_columns  # The struct's own validity: none.
    array.children = held.pointers
    held.users += n_columns
    for i in range(n_columns):
        held.pointers[i] = &held.children[i]
        held.children[i].buffers = held.buffers + 3 * i
        held.children[i].private_data, held.children[i].release = held, _release
    return array


cdef void _release(ArrowArray *array) noexcept nogil:
    """Of the struct array and of each child."""
    cdef _Held *held = <_Held *>array.private_data
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i].release != NULL:
            array.children[i].release(array.children[i])
    array.release = NULL
    if scad_drop(&held.users):
        return
    if held.taken:
        with gil:
            for i in range(held.taken):
                PyBuffer_Release(&held.views[i])
    free(held.children)
    free(held.pointers)
    free(held.buffers)
    free(held.views)
    free(held)


cdef void _drop_capsule(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)
