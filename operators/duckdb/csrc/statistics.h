/* Least and greatest values of columns, for DuckDB's optimizer.
 *
 * DuckDB's C interface lets a table function tell its rows, but not the ranges of its columns.
 * Without them there are no perfect hash joins and no perfect hash aggregates: four times the CPU
 * for a join of a fact table with an unfiltered dimension. The C++ object behind the interface has
 * a place for a callback. It is used where everything is exactly as it was when this was written:
 * the version, the layout, the symbols. Elsewhere there are no statistics, and answers are the same.
 */
#ifndef SCAD_STATISTICS_H
#define SCAD_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

struct column_range {
    int type;          /* DuckDB's number of the column's type: integers, dates */
    int64_t low, high; /* as stored */
    bool nulls;        /* whether there may be any */
};

/* Look things up in DuckDB's library; whether statistics can be offered. */
bool statistics_resolve(void *library);

/* Give a table function that is about to be registered a callback. `find` gives the range of a
 * column of whatever the function was bound to (its bind data), or says that there is none. */
void statistics_offer(void *function, bool (*find)(void *bound, uint64_t column,
                                                   struct column_range *range));

#endif
