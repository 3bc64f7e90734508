/* rdma_shm: a tenant's arena as two sealed memfds that the server passes over its Unix socket, attached once and then
 * touched directly. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stream.h"

#define TABLE_BYTES sizeof(struct libd_table)

static void memory_destroy(struct libd_memory *memory)
{
    munmap(memory->base, memory->size);
    munmap((void *)memory->table, TABLE_BYTES);
    free(memory);
}

/* A sealed size is what makes touching the mapping safe from SIGBUS. */
static bool trustworthy(int fd, uint64_t size)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &st) == 0 && (uint64_t)st.st_size == size;
}

/* Maps what the server passed, and closes it: the mappings stay. */
static int map_arena(const struct arena *arena, struct libd_memory **out, struct libd_error *err)
{
    struct libd_memory *memory = calloc(1, sizeof *memory);
    void *base = MAP_FAILED, *table = MAP_FAILED;
    int code = memory ? LIBD_OK : libd_fail(err, LIBD_ENOMEM, 0, 0);

    if (!code && (!trustworthy(arena->fds[0], arena->size) || !trustworthy(arena->fds[1], TABLE_BYTES)))
        code = libd_fail(err, LIBD_EPROTO, 0, 0);
    if (!code) {
        base = mmap(NULL, arena->size, PROT_READ | PROT_WRITE, MAP_SHARED, arena->fds[0], 0);
        table = mmap(NULL, TABLE_BYTES, PROT_READ, MAP_SHARED, arena->fds[1], 0);
        if (base == MAP_FAILED || table == MAP_FAILED)
            code = libd_fail(err, LIBD_ESYS, (uint64_t)errno, 0);
    }
    close(arena->fds[0]);
    close(arena->fds[1]);
    if (!code) {
        *memory = (struct libd_memory){base, arena->size, table, memory_destroy};
        *out = memory;
        return LIBD_OK;
    }
    if (base != MAP_FAILED)
        munmap(base, arena->size);
    if (table != MAP_FAILED)
        munmap(table, TABLE_BYTES);
    free(memory);
    return code;
}

int libd_open_attached(const struct libd_address *address, struct libd_memory **memory, struct libd_transport **out,
                       struct libd_error *err)
{
    struct arena arena;
    int code = stream_open(address, &arena, out, err);

    if (code)
        return code;
    code = map_arena(&arena, memory, err);
    if (code)
        libd_destroy(*out);
    return code;
}

int libd_attach(struct libd_transport *t, struct libd_memory **out, struct libd_error *err)
{
    struct arena arena = {{-1, -1}, 0};
    int nfds = 0;
    struct libd_call call = {.request = {.op = LIBD_OP_ATTACH}, .fds = arena.fds, .nfds = &nfds};
    int code = libd_stream_call(t, &call, err);

    if (!code && nfds == 2) {
        arena.size = call.reply.a;
        return map_arena(&arena, out, err);
    }
    for (int i = 0; i < nfds; i++)
        close(arena.fds[i]);
    return code ? code : libd_fail(err, LIBD_EPROTO, 0, 0);
}

/* Data moves through the mapping; what changes regions asks the server. If the owner of the memory is gone, the server that
 * may be in its place by now is asked, too: its answer says that all refs are stale. */
static int shm_lost(struct libd_transport *t, struct libd_error *err)
{
    struct libd_error now;

    if (libd_stream_alive(t, &now) == LIBD_ESTALE || now.code == LIBD_ESIGNAL)
        *err = now;
    return err->code;
}

static int shm_readv(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    int code = mapped_readv(t, vec, count, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_writev(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    int code = mapped_writev(t, vec, count, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a,
                      uint64_t b, uint64_t *old, struct libd_error *err)
{
    int code = mapped_atomic(t, op, addr, epoch, a, b, old, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_map(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, void **out,
                   struct libd_error *err)
{
    int code = mapped_map(t, addr, epoch, size, out, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *err)
{
    int code = mapped_region(t, addr, epoch, size, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_flush(struct libd_transport *t, struct libd_error *err)
{
    int code = mapped_flush(t, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static const struct libd_transport_ops shm_ops = {
    .type = "rdma_shm",
    .readv = shm_readv,
    .writev = shm_writev,
    .atomic = shm_atomic,
    .renew = stream_renew,
    .map = shm_map,
    .alloc = stream_alloc,
    .free = stream_free,
    .extend = stream_extend,
    .region = shm_region,
    .flush = shm_flush,
    .stat = stream_stat,
    .shutdown = stream_shutdown,
    .destroy = stream_destroy,
};

void libd_use_memory(struct libd_transport *t, struct libd_memory *memory)
{
    t->memory = memory;
    t->ops = &shm_ops;
}
