#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "books.h"
#include "capacity.h"

/* Each has a robust lock that the server's thread holds, and when a thread dies Linux marks no more than 2048 of those. */
#define MAX_TENANTS 2000

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#ifdef __GLIBC__
#define LOCK_WORD(mutex) (&(mutex)->__data.__lock)
#else /* musl: type, lock word, … */
#define LOCK_WORD(mutex) ((const int *)(const void *)(mutex) + 1)
#endif

void libd_random(void *out, size_t size)
{
    uint8_t *p = out;

    while (size) {
        ssize_t n = getrandom(p, size, 0);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            abort(); /* without randomness there are no capabilities */
        }
        p += n;
        size -= (size_t)n;
    }
}

double libd_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- pool -------------------------------------------------------------------------------------------------------- */

int pool_init(struct pool *pool, uint64_t size, bool anonymous, struct libd_error *err)
{
    struct timespec t;
    uint32_t jitter;

    memset(pool, 0, sizeof *pool);
    pool->size = heap_round(size);
    pool->anonymous = anonymous;
    pool->next_id = 1;
    libd_random(pool->incarnation, sizeof pool->incarnation);
    /* Microseconds since 1970 exceed every epoch that an earlier server can have given out, unless it made more than a
     * million regions each second of its life; the jitter guards against a clock that was set back a little. Both fit
     * into 53 bits until the year 2255. */
    clock_gettime(CLOCK_REALTIME, &t);
    libd_random(&jitter, sizeof jitter);
    pool->epoch = (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u + (jitter & 0xfffffu);
    uint64_t left = libd_available();
    if (size > left)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_MACHINE, left);
    ledger_join(&pool->pledge, anonymous);
    return LIBD_OK;
}

/* ---- tenants ----------------------------------------------------------------------------------------------------- */

static void *map_memory(struct pool *pool, const char *name, uint64_t size, int seals, int sharing, int *fd)
{
    void *p;

    *fd = -1;
    if (pool->anonymous) {
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return p == MAP_FAILED ? NULL : p;
    }
    *fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return NULL;
    if (ftruncate(*fd, (off_t)size) == 0) {
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
        if (p != MAP_FAILED) {
            if (fcntl(*fd, F_ADD_SEALS, seals) == 0)
                return p;
            munmap(p, size);
        }
    }
    close(*fd);
    *fd = -1;
    return NULL;
}

static void table_claim(struct libd_table *table)
{
    pthread_mutexattr_t attributes;

    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&table->owner, &attributes);
    pthread_mutexattr_destroy(&attributes);
    pthread_mutex_lock(&table->owner);
}

bool table_alive(const struct libd_table *table)
{
    return atomic_load_explicit(&table->alive, memory_order_acquire) != 0 && table_owned(table);
}

bool table_owned(const struct libd_table *table)
{
    /* Clients map the table for reading only, so they cannot try the lock; but what the kernel writes into the word of a
     * robust futex when its owner dies is part of Linux's interface. */
    int word = __atomic_load_n(LOCK_WORD(&table->owner), __ATOMIC_ACQUIRE);

    return !(word & FUTEX_OWNER_DIED) && !atomic_load_explicit(&table->stopped, memory_order_relaxed);
}

static void tenant_release(struct tenant *tenant)
{
    if (tenant->arena)
        munmap(tenant->arena, tenant->arena_size);
    if (tenant->table)
        munmap(tenant->table, sizeof *tenant->table);
    if (tenant->arena_fd >= 0)
        close(tenant->arena_fd);
    if (tenant->table_fd >= 0)
        close(tenant->table_fd);
    heap_destroy(&tenant->heap);
    free(tenant->regions);
    free(tenant);
}

