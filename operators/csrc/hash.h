/* Hashes of values, not of widths: an int8 and a decimal128(38, 0) of one value have one hash.
 *
 * Words are mixed by folded 128-bit products, as in wyhash (Wang Yi, public domain): one multiplication each. The results
 * are the same on every machine. */
#ifndef SCAD_HASH_H
#define SCAD_HASH_H

#include "columns.h"

#define SCAD_NULL_HASH UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t scad_fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t scad_mix(uint64_t v) { return scad_fold(v ^ UINT64_C(0xa0761d6478bd642f), UINT64_C(0xe7037ed1a0b428db)); }

static inline uint64_t scad_hash_wide(uint64_t low, uint64_t high) {
    uint64_t h = scad_mix(low);
    /* A number that fits 64 bits hashes as if it were held in 64 bits. */
    if (high != (uint64_t)((int64_t)low >> 63)) h = scad_mix(h ^ (high * UINT64_C(0x9fb21c651e98df25)) ^ 1);
    return h;
}

static inline uint64_t scad_hash_double(double v) {
    uint64_t bits;
    if (v != v) return scad_mix(UINT64_C(0x7ff8000000000000));
    v += 0.0; /* -0.0 */
    memcpy(&bits, &v, 8);
    return scad_mix(bits);
}

static inline uint64_t scad_load(const uint8_t *p, int n) {
    uint64_t w = 0;
    memcpy(&w, p, (size_t)n);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

static inline uint64_t scad_hash_bytes(const uint8_t *p, int64_t n) {
    const uint64_t k0 = UINT64_C(0xa0761d6478bd642f), k1 = UINT64_C(0xe7037ed1a0b428db);
    uint64_t h = (uint64_t)n ^ k1, a, b;
    for (; n > 16; p += 16, n -= 16) h = scad_fold(scad_load(p, 8) ^ k0, scad_load(p + 8, 8) ^ h);
    if (n >= 8) {
        a = scad_load(p, 8);
        b = scad_load(p + n - 8, 8);
    } else if (n >= 4) {
        a = scad_load(p, 4);
        b = scad_load(p + n - 4, 4);
    } else {
        a = n > 0 ? (uint64_t)p[0] << 16 | (uint64_t)p[n >> 1] << 8 | p[n - 1] : 0;
        b = 0;
    }
    return scad_fold(a ^ k0, b ^ h);
}

/* `row` includes the piece's offset. */
static inline uint64_t scad_hash_valid(int kind, int width, const struct scad_piece *c, int64_t row) {
    uint64_t low, high;
    int64_t start, length;
    switch (kind) {
    case KIND_BOOL: return scad_mix((uint64_t)scad_bit(c->data, row));
    case KIND_SIGNED:
        switch (width) {
        case 1: return scad_mix((uint64_t)(int64_t)((const int8_t *)c->data)[row]);
        case 2: return scad_mix((uint64_t)(int64_t)((const int16_t *)c->data)[row]);
        case 4: return scad_mix((uint64_t)(int64_t)((const int32_t *)c->data)[row]);
        case 8: return scad_mix(((const uint64_t *)c->data)[row]);
        default:
            memcpy(&low, c->data + row * 16, 8);
            memcpy(&high, c->data + row * 16 + 8, 8);
            return scad_hash_wide(low, high);
        }
    case KIND_UNSIGNED:
        switch (width) {
        case 1: return scad_mix(c->data[row]);
        case 2: return scad_mix(((const uint16_t *)c->data)[row]);
        case 4: return scad_mix(((const uint32_t *)c->data)[row]);
        default: return scad_hash_wide(((const uint64_t *)c->data)[row], 0);
        }
    case KIND_FLOAT:
        return scad_hash_double(width == 4 ? (double)((const float *)c->data)[row] : ((const double *)c->data)[row]);
    case KIND_VAR32:
    case KIND_VAR64:
        length = scad_span(kind, c, row, &start);
        return scad_hash_bytes(c->data + start, length);
    case KIND_BYTES: return scad_hash_bytes(c->data + row * width, width);
    default: return SCAD_NULL_HASH;
    }
}

#endif
