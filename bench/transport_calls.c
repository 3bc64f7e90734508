/* What a transport's operation to a memory server costs without Python: `transport_calls DEVICE read|write SIZE COUNT` connects
 * where the durl in BENCH_DURL leads (it holds secrets, so it is no argument), over TCP or, with a DEVICE other than "-",
 * through that RDMA device, and prints the nanoseconds of COUNT operations, one at a time. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "transport.h"

#define WARM_UP 16

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* The value of a setting of `durl`, a copy; "" if it has none. */
static char *setting(const char *durl, const char *key)
{
    size_t length = strlen(key);

    for (const char *at = strchr(durl, ';'); at && at[1]; at = strchr(at + 1, ';'))
        if (strncmp(at + 1, key, length) == 0 && at[1 + length] == ',')
            return strndup(at + length + 2, strcspn(at + length + 2, ";"));
    return strdup("");
}

static int fail(const struct libd_error *err)
{
    fprintf(stderr, "libd: code %d, %" PRIu64 "\n", err->code, err->detail);
    return 1;
}

int main(int argc, char **argv)
{
    const char *durl = getenv("BENCH_DURL");
    struct libd_transport *t;
    struct libd_error err = {0};

    if (argc != 5 || !durl)
        return 2;
    char *host = setting(durl, "url"), *key = setting(durl, "key");
    char *port = strrchr(host, ':');
    if (strncmp(host, "tcp://", 6) != 0 || strlen(key) != 2 * LIBD_KEY_BYTES)
        return 2;
    *port++ = '\0';
    struct libd_address address = {
        .host = host + 6,
        .port = port,
        .kind = LIBD_KIND_ELEMENT,
        .token = setting(durl, "token"),
        .tenant = strtoull(setting(durl, "tenant"), NULL, 10),
        .element = strtoull(setting(durl, "eid"), NULL, 10),
        .timeout = 20,
        .stall = 60,
        .stripes = 1,
    };
    for (int i = 0; i < LIBD_KEY_BYTES; i++)
        sscanf(key + 2 * i, "%2hhx", &address.key[i]);
    size_t size = strtoul(argv[3], NULL, 10);
    void *data = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    memset(data, 1, size);
    int code = strcmp(argv[1], "-") == 0 ? libd_open_stream(&address, &t, &err)
                                         : libd_open_verbs(&address, argv[1], &t, &err);
    if (code)
        return fail(&err);
    int (*move)(struct libd_transport *, struct libd_vec *, size_t, struct libd_error *) =
        strcmp(argv[2], "read") == 0 ? libd_readv : libd_writev;
    /* Writes go where no read expects anything: behind the first half. */
    uint64_t addr = move == libd_readv ? 0 : t->who.size / 2;
    int64_t start = 0;
    long count = atol(argv[4]);
    for (long i = -WARM_UP; i < count; i++) {
        struct libd_vec vec = {.addr = addr, .data = data, .size = size};
        if (i == 0)
            start = now();
        if (move(t, &vec, 1, &err))
            return fail(&err);
    }
    printf("%" PRId64 "\n", now() - start);
    libd_destroy(t);
    return 0;
}
