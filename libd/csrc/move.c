/* Growing regions: where they are, or by a move to where there is room. */
#include <stdlib.h>
#include <string.h>

#include "books.h"

/* ---- moves ------------------------------------------------------------------------------------------------------- */

static void unlink_move(struct move *move)
{
    struct pool *pool = move->element->tenant->pool;

    *(move->prev ? &move->prev->next : &pool->moves) = move->next;
    if (move->next)
        move->next->prev = move->prev;
}

/* Tells whoever waits for it, and forgets it. */
static void end(struct move *move, int code, uint32_t region, uint64_t epoch)
{
    struct region *regions = move->element->tenant->regions;

    regions[move->from].move = regions[move->to].move = NULL;
    unlink_move(move);
    if (move->over)
        move->over(move->waiter, code, region, epoch);
    free(move);
}

void move_cancel(struct move *move, uint32_t slot)
{
    struct element *element = move->element;
    uint32_t other = slot == move->from ? move->to : move->from;

    end(move, LIBD_ESTALE, 0, 0);
    region_destroy(element, element_heap(element), other);
}

bool pool_move(struct move *move, uint64_t bytes)
{
    struct element *element = move->element;
    struct tenant *tenant = element->tenant;
    const struct region *from = &tenant->regions[move->from];
    struct region *to = &tenant->regions[move->to];
    uint64_t left = from->size - move->done, n = left < bytes ? left : bytes;
    uint32_t old = move->from;

    memcpy(tenant->arena + to->base + move->done, tenant->arena + from->base + move->done, n);
    move->done += n;
    if (move->done < from->size)
        return false;
    to->epoch = move->epoch;
    region_publish(tenant, move->to);
    end(move, LIBD_OK, move->to, move->epoch);
    region_destroy(element, element_heap(element), old);
    return true;
}

/* From here on nobody reaches either end: a write that landed behind the copy would be acknowledged and lost. */
static int begin(struct element *element, uint32_t slot, uint64_t size, struct move **out, struct libd_error *err)
{
    struct tenant *tenant = element->tenant;
    struct region *from = &tenant->regions[slot], *to;
    const struct libd_wanted wanted = {
        .size = size,
        .align = UINT64_C(1) << from->align_log2,
        .flags = from->nic ? LIBD_ALLOC_NIC : 0,
    };
    struct move *move = calloc(1, sizeof *move);
    int code;

    if (!move)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    code = region_new(element, &wanted, &move->to, err);
    if (code) {
        free(move);
        return code;
    }
    from = &tenant->regions[slot]; /* the table may have moved */
    to = &tenant->regions[move->to];
    move->element = element;
    move->from = slot;
    move->epoch = to->epoch;
    to->lease = from->lease;
    if (to->lease)
        to->lease->slot = move->to;
    from->lease = NULL;
    region_retract(tenant, slot);
    from->epoch = to->epoch = 0;
    from->move = to->move = move;
    if (from->exported)
        tenant->pool->device->withdraw(from);
    move->next = tenant->pool->moves;
    if (move->next)
        move->next->prev = move;
    tenant->pool->moves = move;
    *out = move;
    return LIBD_OK;
}

/* ---- growing ----------------------------------------------------------------------------------------------------- */

int pool_grow(struct element *element, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *out, uint64_t *new_epoch,
              struct move **move, struct libd_error *err)
{
    struct tenant *tenant = element->tenant;
    uint32_t slot;
    int code = pool_check(element, addr, epoch, 0, &slot, err);

    *move = NULL;
    if (code)
        return code;
    if (slot == element->root || (addr & LIBD_OFFSET_MASK))
        return libd_fail(err, LIBD_EINVAL, 0, 0);
    struct region *region = &tenant->regions[slot];
    if (size < region->size)
        return libd_fail(err, LIBD_EINVAL, 0, 0);
    if (size > (UINT64_C(1) << LIBD_OFFSET_BITS))
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_ELEMENT, pool_element_limit(element) - element->reserved);
    uint64_t wanted = element->elastic ? heap_round(size) : 0;
    uint64_t more = wanted > region->charged ? wanted - region->charged : 0;
    code = element_charge(element, more, err);
    if (code)
        return code;
    if (!heap_resize(element_heap(element), region->block, size)) {
        element_discharge(element, more);
        return begin(element, slot, size, move, err);
    }
    if (region->exported)
        tenant->pool->device->withdraw(region);
    region->charged += more;
    region->size = size;
    atomic_store_explicit(&tenant->table->slots[slot].size, size, memory_order_release);
    *out = slot;
    *new_epoch = region->epoch;
    return LIBD_OK;
}

struct grown {
    uint32_t *region;
    uint64_t *epoch;
};

static void note(void *waiter, int code, uint32_t region, uint64_t epoch)
{
    struct grown *grown = waiter;

    *grown->region = region;
    *grown->epoch = epoch;
}

int pool_extend(struct element *element, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
                uint64_t *new_epoch, struct libd_error *err)
{
    struct grown grown = {region, new_epoch};
    struct move *move;
    int code = pool_grow(element, addr, epoch, size, region, new_epoch, &move, err);

    if (code || !move)
        return code;
    move->over = note;
    move->waiter = &grown;
    pool_move(move, UINT64_MAX);
    return LIBD_OK;
}
