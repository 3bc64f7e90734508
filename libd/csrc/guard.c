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
#define COOL_TURN (UINT64_C(16) << 20) /* bytes that go back before others get their turn */
#define CALL_COST (UINT64_C(16) << 10) /* of a turn, however little goes back with it */
#define OFFENCES 8u                /* looks with an overdraft, none of them a second after the one before */

/* What a tenant may have resident: the pages of its regions, and those that it left warm. Where pages are larger than we count
 * them (huge ones, or another architecture's), a region may share its first and last. */
static uint64_t allowed(const struct tenant *tenant, uint64_t page)
{
    uint64_t edges = page > HEAP_PAGE ? 2 * tenant->regions_live * page : 0;

    return tenant->heap.live_pages * HEAP_PAGE + tenant->heap.warm_bytes + edges;
}

uint64_t tenant_undrawn(const struct tenant *tenant)
{
    struct stat st;
    uint64_t promised = tenant->heap.live_pages * HEAP_PAGE;

    if (promised < tenant->reserved)
        promised = tenant->reserved;
    if (tenant->arena_fd < 0 || fstat(tenant->arena_fd, &st) != 0)
        return promised; /* nobody says what of it is resident */
    /* What was freed may be touched as well, whether it was before or not: nobody minds until it is cold. */
    promised += tenant->heap.warm_bytes;
    uint64_t resident = (uint64_t)st.st_blocks * 512;
    return promised > resident ? promised - resident : 0;
}

static bool overdrawn(const struct tenant *tenant)
{
    struct stat st;

    return fstat(tenant->arena_fd, &st) == 0 &&
           (uint64_t)st.st_blocks * 512 > allowed(tenant, (uint64_t)st.st_blksize) + SLACK;
}

/* ---- giving pages back ------------------------------------------------------------------------------------------- */

static bool punch(const struct tenant *tenant, uint64_t from, uint64_t size)
{
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

    /* Pages of which this is only a part are cleared. */
    return fallocate(tenant->arena_fd, mode, (off_t)from, (off_t)size) == 0;
}

/* At most `most` bytes of a block's pages, but at least one page; 0: none is warm, or they stay. */
static uint64_t cool(struct tenant *tenant, struct block *block, uint64_t most)
{
    uint64_t from, to, before = tenant->heap.warm_bytes;

    heap_warm(&tenant->heap, block, most, &from, &to);
    if (from == to || !punch(tenant, from, to - from))
        return 0;
    heap_cooled(&tenant->heap, block, to);
    return before - tenant->heap.warm_bytes;
}

void tenant_trim(struct tenant *tenant, bool all)
{
    for (struct block *b = tenant->heap.first; b; b = b->next) {
        if (!b->free)
            continue;
        if (!all)
            cool(tenant, b, UINT64_MAX);
        else if (punch(tenant, b->off, b->size))
            heap_cooled(&tenant->heap, b, b->off + b->size);
    }
}

/* ---- what nobody uses again -------------------------------------------------------------------------------------- */

void pool_freed(struct pool *pool)
{
    if (!pool->anonymous && pool->cool_at == 0)
        pool->cool_at = libd_now() + pool->keep_warm;
}

static void spend(uint64_t *budget, uint64_t amount) { *budget -= amount < *budget ? amount : *budget; }

/* As much of a tenant's share as one turn may take. */
static void cool_some(struct tenant *tenant, uint64_t *turn)
{
    for (struct block *b = tenant->heap.first; b && tenant->cooling && *turn; b = b->next) {
        uint64_t size = b->free ? cool(tenant, b, *turn < tenant->cooling ? *turn : tenant->cooling) : 0;
        if (size) {
            spend(turn, size + CALL_COST);
            spend(&tenant->cooling, size);
        }
    }
    if (*turn) /* there was no more */
        tenant->cooling = 0;
}

void pool_cool(struct pool *pool, double now)
{
    uint64_t turn = COOL_TURN, warm = 0;

    if (pool->cool_at == 0 || now < pool->cool_at)
        return;
    for (struct tenant *t = pool->tenants; t && !pool->cooling; t = t->next)
        t->cooling = t->heap.warm_least;
    pool->cooling = true;
    for (struct tenant *t = pool->tenants; t && turn; t = t->next)
        cool_some(t, &turn);
    if (turn == 0)
        return; /* others first */
    pool->cooling = false;
    for (struct tenant *t = pool->tenants; t; t = t->next) {
        t->heap.warm_least = t->heap.warm_bytes;
        warm += t->heap.warm_bytes;
    }
    pool->cool_at = warm ? now + pool->keep_warm : 0;
}

/* ---- tenants that use more than they were promised --------------------------------------------------------------- */

struct tenant *pool_guard(struct pool *pool)
{
    double now = libd_now();

    if (!pool->attached || now < pool->guarded_at + POOL_GUARD_EVERY)
        return NULL;
    pool->guarded_at = now;
    for (struct tenant *t = pool->tenants; t; t = t->next) {
        if (!t->attached || !overdrawn(t))
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
