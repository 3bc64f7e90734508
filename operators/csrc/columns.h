/* How the partition kernel sees Arrow columns: kinds of values, and addresses of buffers. */
#ifndef SCAD_COLUMNS_H
#define SCAD_COLUMNS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum scad_kind { KIND_NULL, KIND_BOOL, KIND_SIGNED, KIND_UNSIGNED, KIND_FLOAT, KIND_BYTES, KIND_VAR32, KIND_VAR64 };

struct scad_type {
    int kind;
    int width; /* bytes per value of fixed-width kinds, else 0 */
};

/* One column of one batch. */
struct scad_piece {
    const uint8_t *validity; /* NULL: no nulls */
    const uint8_t *offsets;  /* variable width only */
    const uint8_t *data;
    int64_t offset; /* Arrow's array offset, in rows */
    int64_t size;   /* bytes that may be read at `data` */
};

/* Loops that the compiler turns into SIMD code. The best clone is chosen when the module is loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define SCAD_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define SCAD_CLONES
#endif

static inline bool scad_is_variable(int kind) { return kind == KIND_VAR32 || kind == KIND_VAR64; }

static inline bool scad_bit(const uint8_t *bits, int64_t i) { return (bits[i >> 3] >> (i & 7)) & 1; }

static inline bool scad_valid(const struct scad_piece *c, int64_t row) { return !c->validity || scad_bit(c->validity, row); }

/* Where the value of `row` starts in `data`, and how many bytes it has. `row` includes the piece's offset. */
static inline int64_t scad_span(int kind, const struct scad_piece *c, int64_t row, int64_t *start) {
    if (kind == KIND_VAR32) {
        const int32_t *o = (const int32_t *)c->offsets + row;
        *start = o[0];
        return (int64_t)o[1] - o[0];
    }
    const int64_t *o = (const int64_t *)c->offsets + row;
    *start = o[0];
    return o[1] - o[0];
}

/* The first eight bytes as a number whose order is that of the bytes; short values end in zeros. */
static inline uint64_t scad_prefix(const uint8_t *p, int64_t n, int64_t readable) {
    uint64_t w = 0;
    if (readable >= 8)
        memcpy(&w, p, 8);
    else if (n > 0)
        memcpy(&w, p, (size_t)(n < 8 ? n : 8));
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return n >= 8 ? w : n > 0 ? w & (~UINT64_C(0) << (64 - 8 * n)) : 0;
}

/* Floats as integers of the same order. NaNs are made one, above infinity; -0.0 goes with 0.0. */
static inline int64_t scad_ordered_double(double v) {
    int64_t bits;
    if (v != v) return INT64_C(0x7ff8000000000000);
    v += 0.0;
    memcpy(&bits, &v, 8);
    return bits ^ (int64_t)((uint64_t)(bits >> 63) >> 1);
}

#endif
