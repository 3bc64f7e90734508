/* What the tests call in heap.c and pool.c without a server around them. */
#include <stdlib.h>
#include <string.h>

#include "books.h"
#include "capacity.h"

#define EXPORT __attribute__((visibility("default")))

/* ---- a heap ------------------------------------------------------------------------------------------------------ */

EXPORT struct heap *h_new(uint64_t size)
{
    struct heap *heap = malloc(sizeof *heap);

    if (!heap || !heap_init(heap, size))
        abort();
    return heap;
}

EXPORT void h_delete(struct heap *heap)
{
    heap_destroy(heap);
    free(heap);
}

EXPORT struct block *h_alloc(struct heap *heap, uint64_t size, uint64_t align) { return heap_alloc(heap, size, align); }
EXPORT void h_free(struct heap *heap, struct block *block) { heap_free(heap, block); }
EXPORT int h_resize(struct heap *heap, struct block *block, uint64_t size) { return heap_resize(heap, block, size); }
EXPORT uint64_t h_largest(struct heap *heap) { return heap_largest(heap); }
EXPORT uint64_t h_off(const struct block *block) { return block->off; }
EXPORT uint64_t h_size(const struct block *block) { return block->size; }
EXPORT uint64_t h_visited(const struct heap *heap) { return heap->visited; }
EXPORT uint64_t h_free_bytes(const struct heap *heap) { return heap->free_bytes; }
EXPORT uint64_t h_free_blocks(const struct heap *heap) { return heap->free_blocks; }
EXPORT uint64_t h_live_pages(const struct heap *heap) { return heap->live_pages; }
EXPORT uint64_t h_warm_bytes(const struct heap *heap) { return heap->warm_bytes; }

/* Cools up to about `most` bytes of the `n`th free block; what it cooled. */
EXPORT void h_cool(struct heap *heap, uint64_t n, uint64_t most, uint64_t *from, uint64_t *to)
{
    struct block *b = heap->first;

    *from = *to = 0;
    for (n %= heap->free_blocks + 1; b && (!b->free || n); b = b->next)
        n -= b->free;
    if (!b)
        return;
    heap_warm(heap, b, most, from, to);
    if (*from < *to)
        heap_cooled(heap, b, *to);
}

/* ---- a pool on a machine of a known size ------------------------------------------------------------------------- */

static struct pool pool;
static struct tenant *tenant;
static struct element *element;
static uint64_t machine;

/* In the place of capacity.c's. */
uint64_t libd_available(void)
{
    uint64_t used = pool_resident(&pool);

    return machine > used ? machine - used : 0;
}

uint64_t libd_private_memory(void) { return 0; }
uint64_t libd_private_memory_of(int pid) { return (uint64_t)pid & 0; }
unsigned libd_generation(void) { return 0; }

EXPORT int p_open(uint64_t bytes, uint64_t quota)
{
    struct libd_error err;
    int code;

    machine = bytes;
    code = pool_init(&pool, bytes, false, &err);
    if (!code)
        code = pool_tenant_create(&pool, "t", quota, &tenant, &err);
    if (!code)
        code = pool_element_create(tenant, "e", 0, true, UINT64_MAX, &element, &err);
    return code;
}

EXPORT void p_machine(uint64_t bytes) { machine = bytes; }
EXPORT void p_close(void) { pool_destroy(&pool); }

/* The address of a new region, or minus the error's code. */
EXPORT int64_t p_alloc(uint64_t size)
{
    struct libd_error err;
    uint64_t epoch;
    uint32_t slot;

    pool.checked_at = -1; /* looks at the machine every time, not only every 50 ms */
    int code = pool_alloc(element, &(struct libd_wanted){.size = size, .align = 64}, &slot, &epoch, &err);
    return code ? -code : (int64_t)((uint64_t)slot << LIBD_OFFSET_BITS);
}

EXPORT int p_free(uint64_t addr)
{
    struct libd_error err;

    return pool_free(element, addr, 0, &err);
}

/* Writes all of a region, as a client would. */
EXPORT void p_touch(uint64_t addr)
{
    const struct region *region = &tenant->regions[addr >> LIBD_OFFSET_BITS];

    memset(tenant->arena + region->base, 1, region->size);
}

EXPORT uint64_t p_resident(void) { return pool_resident(&pool); }
EXPORT uint64_t p_reserved(void) { return pool.reserved; }
EXPORT uint64_t p_warm(void) { return tenant->heap.warm_bytes; }

/* What happens each time that freed memory has been warm for long enough; how many turns that took. */
EXPORT int p_cool(void)
{
    int turns = 0;

    do
        pool_cool(&pool, pool.cool_at);
    while (++turns && pool.cooling);
    return turns;
}

EXPORT int p_cools(void) { return pool.cool_at > 0; }
EXPORT uint64_t p_undrawn(void) { return tenant_undrawn(tenant); }

/* ---- a region on its way ----------------------------------------------------------------------------------------- */

static struct move *under_way;
static int outcome = -1;
static uint64_t became;

static void over(void *waiter, int code, uint32_t region, uint64_t epoch)
{
    outcome = code;
    became = (uint64_t)region << LIBD_OFFSET_BITS;
    under_way = NULL;
}

/* 1: it has to move, and has begun to; 0: it grew where it is; else minus the error's code. */
EXPORT int p_grow(uint64_t addr, uint64_t size)
{
    struct libd_error err;
    uint64_t epoch;
    uint32_t region;
    int code = pool_grow(element, addr, 0, size, &region, &epoch, &under_way, &err);

    outcome = -1;
    if (under_way)
        under_way->over = over;
    return code ? -code : under_way != NULL;
}

/* The epoch of what an address names now, or minus the error's code. */
EXPORT int64_t p_epoch(uint64_t addr)
{
    struct libd_error err;
    uint32_t slot;
    int code = pool_check(element, addr, 0, 0, &slot, &err);

    return code ? -code : (int64_t)tenant->regions[slot].epoch;
}

EXPORT int p_move(uint64_t bytes) { return pool_move(under_way, bytes); }
EXPORT int p_outcome(void) { return outcome; }
EXPORT uint64_t p_became(void) { return became; }
EXPORT uint64_t p_free_bytes(void) { return tenant->heap.free_bytes; }
EXPORT void p_drop(void) { pool_element_drop(element); }

EXPORT void p_fill(uint64_t addr, const void *data)
{
    const struct region *region = &tenant->regions[addr >> LIBD_OFFSET_BITS];

    memcpy(tenant->arena + region->base, data, region->size);
}

EXPORT int p_holds(uint64_t addr, const void *data, uint64_t size)
{
    return memcmp(tenant->arena + tenant->regions[addr >> LIBD_OFFSET_BITS].base, data, size) == 0;
}

/* A lease on the region that is on its way, by somebody who has gone. */
EXPORT int p_lease(uint64_t addr)
{
    static struct holder holder;
    struct libd_error err;
    int code = pool_lease(element, (uint32_t)(addr >> LIBD_OFFSET_BITS), &holder, 1, &err);

    lease_run(&pool.leases, &holder, 0);
    return -code;
}

EXPORT void p_expire(void) { pool_expire(lease_next(&pool.leases)); }
