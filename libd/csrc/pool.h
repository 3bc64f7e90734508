/* The memory of a server, or of a local transport: tenants with an arena each, elements with a key and a limit, regions.
 * Every access is checked here, on the side that owns the memory. Not thread-safe: the server's loop is its only user, a
 * local transport holds a lock around it. */
#ifndef LIBD_POOL_H
#define LIBD_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codes.h"
#include "heap.h"
#include "lease.h"
#include "ledger.h"
#include "wire.h"

/* A region as clients on this host see it, read-only, in the tenant's table. A writer clears `epoch` first and sets it
 * last. */
struct libd_slot {
    _Atomic uint64_t epoch; /* 0: no region here */
    _Atomic uint64_t base;
    _Atomic uint64_t size;
    _Atomic uint64_t element; /* its number, and LIBD_SLOT_NIC */
};

#define LIBD_SLOT_NIC (UINT64_C(1) << 63) /* the region's words are in the RDMA device's atomicity domain */

/* What clients on this host share with the owner of the memory, read-only: a sealed memfd beside the arena.
 *
 * `owner` is a robust mutex that the owner's thread holds for as long as it lives. If it dies in whatever way, the kernel
 * marks the mutex, and clients see with one load that there is nobody any more who would free and account for the
 * memory. */
struct libd_table {
    _Atomic uint64_t alive; /* 0 once the tenant is dropped */
    _Atomic uint64_t stopped; /* 1 once the owner has stopped in good order */
    pthread_mutex_t owner;
    struct libd_slot slots[LIBD_SLOTS] __attribute__((aligned(4096))); /* the first is unused */
};

struct clearing;
struct element;
struct leaving;
struct move;
struct pool;
struct region;
struct tenant;

/* An RDMA device that reaches into the memory. */
struct pool_device {
    /* Called before the bytes of an exported region go elsewhere, or are no longer all of it; clears `exported`. */
    void (*withdraw)(struct region *region);
    /* Called before a tenant with a `domain` ends, which has no exported regions any more. */
    void (*leave)(struct tenant *tenant);
};

/* A region to allocate. */
struct libd_wanted {
    uint64_t size, align;
    uint64_t lease_ms; /* it goes back this long after the connection that holds it is gone; 0: it stays */
    uint16_t flags;    /* enum libd_alloc_flags */
};

/* A region on its way to where it has room. Meanwhile both of its ends have epoch 0: for others there is neither. */
struct move {
    struct move *prev, *next;
    struct element *element;
    uint32_t from, to;
    uint64_t epoch, done; /* of what it becomes; bytes that are copied */
    /* How it ended, LIBD_ESTALE if the region was dropped meanwhile; NULL: nobody waits. */
    void (*over)(void *waiter, int code, uint32_t region, uint64_t epoch);
    void *waiter;
};

/* A new element whose bytes become zeros, a turn at a time. Nobody knows its key before. */
struct clearing {
    struct clearing *next;
    struct element *element;
    uint64_t at, end;
    /* LIBD_OK once it reads as zeros, LIBD_ENOENT if it was dropped meanwhile; NULL: nobody waits. */
    void (*over)(void *waiter, int code, struct element *element);
    void *waiter;
};

struct region {
    uint64_t epoch, base, size, charged;
    struct block *block;
    struct element *element;
    struct lease *lease; /* NULL: it stays until it is freed */
    struct move *move;   /* it is an end of that; NULL: it stays where it is */
    uint8_t align_log2;
    bool nic;            /* its words are in the RDMA device's atomicity domain */
    void *exported;      /* what an RDMA device knows of it; NULL: nothing */
    uint32_t prev, next; /* others of the element; in `next`: the queue of free slots */
};

struct tenant {
    struct pool *pool;
    struct tenant *next;
    uint64_t id, quota, reserved, peak, regions_live, elements_live;
    char token[LIBD_TOKEN_HEX + 1];
    char name[LIBD_MAX_NAME + 1];
    int arena_fd, table_fd; /* -1 in an anonymous pool */
    uint8_t *arena;
    uint64_t arena_size;
    uint64_t cooling;   /* bytes that go back in this round */
    uint64_t connections; /* to its elements */
    bool attached;      /* a client had its arena, and may have it mapped for as long as it likes */
    unsigned offences;  /* how often in a row it used more than it was promised */
    double offended_at;
    void *domain; /* what an RDMA device knows of it; NULL: nothing */
    struct libd_table *table;
    struct heap heap;
    struct region *regions; /* by slot */
    uint32_t slots_used, slots_room, free_first, free_last;
    struct element *elements;
};

struct element {
    struct tenant *tenant;
    struct element *next;
    uint64_t id, limit, reserved, peak, regions;
    double byte_seconds, created, since;
    uint64_t bytes_read, bytes_written;
    uint8_t key[LIBD_KEY_BYTES];
    char name[LIBD_MAX_NAME + 1];
    bool elastic;
    struct lease *lease; /* NULL: it stays until it is dropped */
    struct clearing *clearing; /* NULL: it reads as zeros, or as what was written */
    uint32_t root;      /* slot of region 0; 0: none */
    uint32_t first;     /* its other regions */
    struct heap window; /* of a fixed element: what `alloc` carves out of region 0 */
};

