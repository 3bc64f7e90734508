/* `scad_scan(id)`: a DuckDB table function over Arrow record batches in memory.
 *
 * What it has over DuckDB's own Arrow scan: an exact cardinality for the optimizer (without which
 * hash tables are built on the big side), only the columns that are read, and no lock and no Python
 * between threads and their rows. Sets of keys can tell it which rows matter; DuckDB's own filters
 * are not pushed into it.
 */
#ifndef SCAD_SCAN_H
#define SCAD_SCAN_H

#include "arrow_abi.h"

#include <stdbool.h>

struct scan_table; /* counted: one reference is Python's, one each bound statement's */

/* Take over `n` batches (struct arrays) of one schema. NULL with a reason where a column's type is
 * none that is scanned here, or memory is out; the batches stay the caller's then. */
struct scan_table *scan_table_new(const struct ArrowSchema *schema, struct ArrowArray **batches,
                                  int64_t n, const char **reason);
/* Least and greatest value of a column of integers or dates, before the table is read. */
void scan_table_range(struct scan_table *table, int64_t column, int64_t low, int64_t high);
/* Give only rows whose value in a column of signed integers is among the `span` values from `low`
 * whose bits are set; before the table is read. False if that is not possible. */
bool scan_table_keep(struct scan_table *table, int64_t column, int64_t low, int64_t span,
                     const uint8_t *bits);
int64_t scan_table_id(const struct scan_table *table);
void scan_table_release(struct scan_table *table);
/* No new statement finds the table any more. */
void scan_table_close(struct scan_table *table);

#endif
