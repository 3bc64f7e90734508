/* What a transport's operation costs without Python: `calls read|write|submit COUNT` prints the nanoseconds of COUNT
 * operations of 8 bytes in a memory element of this process; `submit` starts and waits for a batch of one read. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "transport.h"

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char **argv)
{
    struct libd_memory *memory;
    struct libd_transport *t;
    struct libd_error err = {0};
    uint64_t word = 0;

    if (argc != 3)
        return 2;
    int (*move)(struct libd_transport *, struct libd_vec *, size_t, struct libd_error *) =
        strcmp(argv[1], "read") == 0 ? libd_readv : libd_writev;
    bool batched = strcmp(argv[1], "submit") == 0;
    long count = atol(argv[2]);
    if (libd_open_local(1 << 20, false, &memory, &t, &err) != LIBD_OK)
        return 1;
    int64_t start = now();
    for (long i = 0; i < count; i++) {
        struct libd_vec vec = {.addr = 0, .data = &word, .size = sizeof word};
        struct libd_batch batch = {.vec = &vec, .count = 1, .reads = 1};
        int code = batched ? libd_submit(t, &batch, &err) : move(t, &vec, 1, &err);
        if (code == LIBD_OK && batched)
            code = libd_wait(t, &batch, -1, &err);
        if (code != LIBD_OK)
            return 1;
    }
    printf("%" PRId64 "\n", now() - start);
    return 0;
}
