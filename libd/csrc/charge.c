/* What may be promised, and to whom it is charged. */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "books.h"
#include "capacity.h"

#define HEADROOM_AGE 0.05 /* seconds that a look at the machine's memory is good for */

uint64_t file_resident(int fd)
{
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

uint64_t tenant_resident(const struct tenant *tenant) { return file_resident(tenant->arena_fd); }

uint64_t pool_resident(const struct pool *pool)
{
    uint64_t sum = pool_leaving(pool);

    for (const struct tenant *t = pool->tenants; t; t = t->next)
        sum += tenant_resident(t);
    return sum;
}

/* Gives the pages of free blocks back to the machine. */
static void trim(struct pool *pool)
{
    for (struct tenant *t = pool->tenants; t; t = t->next)
        if (t->arena_fd >= 0)
            tenant_trim(t, false);
}

uint64_t pool_undrawn(const struct pool *pool)
{
    uint64_t undrawn = 0;

    for (const struct tenant *t = pool->tenants; t; t = t->next)
        undrawn += tenant_undrawn(t);
    return undrawn;
}

void tenant_unpledge(struct tenant *tenant, uint64_t bytes)
{
    struct pledge *pledge = &tenant->pool->pledge;

    ledger_set(pledge, pledge->bytes > bytes ? pledge->bytes - bytes : 0);
}

void pool_settle(struct pool *pool, double now)
{
    if (!pool->unsettled || now < pool->settle_at)
        return;
    if (pool->pledge.bytes) /* more of it than was promised there cannot be */
        ledger_set(&pool->pledge, pool_undrawn(pool));
    pool->unsettled = false;
    pool->settle_at = now + POOL_SETTLE_EVERY;
}

/* What the machine has beyond every promise that was made and not yet drawn on, by whomever. The pages of free blocks are
 * resident but drawn on by nobody: whoever was promised bytes elsewhere will want others besides, until those are trimmed.
 * Others know of the bytes that are to be promised before it is looked whether they are there. */
static void look(struct pool *pool, uint64_t bytes)
{
    uint64_t taken = pool_undrawn(pool);

    ledger_set(&pool->pledge, taken + bytes);
    pool->said = ledger_said(&pool->pledge);
    taken += ledger_undrawn(&pool->pledge);
    uint64_t left = libd_available();
    pool->headroom = left > taken ? left - taken : 0;
    pool->checked_at = libd_now();
}

/* The same without asking the kernel: what is left of the last look, less what others have promised since. */
static void glance(struct pool *pool, uint64_t bytes)
{
    ledger_set(&pool->pledge, pool->pledge.bytes + bytes);
    uint64_t said = ledger_said(&pool->pledge);
    if (said > pool->said) {
        uint64_t more = said - pool->said;
        pool->said = said;
        pool->headroom -= more < pool->headroom ? more : pool->headroom;
    }
}

static int promise(struct pool *pool, uint64_t bytes, struct libd_error *err)
{
    if (bytes > pool->size - pool->reserved)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_SERVER, pool->size - pool->reserved);
    uint64_t before = pool->pledge.bytes;
    bool aged = libd_now() - pool->checked_at > HEADROOM_AGE;
    if (!aged && bytes <= pool->headroom)
        glance(pool, bytes);
    if (aged || bytes > pool->headroom) {
        look(pool, bytes);
        if (bytes > pool->headroom) {
            trim(pool);
            look(pool, bytes);
        }
        if (bytes > pool->headroom && pool->said) {
            ledger_set(&pool->pledge, before);
            ledger_yield(&pool->pledge);
            look(pool, bytes);
        }
        if (bytes > pool->headroom) {
            ledger_set(&pool->pledge, pool_undrawn(pool));
            return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_MACHINE, pool->headroom);
        }
    }
    pool->headroom -= bytes;
    pool->unsettled = true;
    return LIBD_OK;
}

void element_integrate(struct element *element)
{
    double now = libd_now();

    element->byte_seconds += (double)element->reserved * (now - element->since);
    element->since = now;
}

static void raise_peak(uint64_t *peak, uint64_t now)
{
    if (now > *peak)
        *peak = now;
}

int element_charge(struct element *element, uint64_t bytes, struct libd_error *err)
{
    struct tenant *tenant = element->tenant;
    int code;

    if (bytes > element->limit - element->reserved)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_ELEMENT, element->limit - element->reserved);
    if (bytes > tenant->quota - tenant->reserved)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_TENANT, tenant->quota - tenant->reserved);
    code = promise(tenant->pool, bytes, err);
    if (code)
        return code;
    element_integrate(element);
    element->reserved += bytes;
    tenant->reserved += bytes;
    tenant->pool->reserved += bytes;
    raise_peak(&element->peak, element->reserved);
    raise_peak(&tenant->peak, tenant->reserved);
    raise_peak(&tenant->pool->peak, tenant->pool->reserved);
    return LIBD_OK;
}

void element_discharge(struct element *element, uint64_t bytes)
{
    element_integrate(element);
    element->reserved -= bytes;
    element->tenant->reserved -= bytes;
    struct pool *pool = element->tenant->pool;
    pool->reserved -= bytes;
    pool->unsettled = true;
    if (pool->anonymous) /* nobody looks after it later */
        tenant_unpledge(element->tenant, bytes);
}
