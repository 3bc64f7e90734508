/* Regions: their slots in the tenant's table, their bytes, their leases. */
#include <stdlib.h>
#include <string.h>

#include "books.h"

#define RESTING 4096 /* slots that are free before one of them is used again */

/* A slot for a new region, 0 if there is none. Freed slots are used again last-freed last, and not until so many others were
 * freed after them that an address that somebody kept by mistake has long been found out; with all fresh ones first, a
 * tenant that lives long would fill the table however little it holds. */
static uint32_t slot_take(struct tenant *tenant)
{
    uint64_t resting = tenant->slots_used - 1 - tenant->regions_live;
    uint32_t slot;

    if (tenant->slots_used < LIBD_SLOTS && resting < RESTING) {
        if (tenant->slots_used >= tenant->slots_room) {
            uint32_t room = tenant->slots_room ? tenant->slots_room * 2 : 64;
            struct region *more = realloc(tenant->regions, room * sizeof *more);
            if (!more)
                return 0;
            memset(more + tenant->slots_room, 0, (room - tenant->slots_room) * sizeof *more);
            tenant->regions = more;
            tenant->slots_room = room;
        }
        return tenant->slots_used++;
    }
    slot = tenant->free_first;
    if (slot) {
        tenant->free_first = tenant->regions[slot].next;
        if (!tenant->free_first)
            tenant->free_last = 0;
    }
    return slot;
}

static void slot_give(struct tenant *tenant, uint32_t slot)
{
    memset(&tenant->regions[slot], 0, sizeof(struct region));
    if (tenant->free_last)
        tenant->regions[tenant->free_last].next = slot;
    else
        tenant->free_first = slot;
    tenant->free_last = slot;
}

void region_publish(struct tenant *tenant, uint32_t slot)
{
    const struct region *region = &tenant->regions[slot];
    struct libd_slot *shared = &tenant->table->slots[slot];

    atomic_store_explicit(&shared->base, region->base, memory_order_relaxed);
    atomic_store_explicit(&shared->size, region->size, memory_order_relaxed);
    atomic_store_explicit(&shared->element, region->element->id | (region->nic ? LIBD_SLOT_NIC : 0),
                          memory_order_relaxed);
    atomic_store_explicit(&shared->epoch, region->epoch, memory_order_release);
}

void region_retract(struct tenant *tenant, uint32_t slot)
{
    atomic_store_explicit(&tenant->table->slots[slot].epoch, 0, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
}

int region_create(struct element *element, struct heap *heap, uint64_t origin, uint64_t size, uint64_t align,
                  uint64_t charged, uint32_t *out, struct libd_error *err)
{
    struct tenant *tenant = element->tenant;
    struct block *block;
    uint32_t slot;

    block = heap_alloc(heap, size, align);
    if (!block)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_FRAGMENTED, heap_largest(heap));
    slot = slot_take(tenant);
    if (!slot) {
        heap_free(heap, block);
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_REGIONS, 0);
    }
    tenant->regions[slot] = (struct region){
        .epoch = ++tenant->pool->epoch,
        .base = origin + block->off,
        .size = size,
        .charged = charged,
        .block = block,
        .element = element,
        .align_log2 = (uint8_t)__builtin_ctzll(align),
    };
    tenant->regions_live++;
    element->regions++;
    *out = slot;
    return LIBD_OK;
}

static void region_link(struct element *element, uint32_t slot)
{
    struct region *regions = element->tenant->regions;

    regions[slot].next = element->first;
    if (element->first)
        regions[element->first].prev = slot;
    element->first = slot;
}

void region_destroy(struct element *element, struct heap *heap, uint32_t slot)
{
    struct tenant *tenant = element->tenant;
    struct region *region = &tenant->regions[slot];

    if (region->move) /* with its other end */
        move_cancel(region->move, slot);
    region_retract(tenant, slot);
    if (region->lease)
        lease_end(region->lease);
    if (region->exported)
        tenant->pool->device->withdraw(region);
    if (slot != element->root) {
        if (region->prev)
            tenant->regions[region->prev].next = region->next;
        else
            element->first = region->next;
        if (region->next)
            tenant->regions[region->next].prev = region->prev;
    }
    heap_free(heap, region->block);
    pool_freed(tenant->pool);
    element_discharge(element, region->charged);
    tenant->regions_live--;
    element->regions--;
    slot_give(tenant, slot);
}

