/* Scattering rows into partitions: which row goes where, how much room each part needs, and the copying.
 *
 * Rows are taken in blocks. Within a block the row numbers are sorted by partition (a counting sort), once for all
 * columns; then every column is gathered partition by partition. What is read stays in the first- or second-level
 * cache, and what is written are runs of whole cache lines, which bypass the caches where the output is large. */
#ifndef SCAD_SCATTER_H
#define SCAD_SCATTER_H

#include "columns.h"

#define SCAD_LEAST_BLOCK 4096
#define SCAD_MOST_BLOCK 65536
#define SCAD_REGISTERS 128

/* What is known of one column in one partition. Exactly one cache line. */
struct scad_cell {
    uint8_t *validity, *offsets, *data; /* where its buffers are; NULL if empty */
    int64_t nulls;
    int64_t bytes;        /* of strings */
    int64_t used;         /* of them, written so far */
    int64_t least, most;  /* as numbers of the same order (see scatter.c); least > most: no value */
};

/* A HyperLogLog of one column, over a sample of the rows. */
struct scad_sketch {
    uint8_t registers[SCAD_REGISTERS];
};

/* Boundaries of a range partitioning: rows of the key columns, in order. */
struct scad_ranges {
    int64_t count;
    const struct scad_piece *keys; /* per key column */
    const uint8_t *descending, *nulls_first;
    const int64_t *ranks; /* of the first key, ascending */
};

int64_t scad_block_rows(int64_t partitions);

/* Partition numbers of a batch by hash; adds to `rows` per partition. */
void scad_assign_hash(const struct scad_type *types, const struct scad_piece *const *keys, int n_keys, int64_t n,
                      int64_t partitions, uint16_t *pid, int64_t *rows);

/* The same by ranges: partition `i` holds what is not before boundary `i - 1` and before boundary `i`. */
void scad_assign_ranges(const struct scad_type *types, const struct scad_piece *const *keys, int n_keys, int64_t n,
                        const struct scad_ranges *ranges, uint16_t *pid, int64_t *rows);

/* A number in whose order the first keys of rows and boundaries stand: smaller means before, equal means look. */
int64_t scad_rank(const struct scad_type *type, const struct scad_piece *c, int64_t row, bool descending, bool nulls_first);

/* Nulls and bytes of strings per partition of one column of a batch; returns the nulls. `pid` NULL: one partition. */
int64_t scad_measure(const struct scad_type *type, const struct scad_piece *c, int64_t n, const uint16_t *pid,
                     struct scad_cell *cells);

/* Row numbers of a block in the order of their partitions; `starts` gets `partitions + 1` positions and needs room for
 * four times as many more. */
void scad_sort_block(const uint16_t *pid, int n, int64_t partitions, uint16_t *order, uint32_t *starts);

/* What is read after the current column of a block: brought nearer meanwhile. */
struct scad_ahead {
    const uint8_t *data; /* NULL: nothing */
    int width;           /* bytes per row */
};

/* One column of a block, `from` being its first row in the batch and `at` the rows that each partition has already.
 * `order` NULL: one partition. `stream`: bypass the caches. */
void scad_put(const struct scad_type *type, const struct scad_piece *c, int64_t from, int n, int64_t partitions,
              const uint16_t *order, const uint32_t *starts, const int64_t *at, struct scad_cell *cells, bool stream,
              const struct scad_ahead *ahead);

/* Adds a block of one column to a sketch, all rows or a random one of 32 each; returns how many rows were used. */
int64_t scad_sketch(const struct scad_type *type, const struct scad_piece *c, int64_t from, int n, bool all,
                    struct scad_sketch *sketch);

/* After the last `scad_put` and before anybody is told. */
void scad_fence(void);

#endif
