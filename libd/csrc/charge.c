/* What may be promised, and to whom it is charged. */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "books.h"
#include "capacity.h"

#define HEADROOM_AGE 0.05 /* seconds that a look at the machine's memory is good for */

uint64_t tenant_resident(const struct tenant *tenant)
{
    struct stat st;

    if (tenant->arena_fd < 0 || fstat(tenant->arena_fd, &st) != 0)
        return 0;
    return (uint64_t)st.st_blocks * 512;
}

uint64_t pool_resident(const struct pool *pool)
{
    uint64_t sum = 0;

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

/* What the machine has beyond every promise that was made and not yet drawn on. The pages of free blocks are resident but
 * drawn on by nobody: whoever was promised bytes elsewhere will want others besides, until those are trimmed. */
static uint64_t headroom(const struct pool *pool)
{
    uint64_t undrawn = 0, left = libd_available();

    for (const struct tenant *t = pool->tenants; t; t = t->next)
        undrawn += tenant_undrawn(t);
    return left > undrawn ? left - undrawn : 0;
}

static int promise(struct pool *pool, uint64_t bytes, struct libd_error *err)
{
    if (bytes > pool->size - pool->reserved)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_SERVER, pool->size - pool->reserved);
    double now = libd_now();
    if (bytes > pool->headroom || now - pool->checked_at > HEADROOM_AGE) {
        pool->headroom = headroom(pool);
        pool->checked_at = now;
        if (bytes > pool->headroom) {
            trim(pool);
            pool->headroom = headroom(pool);
        }
        if (bytes > pool->headroom)
            return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_MACHINE, pool->headroom);
    }
    pool->headroom -= bytes;
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
    element->tenant->pool->reserved -= bytes;
}