int pool_tenant_create(struct pool *pool, const char *name, uint64_t quota, struct tenant **out,
                       struct libd_error *err)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t secret[LIBD_TOKEN_HEX / 2];
    struct tenant *tenant;

    if (pool_tenant_by_name(pool, name))
        return libd_fail(err, LIBD_EEXIST, 0, 0);
    if (quota > pool->size) /* also keeps the rounding below from wrapping */
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_SERVER, pool->size);
    unsigned count = 0;
    for (const struct tenant *t = pool->tenants; t; t = t->next)
        count++;
    if (count >= MAX_TENANTS)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_TENANTS, MAX_TENANTS);
    tenant = calloc(1, sizeof *tenant);
    if (!tenant)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    tenant->arena_fd = tenant->table_fd = -1;
    tenant->pool = pool;
    tenant->quota = heap_round(quota); /* what fits to the byte must not fail for its rounding */
    tenant->id = pool->next_id++;
    tenant->slots_used = 1;
    strncpy(tenant->name, name, LIBD_MAX_NAME);
    libd_random(secret, sizeof secret);
    for (size_t i = 0; i < sizeof secret; i++) {
        tenant->token[2 * i] = hex[secret[i] >> 4];
        tenant->token[2 * i + 1] = hex[secret[i] & 15];
    }
    tenant->arena_size = (tenant->quota + PAGE - 1) & ~(PAGE - 1);
    if (tenant->arena_size == 0)
        tenant->arena_size = PAGE;
    tenant->arena = map_memory(pool, "scad-arena", tenant->arena_size,
                               F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL, MAP_PRIVATE, &tenant->arena_fd);
    /* Clients can map the table for reading only; the server's own mapping was made before the seal. In an anonymous pool
     * it is shared nevertheless: RLIMIT_DATA should count the bytes that the user asked for, not this sparse table. */
    tenant->table = map_memory(pool, "scad-regions", sizeof *tenant->table,
                               F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL,
                               MAP_SHARED, &tenant->table_fd);
    if (!tenant->arena || !tenant->table) {
        int error = errno;
        tenant_release(tenant);
        return libd_fail(err, LIBD_ESYS, (uint64_t)error, 0);
    }
    if (!heap_init(&tenant->heap, tenant->arena_size)) {
        tenant_release(tenant);
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    }
    /* An anonymous pool and its users live and die together, and its owner is no particular thread. */
    if (!pool->anonymous)
        table_claim(tenant->table);
    atomic_store_explicit(&tenant->table->alive, 1, memory_order_release);
    tenant->next = pool->tenants;
    pool->tenants = tenant;
    *out = tenant;
    return LIBD_OK;
}

static void tenant_drop(struct tenant *tenant, bool stopping)
{
    struct tenant **link = &tenant->pool->tenants;

    uint64_t charged = tenant->reserved, resident = tenant_resident(tenant);
    tenant_unpledge(tenant, tenant_undrawn(tenant));
    while (tenant->elements)
        pool_element_drop(tenant->elements);
    atomic_store_explicit(&tenant->table->stopped, stopping, memory_order_release);
    atomic_store_explicit(&tenant->table->alive, 0, memory_order_release);
    if (!tenant->pool->anonymous) {
        pthread_mutex_unlock(&tenant->table->owner);
        pthread_mutex_destroy(&tenant->table->owner);
    }
    while (*link != tenant)
        link = &(*link)->next;
    *link = tenant->next;
    tenant->pool->attached -= tenant->attached;
    if (tenant->domain) {
        tenant->pool->device->leave(tenant);
        tenant->domain = NULL;
    }
    /* Clients may have the arena mapped for a while yet: its pages go back without them. */
    if (tenant->arena_fd >= 0)
        tenant_vacate(tenant, charged < resident ? charged : resident);
    tenant_release(tenant);
}

void pool_tenant_drop(struct tenant *tenant) { tenant_drop(tenant, false); }

void pool_destroy(struct pool *pool)
{
    while (pool->tenants)
        tenant_drop(pool->tenants, true);
    while (pool->leaving)
        pool_vacate(pool, UINT64_MAX);
    ledger_leave(&pool->pledge);
    leases_destroy(&pool->leases);
}

struct tenant *pool_tenant_by_name(struct pool *pool, const char *name)
{
    struct tenant *t = pool->tenants;

    while (t && strcmp(t->name, name) != 0)
        t = t->next;
    return t;
}

struct tenant *pool_tenant_by_id(struct pool *pool, uint64_t id)
{
    struct tenant *t = pool->tenants;

    while (t && t->id != id)
        t = t->next;
    return t;
}

void pool_tenant_stats(struct tenant *tenant, struct libd_tenant_stats *out)
{
    *out = (struct libd_tenant_stats){
        .quota = tenant->quota,
        .reserved = tenant->reserved,
        .resident = tenant_resident(tenant),
        .elements = tenant->elements_live,
        .regions = tenant->regions_live,
        .free_blocks = tenant->heap.free_blocks,
        .largest_free = heap_largest(&tenant->heap),
        .peak = tenant->peak,
        .free = tenant->heap.free_bytes,
        .connections = tenant->connections,
    };
}
