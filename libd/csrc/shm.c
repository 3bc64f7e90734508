/* Attaching a tenant's arena: two sealed memfds that the server passes over its Unix socket. */
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

int libd_attach(struct libd_transport *t, struct libd_memory **out, struct libd_error *err)
{
    int fds[2] = {-1, -1}, nfds = 0, code;
    struct libd_call call = {.request = {.op = LIBD_OP_ATTACH}, .fds = fds, .nfds = &nfds};
    struct libd_memory *memory = calloc(1, sizeof *memory);
    void *base = MAP_FAILED, *table = MAP_FAILED;

    if (!memory)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    code = libd_stream_call(t, &call, err);
    if (!code && (nfds != 2 || !trustworthy(fds[0], call.reply.a) || !trustworthy(fds[1], TABLE_BYTES)))
        code = libd_fail(err, LIBD_EPROTO, 0, 0);
    if (!code) {
        base = mmap(NULL, call.reply.a, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
        table = mmap(NULL, TABLE_BYTES, PROT_READ, MAP_SHARED, fds[1], 0);
        if (base == MAP_FAILED || table == MAP_FAILED)
            code = libd_fail(err, LIBD_ESYS, (uint64_t)errno, 0);
    }
    for (int i = 0; i < nfds; i++)
        close(fds[i]); /* the mappings stay */
    if (code) {
        if (base != MAP_FAILED)
            munmap(base, call.reply.a);
        if (table != MAP_FAILED)
            munmap(table, TABLE_BYTES);
        free(memory);
        return code;
    }
    *memory = (struct libd_memory){base, call.reply.a, table, memory_destroy};
    *out = memory;
    return LIBD_OK;
}