struct heap *element_heap(struct element *element)
{
    return element->elastic ? &element->tenant->heap : &element->window;
}

int pool_check(const struct element *element, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *out,
               struct libd_error *err)
{
    const struct tenant *tenant = element->tenant;
    uint64_t number = addr >> LIBD_OFFSET_BITS, offset = addr & LIBD_OFFSET_MASK;
    uint64_t slot = number ? number : element->root;

    if (slot == 0 || slot >= tenant->slots_used)
        return libd_fail(err, LIBD_EBOUNDS, 0, 0);
    const struct region *region = &tenant->regions[slot];
    if (region->epoch == 0 || (epoch != 0 && epoch != region->epoch))
        return libd_fail(err, LIBD_ESTALE, region->epoch, 0);
    if (region->element != element)
        return libd_fail(err, LIBD_ECAP, 0, 0);
    if (offset > region->size || size > region->size - offset)
        return libd_fail(err, LIBD_EBOUNDS, region->size, 0);
    *out = (uint32_t)slot;
    return LIBD_OK;
}

int region_new(struct element *element, const struct libd_wanted *wanted, uint32_t *out, struct libd_error *err)
{
    struct tenant *tenant = element->tenant;
    uint64_t size = wanted->size, align = wanted->align, charged = 0, origin = 0;
    bool nic = (wanted->flags & LIBD_ALLOC_NIC) != 0;
    int code;

    if (wanted->flags & ~LIBD_ALLOC_NIC)
        return libd_fail(err, LIBD_EINVAL, 0, 0);
    /* The bytes of a window can be reached through region 0 too, whose domain is the CPU's. */
    if (nic && (!tenant->pool->nic || !element->elastic))
        return libd_fail(err, LIBD_EUNSUPPORTED, tenant->pool->nic ? LIBD_LACK_DOMAIN : LIBD_LACK_SERVER, 0);

    if (align == 0 || (align & (align - 1)) || align > (UINT64_C(1) << 30))
        return libd_fail(err, LIBD_EINVAL, 0, 0);
    if (size > (UINT64_C(1) << LIBD_OFFSET_BITS))
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_ELEMENT, pool_element_limit(element) - element->reserved);
    if (element->elastic) {
        charged = heap_round(size);
        code = element_charge(element, charged, err);
        if (code)
            return code;
    } else {
        origin = tenant->regions[element->root].base;
    }
    code = region_create(element, element_heap(element), origin, size, align, charged, out, err);
    if (code) {
        element_discharge(element, charged);
        return code;
    }
    region_link(element, *out);
    tenant->regions[*out].nic = nic;
    return LIBD_OK;
}

int pool_alloc(struct element *element, const struct libd_wanted *wanted, uint32_t *out, uint64_t *epoch,
               struct libd_error *err)
{
    struct tenant *tenant = element->tenant;
    int code = region_new(element, wanted, out, err);

    if (code)
        return code;
    *epoch = tenant->regions[*out].epoch;
    region_publish(tenant, *out);
    return LIBD_OK;
}

int pool_lease(struct element *element, uint32_t slot, struct holder *holder, uint64_t ms, struct libd_error *err)
{
    struct lease **place = slot ? &element->tenant->regions[slot].lease : &element->lease;

    if (ms == 0) {
        if (*place)
            lease_end(*place);
        *place = NULL;
        return LIBD_OK;
    }
    if (slot && slot == element->root) /* it lives and goes with its element */
        return libd_fail(err, LIBD_EINVAL, 0, 0);
    if (*place) {
        lease_renew(*place, holder, ms);
        return LIBD_OK;
    }
    *place = lease_new(&element->tenant->pool->leases, holder, element, slot, ms);
    return *place ? LIBD_OK : libd_fail(err, LIBD_ENOMEM, 0, 0);
}

void pool_expire(struct lease *lease)
{
    lease->all->expired++;
    if (lease->slot)
        region_destroy(lease->element, element_heap(lease->element), lease->slot);
    else
        pool_element_drop(lease->element);
}

int pool_free(struct element *element, uint64_t addr, uint64_t epoch, struct libd_error *err)
{
    uint32_t slot;
    int code = pool_check(element, addr, epoch, 0, &slot, err);

    if (code)
        return code;
    if (slot == element->root || (addr & LIBD_OFFSET_MASK))
        return libd_fail(err, LIBD_EINVAL, 0, 0);
    region_destroy(element, element_heap(element), slot);
    return LIBD_OK;
}
