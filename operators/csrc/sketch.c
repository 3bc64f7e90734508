/* Distinct estimates: a HyperLogLog of 128 registers per column, 9 % of standard error, fed with a sample of the rows.
 * (P. Flajolet, É. Fusy, O. Gandouet, F. Meunier, "HyperLogLog", 2007.) */
#include "hash.h"
#include "scatter.h"

#define STRIDE 32

static void add(uint64_t h, struct scad_sketch *s) {
    /* One product spreads rows over partitions; bits that must be independent need another. */
    h = scad_mix(h);
    unsigned which = (unsigned)(h & (SCAD_REGISTERS - 1));
    uint64_t rest = h >> 7;
    uint8_t rank = rest ? (uint8_t)(__builtin_ctzll(rest) + 1) : 58;
    if (rank > s->registers[which]) s->registers[which] = rank;
}

int64_t scad_sketch(const struct scad_type *type, const struct scad_piece *c, int64_t from, int n, bool all,
                    struct scad_sketch *sketch) {
    int64_t row = c->offset + from, used = 0;
    if (type->kind == KIND_NULL) return n;
    /* One row of every stripe, which one is random: neighbours are often alike. */
    uint32_t random = (uint32_t)(from * 2654435761u + 12345);
    for (int i = 0; i < n; i += all ? 1 : STRIDE) {
        int64_t k = i;
        if (!all) {
            random = random * 1664525u + 1013904223u;
            k += random >> 27;
            if (k >= n) break;
        }
        used++;
        if (scad_valid(c, row + k)) add(scad_hash_valid(type->kind, type->width, c, row + k), sketch);
    }
    return used;
}