struct pool {
    uint64_t size, reserved, peak, epoch, next_id;
    uint8_t incarnation[16];
    bool anonymous; /* private memory of this process, not memfds */
    bool nic;       /* an RDMA device serves it, and changes words atomically */
    const struct pool_device *device; /* NULL: none serves it */
    double checked_at;
    uint64_t headroom; /* what the machine had left at `checked_at`, less what was promised since */
    uint64_t said;     /* what others had promised then */
    struct pledge pledge;
    bool unsettled;    /* of what it pledged some may have been drawn meanwhile */
    double settle_at;
    struct tenant *tenants;
    struct move *moves;
    struct clearing *clearings;
    struct leaving *leaving; /* arenas of tenants that were dropped, whose pages go back */
    uint64_t attached; /* tenants */
    double guarded_at;
    double keep_warm; /* seconds */
    double cool_at;   /* when what was freed goes back next; 0: nothing was */
    bool cooling;     /* some of that has gone */
    struct leases leases;
};

int pool_init(struct pool *pool, uint64_t size, bool anonymous, struct libd_error *err);
void pool_destroy(struct pool *pool);

int pool_tenant_create(struct pool *pool, const char *name, uint64_t quota, struct tenant **out,
                       struct libd_error *err);
void pool_tenant_drop(struct tenant *tenant);
struct tenant *pool_tenant_by_name(struct pool *pool, const char *name);
struct tenant *pool_tenant_by_id(struct pool *pool, uint64_t id);
void pool_tenant_stats(struct tenant *tenant, struct libd_tenant_stats *out);

int pool_element_create(struct tenant *tenant, const char *name, uint64_t size, bool elastic, uint64_t limit,
                        struct element **out, struct libd_error *err);
/* The same for an owner who has others to serve: while it is being cleared it has a `clearing`, and is nobody's yet. */
int pool_element_begin(struct tenant *tenant, const char *name, uint64_t size, bool elastic, uint64_t limit,
                       struct element **out, struct libd_error *err);
void pool_element_drop(struct element *element);
/* Clears so many bytes more; true: that was all, and `clearing` is gone. */
bool pool_clear(struct clearing *clearing, uint64_t bytes);
#define POOL_CLEAR_TURN (UINT64_C(16) << 20) /* bytes; giving them back takes some 3 ms */
/* Gives back so many bytes more of tenants that were dropped; true: one of them is gone, and its charge with it. */
bool pool_vacate(struct pool *pool, uint64_t bytes);
struct element *pool_element_by_id(struct tenant *tenant, uint64_t id);
/* The most that it may ever hold: its own limit or its tenant's quota. */
uint64_t pool_element_limit(const struct element *element);
void pool_element_stats(struct element *element, struct libd_element_stats *out);

int pool_alloc(struct element *element, const struct libd_wanted *wanted, uint32_t *region, uint64_t *epoch,
               struct libd_error *err);
/* Holds a region (or, slot 0, the element) by a lease of `holder`; `ms` 0: it stays. */
int pool_lease(struct element *element, uint32_t slot, struct holder *holder, uint64_t ms, struct libd_error *err);
void pool_expire(struct lease *lease);
int pool_free(struct element *element, uint64_t addr, uint64_t epoch, struct libd_error *err);
/* In place if it can be; else a new region, aligned and held as the old one is, with its bytes, and the old one freed. */
int pool_extend(struct element *element, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
                uint64_t *new_epoch, struct libd_error *err);
/* The same for an owner who has others to serve. If the region has to move, `move` is not NULL, and the outcome is what
 * `over` is told once `pool_move` has copied all of it. */
int pool_grow(struct element *element, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
              uint64_t *new_epoch, struct move **move, struct libd_error *err);
/* Copies so many bytes more; true: that was all, and `move` is gone. */
bool pool_move(struct move *move, uint64_t bytes);
/* The slot of `addr`, if `element` may touch its `size` bytes now; `epoch` 0: whichever is current. */
int pool_check(const struct element *element, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *slot,
               struct libd_error *err);
uint64_t pool_resident(const struct pool *pool);
/* Bytes that are promised and not drawn yet. */
uint64_t pool_undrawn(const struct pool *pool);
/* Tells all others on this machine, if it is time, how much of what was promised has been drawn. */
void pool_settle(struct pool *pool, double now);
#define POOL_SETTLE_EVERY 0.05 /* seconds */
/* Memory has been freed. */
void pool_freed(struct pool *pool);
/* Gives back, a turn at a time, the pages that were free and warm for at least `keep_warm` seconds, at most twice as long. */
void pool_cool(struct pool *pool, double now);
#define POOL_GUARD_EVERY 0.02 /* seconds */
/* Clients get the tenant's arena. */
void pool_attach(struct tenant *tenant);
/* Looks, if it is time, whether tenants use more memory than they were promised, and takes it back. A tenant that does so
 * again and again, for the caller to drop; or NULL. */
struct tenant *pool_guard(struct pool *pool);

/* Whether the owner of the memory lives and still has the tenant. */
bool table_owned(const struct libd_table *table);
bool table_alive(const struct libd_table *table);

void libd_random(void *out, size_t size);
double libd_now(void);

#endif
