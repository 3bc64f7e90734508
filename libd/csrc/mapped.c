/* Access to memory that is mapped here: the local transport's own, and arenas over shared memory. A region is validated
 * against the owner's table with a few loads; what can be mapped was unlocked by the tenant's token, so inside of a tenant
 * these checks guard against mistakes, not against malice (design: the unit of isolation is the tenant). */
#include <string.h>

#include "transport.h"

/* Reads a slot as it was at one instant. */
static void snapshot(const struct libd_slot *slot, uint64_t *epoch, uint64_t *base, uint64_t *size, uint64_t *element)
{
    uint64_t before;

    do {
        before = atomic_load_explicit(&slot->epoch, memory_order_acquire);
        *base = atomic_load_explicit(&slot->base, memory_order_relaxed);
        *size = atomic_load_explicit(&slot->size, memory_order_acquire);
        *element = atomic_load_explicit(&slot->element, memory_order_relaxed) & ~LIBD_SLOT_NIC;
        atomic_thread_fence(memory_order_acquire);
        *epoch = atomic_load_explicit(&slot->epoch, memory_order_relaxed);
    } while (*epoch != before);
}

static bool slot_nic(const struct libd_slot *slot)
{
    return (atomic_load_explicit(&slot->element, memory_order_relaxed) & LIBD_SLOT_NIC) != 0;
}

static const struct libd_slot *slot_of(struct libd_transport *t, uint64_t addr)
{
    uint64_t number = addr >> LIBD_OFFSET_BITS, slot = number ? number : t->who.root;

    return slot == 0 || slot >= LIBD_SLOTS ? NULL : &t->memory->table->slots[slot];
}

static int locate(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size,
                  const struct libd_slot **slot, uint8_t **out, struct libd_error *err)
{
    uint64_t now, base, extent, element, offset = addr & LIBD_OFFSET_MASK;

    if (!table_owned(t->memory->table))
        return libd_fail(err, LIBD_ECLOSED, 2, 0);
    *slot = slot_of(t, addr);
    if (!*slot)
        return libd_fail(err, LIBD_EBOUNDS, 0, 0);
    snapshot(*slot, &now, &base, &extent, &element);
    if (now != epoch)
        return libd_fail(err, LIBD_ESTALE, now, 0);
    if (element != t->who.element)
        return libd_fail(err, LIBD_ECAP, 0, 0);
    if (offset > extent || size > extent - offset)
        return libd_fail(err, LIBD_EBOUNDS, extent, 0);
    /* The table is the owner's, but a mapping must not be left even if it were wrong. */
    if (base > t->memory->size || extent > t->memory->size - base)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    *out = t->memory->base + base + offset;
    return LIBD_OK;
}

int mapped_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *err)
{
    const struct libd_slot *slot = slot_of(t, addr);
    uint64_t base, element;

    if (!table_owned(t->memory->table))
        return libd_fail(err, LIBD_ECLOSED, 2, 0);
    if (!slot)
        return libd_fail(err, LIBD_EBOUNDS, 0, 0);
    snapshot(slot, epoch, &base, size, &element);
    if (*epoch == 0) /* a slot that was used once keeps its element's number */
        return libd_fail(err, element ? LIBD_ESTALE : LIBD_EBOUNDS, 0, 0);
    if (element != t->who.element)
        return libd_fail(err, LIBD_ECAP, 0, 0);
    return LIBD_OK;
}

/* Every segment is checked before the first byte moves, and its epoch once more after its last: a region that was freed
 * meanwhile makes the call fail. */
static int transfer(struct libd_transport *t, const struct libd_vec *vec, size_t count, bool in,
                    struct libd_error *err)
{
    const struct libd_slot *slot;
    uint8_t *remote;

    for (size_t i = 0; i < count && count > 1; i++) {
        int code = locate(t, vec[i].addr, vec[i].epoch, vec[i].size, &slot, &remote, err);
        if (code)
            return code;
    }
    for (size_t i = 0; i < count; i++) {
        int code = locate(t, vec[i].addr, vec[i].epoch, vec[i].size, &slot, &remote, err);
        if (code)
            return code;
        if (vec[i].size == 0)
            continue;
        if (in)
            memmove(vec[i].data, remote, vec[i].size);
        else
            memmove(remote, vec[i].data, vec[i].size);
        /* A write must be out before the epoch is looked at: whoever retracts it looks at the bytes after that. */
        atomic_thread_fence(in ? memory_order_acquire : memory_order_seq_cst);
        if (atomic_load_explicit(&slot->epoch, memory_order_relaxed) != vec[i].epoch)
            return libd_fail(err, LIBD_ESTALE, 0, 0);
    }
    return LIBD_OK;
}

int mapped_readv(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    return transfer(t, vec, count, true, err);
}

int mapped_writev(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    return transfer(t, vec, count, false, err);
}

/* The word changes in the CPU's atomicity domain, which every process with the mapping and the server's thread share. The
 * epoch is looked at before: a word of a region that is freed at this moment may be changed after, as with a write. */
int mapped_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a, uint64_t b,
                  uint64_t *old, struct libd_error *err)
{
    const struct libd_slot *slot;
    uint8_t *remote;
    int code = locate(t, addr, epoch, sizeof *old, &slot, &remote, err);

    if (code)
        return code;
    if (slot_nic(slot))
        return libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_DOMAIN, 0);
    if (op == LIBD_FETCH_ADD) {
        *old = __atomic_fetch_add((uint64_t *)(void *)remote, a, __ATOMIC_SEQ_CST);
    } else {
        *old = a;
        __atomic_compare_exchange_n((uint64_t *)(void *)remote, old, b, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    if (atomic_load_explicit(&slot->epoch, memory_order_relaxed) != epoch)
        return libd_fail(err, LIBD_ESTALE, 0, 0);
    return LIBD_OK;
}

int mapped_map(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, void **out,
               struct libd_error *err)
{
    const struct libd_slot *slot;
    uint8_t *remote;
    int code = locate(t, addr, epoch, size, &slot, &remote, err);

    if (!code)
        *out = remote;
    return code;
}

int mapped_flush(struct libd_transport *t, struct libd_error *err)
{
    if (!table_owned(t->memory->table))
        return libd_fail(err, LIBD_ECLOSED, 2, 0);
    atomic_thread_fence(memory_order_seq_cst);
    return LIBD_OK;
}
