/* Leases: memory that goes back some time after whoever holds it is gone. A lease hangs on its holder for as long as that
 * lives, and in a heap by deadline afterwards; nothing looks at leases that do not run. */
#ifndef LIBD_LEASE_H
#define LIBD_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct element;
struct leases;

struct lease {
    struct leases *all;
    struct element *element;
    uint32_t slot;      /* of the region; 0: the element itself */
    uint64_t ms;
    double deadline;    /* while it runs */
    size_t at;          /* place in the heap */
    struct holder *holder; /* NULL: it runs */
    struct lease *prev, *next; /* others of the holder */
};

/* A connection, as far as leases are concerned. */
struct holder {
    struct lease *first;
};

struct leases {
    struct lease **heap;
    size_t running, room;
    uint64_t held, expired; /* now, and ever */
};

/* NULL: no memory. */
struct lease *lease_new(struct leases *all, struct holder *holder, struct element *element, uint32_t slot, uint64_t ms);
/* Another holder, or the same with another time. */
void lease_renew(struct lease *lease, struct holder *holder, uint64_t ms);
void lease_end(struct lease *lease);
/* The holder is gone: its leases run from `now` on. */
void lease_run(struct leases *all, struct holder *holder, double now);
/* The next lease to run out; NULL: none runs. */
struct lease *lease_next(const struct leases *all);
void leases_destroy(struct leases *all);

#endif
