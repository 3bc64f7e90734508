/* What all memory servers and local elements of a user on this machine have promised and not yet drawn on. MemAvailable does
 * not know of promises: without this two servers would both give the same memory away. Thread-safe. */
#ifndef LIBD_LEDGER_H
#define LIBD_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

/* One pool's part of it. */
struct pledge {
    uint64_t bytes;
    bool anonymous;      /* private memory of this process: nobody says what of it is drawn */
    bool joined;
    unsigned generation; /* of fork: a child has no part in what its parent promised */
};

/* Without a place that can be written to there is no ledger, and the pledge counts for nobody else. */
void ledger_join(struct pledge *pledge, bool anonymous);
/* The last one out removes the file. */
void ledger_leave(struct pledge *pledge);
bool ledger_joined(const struct pledge *pledge);
void ledger_set(struct pledge *pledge, uint64_t bytes);
/* What all others say that they have promised, those that died included. Some nanoseconds. */
uint64_t ledger_said(const struct pledge *pledge);
/* What all others that live have promised and not drawn; the slots of the dead are free then. Some microseconds. */
uint64_t ledger_undrawn(const struct pledge *pledge);
/* Where two ask for the last bytes at once both may be refused: waits for a moment that is another for every process. */
void ledger_yield(const struct pledge *pledge);

#endif
