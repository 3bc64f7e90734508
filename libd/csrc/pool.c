#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "capacity.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#ifdef __GLIBC__
#define LOCK_WORD(mutex) (&(mutex)->__data.__lock)
#else /* musl: type, lock word, … */
#define LOCK_WORD(mutex) ((const int *)(const void *)(mutex) + 1)
#endif

#define PAGE UINT64_C(4096)
#define HEADROOM_AGE 0.05              /* seconds that a look at the machine's memory is good for */
#define ZERO_BY_HAND (UINT64_C(4) << 20) /* above it, giving pages back is cheaper than clearing them */

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

/* ---- capacity ---------------------------------------------------------------------------------------------------- */

static uint64_t resident(const struct tenant *tenant)
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
        sum += resident(t);
    return sum;
}

/* Gives the pages of free blocks back to the machine. */
static void trim(struct pool *pool)
{
    for (struct tenant *t = pool->tenants; t; t = t->next) {
        if (t->arena_fd < 0)
            continue;
        for (struct block *b = t->heap.first; b; b = b->next) {
            if (!b->free || b->warm_from == b->warm_to)
                continue;
            /* The edges, whose pages live neighbours share, are cleared by the kernel. */
            if (fallocate(t->arena_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)b->off,
                          (off_t)b->size) != 0)
                continue;
            t->heap.warm_bytes -= b->warm_to - b->warm_from;
            b->warm_from = b->warm_to = 0;
        }
    }
}

/* What the machine has beyond every promise that was made and not yet drawn on. The pages of free blocks are resident but
 * drawn on by nobody: whoever was promised bytes elsewhere will want others besides, until those are trimmed. */
static uint64_t headroom(const struct pool *pool)
{
    uint64_t undrawn = 0, left = libd_available();

    for (const struct tenant *t = pool->tenants; t; t = t->next) {
        uint64_t pages = resident(t), drawn = pages > t->heap.warm_bytes ? pages - t->heap.warm_bytes : 0;
        if (t->reserved > drawn)
            undrawn += t->reserved - drawn;
    }
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

static void integrate(struct element *element)
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

/* Charges `bytes` to the element, its tenant and the pool, or nobody. */
static int charge(struct element *element, uint64_t bytes, struct libd_error *err)
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
    integrate(element);
    element->reserved += bytes;
    tenant->reserved += bytes;
    tenant->pool->reserved += bytes;
    raise_peak(&element->peak, element->reserved);
    raise_peak(&tenant->peak, tenant->reserved);
    raise_peak(&tenant->pool->peak, tenant->pool->reserved);
    return LIBD_OK;
}

static void discharge(struct element *element, uint64_t bytes)
{
    integrate(element);
    element->reserved -= bytes;
    element->tenant->reserved -= bytes;
    element->tenant->pool->reserved -= bytes;
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
    if (tenant->domain)
        tenant->pool->device->leave(tenant);
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

    while (tenant->elements)
        pool_element_drop(tenant->elements);
    atomic_store_explicit(&tenant->table->stopped, stopping, memory_order_release);
    atomic_store_explicit(&tenant->table->alive, 0, memory_order_release);
    if (!tenant->pool->anonymous) {
        pthread_mutex_unlock(&tenant->table->owner);
        pthread_mutex_destroy(&tenant->table->owner);
    }
    /* Clients may have the arena mapped for a while yet: its pages go back now. */
    if (tenant->arena_fd >= 0)
        fallocate(tenant->arena_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)tenant->arena_size);
    while (*link != tenant)
        link = &(*link)->next;
    *link = tenant->next;
    tenant_release(tenant);
}

void pool_tenant_drop(struct tenant *tenant) { tenant_drop(tenant, false); }

