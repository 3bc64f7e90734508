# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The native half of `operators.partition`: the scatter, and the layout of what it writes.

Batches come and go through the Arrow C data interface: no Python object is made per column or buffer. What is
expensive runs without the GIL, in C (``operators/csrc``).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cdef extern from "columns.h" nogil:
    int C_NULL "KIND_NULL"
    int C_BOOL "KIND_BOOL"
    int C_SIGNED "KIND_SIGNED"
    int C_UNSIGNED "KIND_UNSIGNED"
    int C_FLOAT "KIND_FLOAT"
    int C_BYTES "KIND_BYTES"
    int C_VAR32 "KIND_VAR32"
    int C_VAR64 "KIND_VAR64"
    struct scad_type:
        int kind
        int width
    struct scad_piece:
        const uint8_t *validity
        const uint8_t *offsets
        const uint8_t *data
        int64_t offset
        int64_t size
    bint scad_is_variable(int kind)

cdef extern from "layout.h" nogil:
    struct scad_place:
        int64_t validity, offsets, data
        int64_t validity_size, offsets_size, data_size
    int64_t scad_align(int64_t n)
    int64_t c_place "scad_place"(const scad_type *, int64_t, int64_t, int64_t, int64_t, scad_place *)
    struct ArrowArray:
        int64_t length, null_count, offset, n_buffers, n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept nogil
        void *private_data

cdef extern from *:
    """
    static inline int scad_drop(int *count) { return __atomic_sub_fetch(count, 1, __ATOMIC_ACQ_REL); }
    """
    int scad_drop(int *count) nogil

cdef extern from "scatter.h" nogil:
    int SCAD_REGISTERS
    struct scad_cell:
        uint8_t *validity
        uint8_t *offsets
        uint8_t *data
        int64_t nulls, bytes, used, least, most
    struct scad_sketch:
        uint8_t registers[128]
    struct scad_ranges:
        int64_t count
        const scad_piece *keys
        const uint8_t *descending
        const uint8_t *nulls_first
        const int64_t *ranks
    struct scad_ahead:
        const uint8_t *data
        int width
    int64_t scad_block_rows(int64_t partitions)
    void scad_assign_hash(const scad_type *, const scad_piece *const *, int, int64_t, int64_t, uint16_t *, int64_t *)
    void scad_assign_ranges(const scad_type *, const scad_piece *const *, int, int64_t, int64_t, const scad_ranges *,
                            uint16_t *, int64_t *)
    int64_t scad_rank(const scad_type *, const scad_piece *, int64_t, bint, bint)
    int64_t scad_measure(const scad_type *, const scad_piece *, int64_t, const uint16_t *, scad_cell *)
    void scad_sort_block(const uint16_t *, int, int64_t, uint16_t *, uint32_t *)
    void scad_put(const scad_type *, const scad_piece *, int64_t, int, int64_t, const uint16_t *, const uint32_t *,
                  const int64_t *, scad_cell *, bint, const scad_ahead *)
    int64_t c_sketch "scad_sketch"(const scad_type *, const scad_piece *, int64_t, int, bint, scad_sketch *)
    void scad_fence()

KIND_NULL, KIND_BOOL, KIND_SIGNED, KIND_UNSIGNED = C_NULL, C_BOOL, C_SIGNED, C_UNSIGNED
KIND_FLOAT, KIND_BYTES, KIND_VAR32, KIND_VAR64 = C_FLOAT, C_BYTES, C_VAR32, C_VAR64

cdef int64_t INT64_MAX = 0x7fffffffffffffff
cdef int64_t INT64_MIN = -INT64_MAX - 1
# Until so many rows were seen, all of them enter the sketches; then a sample.
cdef int64_t SKETCH_ALL = 16384


cdef void *_alloc(size_t count, size_t size) except NULL:
    cdef void *p = calloc(count if count else 1, size)
    if p == NULL:
        raise MemoryError(f"{count * size} bytes for partitioning")
    return p


cdef void *_grown(void *old, size_t size) except NULL:
    cdef void *p = realloc(old, size if size else 1)
    if p == NULL:
        raise MemoryError(f"{size} bytes for partitioning")
    return p


cdef scad_type *_types(kinds, widths) except NULL:
    cdef int c
    cdef scad_type *types = <scad_type *>_alloc(len(kinds), sizeof(scad_type))
    for c, (kind, width) in enumerate(zip(kinds, widths)):
        types[c].kind, types[c].width = kind, width
    return types


cdef int _pieces(ArrowArray *array, const scad_type *types, int n_columns, scad_piece *pieces) except -1:
    """The buffers of a struct array's children."""
    cdef int c
    cdef int64_t n = array.length, at
    cdef ArrowArray *child
    cdef scad_piece *piece
    if array.n_children != n_columns:
        raise ValueError(f"{n_columns} columns, but a batch of {array.n_children}")
    for c in range(n_columns):
        child, piece = array.children[c], &pieces[c]
        memset(piece, 0, sizeof(scad_piece))
        if types[c].kind == C_NULL or not n:
            continue
        if child.n_buffers != (3 if scad_is_variable(types[c].kind) else 2):
            raise ValueError(f"column {c}: {child.n_buffers} buffers are not those of its type")
        at = piece.offset = child.offset + array.offset
        piece.validity = <const uint8_t *>child.buffers[0] if child.null_count else NULL
        if scad_is_variable(types[c].kind):
            piece.offsets, piece.data = <const uint8_t *>child.buffers[1], <const uint8_t *>child.buffers[2]
            if types[c].kind == C_VAR32:
                piece.size = (<const int *>piece.offsets)[at + n]
            else:
                piece.size = (<const int64_t *>piece.offsets)[at + n]
        else:
            piece.data = <const uint8_t *>child.buffers[1]
            piece.size = (at + n) * types[c].width
    return 0


include "_scatter.pxi"
include "_layout.pxi"
