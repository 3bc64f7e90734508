/* The leases that a stream holds, to be taken up again on a new connection. */
#ifndef LIBD_HELD_H
#define LIBD_HELD_H

#include <stddef.h>
#include <stdint.h>

/* A region that is held by a lease; `addr` is its first byte's. */
struct held {
    uint64_t addr, epoch, ms;
};

struct holdings {
    struct held *all;
    size_t count, room;
    uint32_t *places; /* by region: 1 + where in `all` it is; 0: nowhere */
    size_t regions;
};

/* Also forgets what was held at this address before. Without memory for it, it is held for as long as this connection lasts. */
void held_put(struct holdings *holdings, uint64_t addr, uint64_t epoch, uint64_t ms);
void held_forget(struct holdings *holdings, uint64_t addr);
/* The lease's time; 0: there is none. */
uint64_t held_ms(const struct holdings *holdings, uint64_t addr);
void held_destroy(struct holdings *holdings);

#endif