void pool_destroy(struct pool *pool)
{
    while (pool->tenants)
        tenant_drop(pool->tenants, true);
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
        .resident = resident(tenant),
        .elements = tenant->elements_live,
        .regions = tenant->regions_live,
        .free_blocks = tenant->heap.free_blocks,
        .largest_free = heap_largest(&tenant->heap),
        .peak = tenant->peak,
        .free = tenant->heap.free_bytes,
    };
}

/* ---- regions ----------------------------------------------------------------------------------------------------- */

/* A slot for a new region, 0 if there is none. Freed slots are used again last-freed last, and only after all fresh ones,
 * so that an address that somebody kept by mistake stays dead for as long as possible. */
static uint32_t slot_take(struct tenant *tenant)
{
    uint32_t slot;

    if (tenant->slots_used < LIBD_SLOTS) {
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

static void slot_publish(struct tenant *tenant, uint32_t slot)
{
    const struct region *region = &tenant->regions[slot];
    struct libd_slot *shared = &tenant->table->slots[slot];

    atomic_store_explicit(&shared->base, region->base, memory_order_relaxed);
    atomic_store_explicit(&shared->size, region->size, memory_order_relaxed);
    atomic_store_explicit(&shared->element, region->element->id | (region->nic ? LIBD_SLOT_NIC : 0),
                          memory_order_relaxed);
    atomic_store_explicit(&shared->epoch, region->epoch, memory_order_release);
}

static void slot_retract(struct tenant *tenant, uint32_t slot)
{
    atomic_store_explicit(&tenant->table->slots[slot].epoch, 0, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
}

static int region_create(struct element *element, struct heap *heap, uint64_t origin, uint64_t size, uint64_t align,
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

static void region_destroy(struct element *element, struct heap *heap, uint32_t slot)
{
    struct tenant *tenant = element->tenant;
    struct region *region = &tenant->regions[slot];

    slot_retract(tenant, slot);
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
    discharge(element, region->charged);
    tenant->regions_live--;
    element->regions--;
    slot_give(tenant, slot);
}

static struct heap *heap_of(struct element *element)
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

int pool_alloc(struct element *element, const struct libd_wanted *wanted, uint32_t *out, uint64_t *epoch,
               struct libd_error *err)
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
        code = charge(element, charged, err);
        if (code)
            return code;
    } else {
        origin = tenant->regions[element->root].base;
    }
    code = region_create(element, heap_of(element), origin, size, align, charged, out, err);
    if (code) {
        discharge(element, charged);
        return code;
    }
    region_link(element, *out);
    tenant->regions[*out].nic = nic;
    *epoch = tenant->regions[*out].epoch;
    slot_publish(tenant, *out);
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
        region_destroy(lease->element, heap_of(lease->element), lease->slot);
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
    region_destroy(element, heap_of(element), slot);
    return LIBD_OK;
}

int pool_extend(struct element *element, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *out,
                uint64_t *new_epoch, struct libd_error *err)
{
    struct tenant *tenant = element->tenant;
    struct heap *heap = heap_of(element);
    uint32_t slot;
    int code = pool_check(element, addr, epoch, 0, &slot, err);

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
    code = charge(element, more, err);
    if (code)
        return code;
    if (heap_resize(heap, region->block, size)) {
        if (region->exported)
            tenant->pool->device->withdraw(region);
        region->charged += more;
        region->size = size;
        atomic_store_explicit(&tenant->table->slots[slot].size, size, memory_order_release);
        *out = slot;
        *new_epoch = region->epoch;
        return LIBD_OK;
    }
    discharge(element, more);
    const struct libd_wanted moved = {
        .size = size,
        .align = UINT64_C(1) << region->align_log2,
        .flags = region->nic ? LIBD_ALLOC_NIC : 0,
    };
    code = pool_alloc(element, &moved, out, new_epoch, err);
    if (code)
        return code;
    region = &tenant->regions[slot]; /* the table may have moved */
    tenant->regions[*out].lease = region->lease;
    if (region->lease)
        region->lease->slot = *out;
    region->lease = NULL;
    memcpy(tenant->arena + tenant->regions[*out].base, tenant->arena + region->base, region->size);
    region_destroy(element, heap, slot);
    return LIBD_OK;
}

/* ---- elements ---------------------------------------------------------------------------------------------------- */

static void clear(struct tenant *tenant, uint64_t base, uint64_t size)
{
    uint64_t from = (base + PAGE - 1) & ~(PAGE - 1), to = (base + size) & ~(PAGE - 1);

    if (size > ZERO_BY_HAND && tenant->arena_fd >= 0 &&
        fallocate(tenant->arena_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) == 0) {
        memset(tenant->arena + base, 0, from - base);
        memset(tenant->arena + to, 0, base + size - to);
    } else {
        memset(tenant->arena + base, 0, size);
    }
}

int pool_element_create(struct tenant *tenant, const char *name, uint64_t size, bool elastic, uint64_t limit,
                        struct element **out, struct libd_error *err)
{
    struct element *element;
    int code;

    if (size > (UINT64_C(1) << LIBD_OFFSET_BITS))
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_TENANT, tenant->quota - tenant->reserved);
    element = calloc(1, sizeof *element);
    if (!element)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    element->tenant = tenant;
    element->id = tenant->pool->next_id++;
    element->elastic = elastic;
    element->limit = heap_round(elastic && limit < UINT64_MAX / 2 ? limit : elastic ? UINT64_MAX / 2 : size);
    element->created = element->since = libd_now();
    strncpy(element->name, name, LIBD_MAX_NAME);
    libd_random(element->key, sizeof element->key);
    if (!elastic) {
        code = charge(element, element->limit, err);
        if (code == LIBD_OK) {
            code = region_create(element, &tenant->heap, 0, size, PAGE, element->limit, &element->root, err);
            if (code)
                discharge(element, element->limit);
        }
        if (code == LIBD_OK && !heap_init(&element->window, size)) {
            region_destroy(element, &tenant->heap, element->root);
            code = libd_fail(err, LIBD_ENOMEM, 0, 0);
        }
        if (code) {
            free(element);
            return code;
        }
        /* A new element reads as zeros; what nobody has touched already does. */
        const struct region *region = &tenant->regions[element->root];
        if (region->block->warm_from != region->block->warm_to)
            clear(tenant, region->base, region->size);
        slot_publish(tenant, element->root);
    }
    element->next = tenant->elements;
    tenant->elements = element;
    tenant->elements_live++;
    *out = element;
    return LIBD_OK;
}

void pool_element_drop(struct element *element)
{
    struct tenant *tenant = element->tenant;
    struct element **link = &tenant->elements;

    if (element->lease)
        lease_end(element->lease);
    while (element->first)
        region_destroy(element, heap_of(element), element->first);
    if (element->root)
        region_destroy(element, &tenant->heap, element->root);
    heap_destroy(&element->window);
    while (*link != element)
        link = &(*link)->next;
    *link = element->next;
    tenant->elements_live--;
    free(element);
}

struct element *pool_element_by_id(struct tenant *tenant, uint64_t id)
{
    struct element *e = tenant->elements;

    while (e && e->id != id)
        e = e->next;
    return e;
}

uint64_t pool_element_limit(const struct element *element)
{
    return element->limit < element->tenant->quota ? element->limit : element->tenant->quota;
}

void pool_element_stats(struct element *element, struct libd_element_stats *out)
{
    struct heap *heap = heap_of(element);

    integrate(element);
    *out = (struct libd_element_stats){
        .reserved = element->reserved,
        .peak = element->peak,
        .limit = pool_element_limit(element),
        .regions = element->regions,
        .byte_seconds = element->byte_seconds,
        .bytes_read = element->bytes_read,
        .bytes_written = element->bytes_written,
        .age = element->since - element->created,
        .free = heap->free_bytes,
        .free_blocks = heap->free_blocks,
        .largest_free = heap_largest(heap),
    };
}
