/* Tenants that use more memory than they were promised.
 *
 * An arena is as long as its tenant's quota, and whoever has it mapped can touch all of it: libd's clients stay inside of
 * their regions, but nothing makes others do so, and the kernel cannot be told to refuse the pages. So the owner looks, often
 * enough that what can be touched between two looks (in 20 ms, at a few GB/s, a hundred megabytes) is less than the margin that
 * capacity.c never promises. Pages of free blocks go back then, and who takes them again and again is dropped. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>

#include "books.h"

#define SLACK (UINT64_C(16) << 20) /* bytes beyond what was promised that nobody minds */
#define OFFENCES 8u                /* looks with an overdraft, none of them a second after the one before */

/* Bytes beyond the promise. Warm pages of free blocks are known of; a block may share its first and last page. */
static uint64_t overdraft(const struct tenant *tenant)
{
    struct stat st;

    if (fstat(tenant->arena_fd, &st) != 0)
        return 0;
    uint64_t resident = (uint64_t)st.st_blocks * 512;
    uint64_t edges = 2 * tenant->regions_live * (uint64_t)st.st_blksize;
    uint64_t allowed = tenant->reserved + tenant->heap.warm_bytes + edges + SLACK;
    return resident > allowed ? resident - allowed : 0;
}

void tenant_trim(struct tenant *tenant, bool all)
{
    for (struct block *b = tenant->heap.first; b; b = b->next) {
        if (!b->free || (!all && b->warm_from == b->warm_to))
            continue;
        /* The edges, whose pages live neighbours share, are cleared by the kernel. */
        if (fallocate(tenant->arena_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)b->off, (off_t)b->size) != 0)
            continue;
        tenant->heap.warm_bytes -= b->warm_to - b->warm_from;
        b->warm_from = b->warm_to = 0;
    }
}

struct tenant *pool_guard(struct pool *pool)
{
    double now = libd_now();

    if (!pool->attached || now < pool->guarded_at + POOL_GUARD_EVERY)
        return NULL;
    pool->guarded_at = now;
    for (struct tenant *t = pool->tenants; t; t = t->next) {
        if (!t->attached || !overdraft(t))
            continue;
        tenant_trim(t, true);
        t->offences = now - t->offended_at < 1.0 ? t->offences + 1 : 1;
        t->offended_at = now;
        if (t->offences >= OFFENCES)
            return t;
    }
    return NULL;
}

void pool_attach(struct tenant *tenant)
{
    tenant->pool->attached += !tenant->attached;
    tenant->attached = true;
}
