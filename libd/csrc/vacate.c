/* Pages that go back in turns, because all at once would keep everybody waiting (some 0.2 s a GiB): those of tenants that were
 * dropped, and those that a new element is to find as zeros. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "books.h"

#define ZERO_BY_HAND (UINT64_C(4) << 20) /* above it, giving pages back is cheaper than clearing them */

/* An arena whose tenant is gone. */
struct leaving {
    struct leaving *next;
    int fd;
    uint8_t *arena;
    uint64_t size, at, charged;
};

static bool punch(int fd, uint64_t from, uint64_t size)
{
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)size) == 0;
}

/* Gives back up to `most` bytes of pages from `at` on; where to go on. */
static uint64_t give_back(int fd, uint64_t at, uint64_t end, uint64_t most)
{
    /* Arenas are sparse: only what is there costs a turn. */
    off_t found = lseek(fd, (off_t)at, SEEK_DATA);

    if (found < 0 || (uint64_t)found >= end)
        return end;
    if ((uint64_t)found > at)
        at = (uint64_t)found;
    uint64_t size = end - at < most ? end - at : most;
    return punch(fd, at, size) ? at + size : at;
}

/* ---- tenants that were dropped ----------------------------------------------------------------------------------- */

static void end_leaving(struct pool *pool, struct leaving *leaving)
{
    struct leaving **link = &pool->leaving;

    while (*link != leaving)
        link = &(*link)->next;
    *link = leaving->next;
    pool->reserved -= leaving->charged;
    /* Clients may have it mapped, and have touched what had gone. */
    punch(leaving->fd, 0, leaving->size);
    munmap(leaving->arena, leaving->size);
    close(leaving->fd);
    free(leaving);
}

bool pool_vacate(struct pool *pool, uint64_t bytes)
{
    struct leaving *leaving = pool->leaving;

    if (!leaving)
        return false;
    uint64_t at = give_back(leaving->fd, leaving->at, leaving->size, bytes);
    bool stuck = at == leaving->at; /* nothing else can be done than to let go of it */
    leaving->at = at;
    if (at < leaving->size && !stuck)
        return false;
    end_leaving(pool, leaving);
    return true;
}

void tenant_vacate(struct tenant *tenant, uint64_t charged)
{
    struct pool *pool = tenant->pool;
    struct leaving *leaving = malloc(sizeof *leaving), **link = &pool->leaving;

    if (!leaving) {
        punch(tenant->arena_fd, 0, tenant->arena_size);
        return;
    }
    *leaving = (struct leaving){.fd = tenant->arena_fd, .arena = tenant->arena, .size = tenant->arena_size, .charged = charged};
    tenant->arena_fd = -1;
    tenant->arena = NULL;
    while (*link)
        link = &(*link)->next;
    *link = leaving;
    pool->reserved += charged;
    if (pool->leaving == leaving) /* small ones are gone at once */
        pool_vacate(pool, POOL_CLEAR_TURN);
}

uint64_t pool_leaving(const struct pool *pool)
{
    uint64_t sum = 0;

    for (const struct leaving *l = pool->leaving; l; l = l->next)
        sum += file_resident(l->fd);
    return sum;
}

/* ---- elements that are to read as zeros -------------------------------------------------------------------------- */

static void end_clearing(struct clearing *clearing, int code)
{
    struct element *element = clearing->element;
    struct clearing **link = &element->tenant->pool->clearings;

    while (*link != clearing)
        link = &(*link)->next;
    *link = clearing->next;
    element->clearing = NULL;
    if (code == LIBD_OK)
        region_publish(element->tenant, element->root);
    if (clearing->over)
        clearing->over(clearing->waiter, code, element);
    free(clearing);
}

void clearing_cancel(struct clearing *clearing) { end_clearing(clearing, LIBD_ENOENT); }

bool pool_clear(struct clearing *clearing, uint64_t bytes)
{
    struct tenant *tenant = clearing->element->tenant;
    uint64_t at = give_back(tenant->arena_fd, clearing->at, clearing->end, bytes);

    if (at == clearing->at) { /* it has to be done by hand */
        uint64_t left = clearing->end - at, size = left < bytes ? left : bytes;
        memset(tenant->arena + at, 0, size);
        at += size;
    }
    clearing->at = at;
    if (at < clearing->end)
        return false;
    end_clearing(clearing, LIBD_OK);
    return true;
}

bool element_clear(struct element *element)
{
    struct tenant *tenant = element->tenant;
    const struct region *region = &tenant->regions[element->root];
    uint64_t base = region->base, size = region->size, end = (base + size) & ~(PAGE - 1); /* it begins with a page */
    struct clearing *clearing = NULL;

    if (size > ZERO_BY_HAND && tenant->arena_fd >= 0)
        clearing = malloc(sizeof *clearing);
    if (!clearing) {
        memset(tenant->arena + base, 0, size);
        return true;
    }
    memset(tenant->arena + end, 0, base + size - end);
    *clearing = (struct clearing){.next = tenant->pool->clearings, .element = element, .at = base, .end = end};
    tenant->pool->clearings = element->clearing = clearing;
    return false;
}
