/* Where the buffers of a part are: a function of its rows, nulls and string bytes, so that a handle need not list them.
 *
 * Column after column: validity (only if there are nulls), offsets (strings), data; each at a multiple of 64 bytes. */
#ifndef SCAD_LAYOUT_H
#define SCAD_LAYOUT_H

#include "columns.h"

#define SCAD_ALIGN 64

struct scad_place {
    int64_t validity, offsets, data;                /* from the start of the part */
    int64_t validity_size, offsets_size, data_size; /* in bytes; 0: there is none */
};

static inline int64_t scad_align(int64_t n) { return (n + SCAD_ALIGN - 1) & -(int64_t)SCAD_ALIGN; }

/* The place of a column that starts at `at`, a multiple of 64; returns where the next one starts. */
static inline int64_t scad_place(const struct scad_type *type, int64_t rows, int64_t nulls, int64_t bytes, int64_t at,
                                 struct scad_place *place) {
    bool there = rows && type->kind != KIND_NULL;
    place->validity_size = there && nulls ? (rows + 7) / 8 : 0;
    place->offsets_size = there && scad_is_variable(type->kind) ? (rows + 1) * (type->kind == KIND_VAR32 ? 4 : 8) : 0;
    place->data_size = !there ? 0 : scad_is_variable(type->kind) ? bytes : type->kind == KIND_BOOL ? (rows + 7) / 8 : rows * type->width;
    place->validity = at;
    place->offsets = place->validity + scad_align(place->validity_size);
    place->data = place->offsets + scad_align(place->offsets_size);
    return place->data + scad_align(place->data_size);
}

/* The Arrow C data interface (https://arrow.apache.org/docs/format/CDataInterface.html). */
#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#endif

#endif
