/* A coverage-guided fuzzer of the memory server: `fuzz SEED FRAMES` sends it FRAMES frames, mutated from those before them that
 * reached something new, and prints what came of it as a line of JSON.
 *
 * The server is the real one, in a thread of this process, whose sources are compiled with -fsanitize-coverage=trace-pc and
 * the sanitizers: what is out of bounds, undefined or leaked ends the run. An input is a greeting and a list of frames. As in
 * AFL an input is kept if it takes an edge that none took before, or takes it more often (by powers of two). Whoever
 * answers must answer in the protocol; the bytes of a bystander, another tenant, never appear in an answer, and never change. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "server.h"
#include "wire.h"

#define MAP (1u << 16)
#define FRAMES_MAX 24
#define BODY_MAX 512
#define CORPUS_MAX 4096
#define FRESH_TENANT 64   /* inputs after which the tenant that is fuzzed begins anew */
#define FRESH_SERVER 8192 /* and the server */
#define SILENCE 60000     /* ms after which the server hangs */
#define ADMIN "administrator"

#define REQUIRE(what)                                                                                                    \
    do {                                                                                                                 \
        if (!(what)) {                                                                                                   \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                                                   \
            abort();                                                                                                     \
        }                                                                                                                \
    } while (0)

/* ---- coverage ---------------------------------------------------------------------------------------------------- */

static uint8_t hits[MAP], seen[MAP]; /* of this input; of all before, a bit for each power of two */
static __thread uint32_t before;

/* Called by the server's code at every edge, in its thread alone. */
void __sanitizer_cov_trace_pc(void)
{
    uint32_t here = (uint32_t)((uintptr_t)__builtin_return_address(0) * UINT64_C(0x9E3779B97F4A7C15) >> 48);
    uint8_t *hit = &hits[(here ^ before) % MAP];

    *hit += *hit < 255;
    before = here >> 1;
}

static bool is_new(void)
{
    bool found = false;

    for (size_t i = 0; i < MAP; i++) {
        if (!hits[i])
            continue;
        uint8_t bit = (uint8_t)(1u << (31 - __builtin_clz(hits[i])));
        found |= !(seen[i] & bit);
        seen[i] |= bit;
    }
    return found;
}

static size_t edges(void)
{
    size_t n = 0;

    for (size_t i = 0; i < MAP; i++)
        n += seen[i] != 0;
    return n;
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

enum greeting { DEFAULT, ELASTIC, FIXED, ADMINISTRATOR, SPOILT, GREETINGS };

struct frame {
    struct libd_request head;
    uint32_t size;
    uint8_t body[BODY_MAX];
};

struct input {
    enum greeting greeting;
    uint32_t count, cut; /* frames; bytes that are missing from their end */
    struct frame frames[FRAMES_MAX];
};

static uint64_t dice;

static uint64_t roll(void)
{
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    return dice;
}

static uint64_t below(uint64_t n) { return roll() % n; }

static uint64_t interesting(void)
{
    static const uint64_t some[] = {0, 1, 7, 8, 63, 64, 65, 4096, 65535, 65536, UINT64_C(1) << 20, (UINT64_C(1) << 40) - 8,
                                    UINT64_C(1) << 40, UINT64_C(1) << 53, UINT64_C(1) << 63, UINT64_MAX};

    return below(8) ? some[below(sizeof some / sizeof *some)] : roll();
}

static uint64_t address(void)
{
    static const uint64_t offsets[] = {0, 0, 0, 8, 16, 4088, 4095, 65528, (UINT64_C(1) << 40) - 8};

    return below(16) ? below(12) << LIBD_OFFSET_BITS | offsets[below(9)] : interesting();
}

static void fill_body(struct frame *f)
{
    const char *names[] = {"fuzz-a", "fuzz-b", "fuzz-a\0m", "fuzz-b\0", "x"};
    const size_t lengths[] = {6, 6, 8, 7, 1};
    size_t i = below(5);

    switch (f->head.op) {
    case LIBD_OP_READV:
    case LIBD_OP_WRITEV:
        f->head.count = 1 + (uint32_t)below(6);
        f->size = f->head.count * (uint32_t)sizeof(struct libd_segment);
        for (uint32_t s = 0; s < f->head.count; s++) {
            struct libd_segment segment = {address(), below(8) ? 0 : interesting(), below(20)};
            memcpy(f->body + s * sizeof segment, &segment, sizeof segment);
            if (f->head.op == LIBD_OP_WRITEV && f->size + segment.size <= BODY_MAX)
                f->size += (uint32_t)segment.size;
        }
        break;
    case LIBD_OP_WRITE:
        f->size = (uint32_t)below(64);
        f->head.size = f->size;
        break;
    case LIBD_OP_COMPARE_SWAP:
        f->size = 8;
        break;
    default:
        f->size = f->head.op >= LIBD_OP_TENANT_CREATE ? (uint32_t)lengths[i] : 0;
        memcpy(f->body, names[i], f->size);
    }
}

static void new_frame(struct frame *f, enum greeting greeting)
{
    uint16_t op = greeting == ADMINISTRATOR ? (uint16_t)(32 + below(9)) : (uint16_t)(1 + below(17));

    *f = (struct frame){.head = {.op = op, .addr = address(), .size = interesting(), .id = roll()}};
    if (op == LIBD_OP_ALLOC || op == LIBD_OP_RENEW || op == LIBD_OP_ELEMENT_CREATE) { /* leases of some ms */
        f->head.epoch = below(2) * below(5);
        f->head.addr = op == LIBD_OP_ALLOC ? UINT64_C(1) << below(14) : f->head.addr;
        f->head.size = op == LIBD_OP_ALLOC ? 1 + below(10000) : f->head.size;
    }
    fill_body(f);
    f->head.length = f->size;
}

static void seed(struct input *in)
{
    *in = (struct input){.greeting = (enum greeting)below(GREETINGS), .count = 1 + (uint32_t)below(4)};
    for (uint32_t i = 0; i < in->count; i++)
        new_frame(&in->frames[i], in->greeting);
}

static void mutate_frame(struct frame *f)
{
    uint64_t *fields[] = {&f->head.addr, &f->head.epoch, &f->head.size, &f->head.length, &f->head.id};

    switch (below(10)) {
    case 0:
        ((uint8_t *)&f->head)[below(sizeof f->head)] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        *fields[below(5)] = interesting();
        break;
    case 2:
        f->head.addr = address();
        break;
    case 3:
        f->head.op = (uint16_t)below(44);
        fill_body(f);
        break;
    case 4:
        f->head.count = (uint32_t)interesting();
        break;
    case 5:
        f->size = (uint32_t)below(BODY_MAX + 1);
        break;
    case 6:
        if (f->size)
            f->body[below(f->size)] = (uint8_t)roll();
        break;
    case 7:
        if (f->size >= 8) {
            uint64_t value = below(2) ? interesting() : address();
            memcpy(f->body + below(f->size / 8) * 8, &value, sizeof value);
        }
        break;
    case 8:
        fill_body(f);
        break;
    default:
        f->head.flags ^= (uint16_t)(1u << below(16));
    }
    if (below(10))
        f->head.length = f->size;
}

static void mutate(struct input *in, const struct input *other)
{
    for (uint64_t n = 1 + below(6); n; n--) {
        uint32_t i = in->count ? (uint32_t)below(in->count) : 0;
        switch (below(12)) {
        case 0:
        case 1:
            if (in->count < FRAMES_MAX) /* a new one, or the same again */
                in->frames[in->count] = in->frames[i];
            if (in->count < FRAMES_MAX && below(2))
                new_frame(&in->frames[in->count], in->greeting);
            in->count += in->count < FRAMES_MAX;
            break;
        case 2:
            if (in->count) {
                in->count--;
                memmove(&in->frames[i], &in->frames[i + 1], (in->count - i) * sizeof *in->frames);
            }
            break;
        case 3:
            for (uint32_t k = i; k < in->count && k < other->count; k++)
                in->frames[k] = other->frames[k];
            break;
        case 4:
            in->cut = below(4) ? 0 : (uint32_t)below(64);
            break;
        case 5:
            if (below(8) == 0)
                in->greeting = (enum greeting)below(GREETINGS);
            break;
        default:
            if (in->count)
                mutate_frame(&in->frames[i]);
        }
    }
}

/* ---- the server, and talking to it ------------------------------------------------------------------------------- */

static struct server *server;
static char path[40];
static char secret[64]; /* the bystander's memory is made of it */
static struct {
    uint64_t tenant, element;
    char token[LIBD_TOKEN_HEX + 1];
    uint8_t key[LIBD_KEY_BYTES];
} elastic, fixed, bystander;

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    memcpy(address.sun_path + 1, path, strlen(path));
    REQUIRE(fd >= 0 && connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(path))) == 0);
    return fd;
}

static size_t greet(enum greeting greeting, const void *grant, uint8_t *out)
{
    struct libd_hello hello = {.version = LIBD_VERSION, .kind = LIBD_KIND_DEFAULT};
    const char *token = "";

    memcpy(hello.magic, LIBD_MAGIC, sizeof hello.magic);
    if (greeting == ADMINISTRATOR) {
        hello.kind = LIBD_KIND_ADMIN;
        token = ADMIN;
    } else if (grant) {
        __typeof__(elastic) g;
        memcpy(&g, grant, sizeof g);
        hello.kind = LIBD_KIND_ELEMENT;
        hello.tenant = g.tenant;
        hello.element = g.element;
        memcpy(hello.key, g.key, sizeof hello.key);
        token = ((const __typeof__(elastic) *)grant)->token;
    }
    hello.token_length = (uint16_t)strlen(token);
    memcpy(out, &hello, sizeof hello);
    memcpy(out + sizeof hello, token, hello.token_length);
    if (greeting == SPOILT)
        out[below(sizeof hello)] ^= (uint8_t)(1u << below(8));
    return sizeof hello + hello.token_length;
}

static void receive_all(int fd, void *data, size_t size)
{
    for (size_t got = 0; got < size;) {
        ssize_t n = recv(fd, (char *)data + got, size - got, 0);
        REQUIRE(n > 0);
        got += (size_t)n;
    }
}

/* One request of a well-behaved client. */
static struct libd_reply ask(int fd, struct libd_request request, const void *body, size_t size, void *payload, size_t room)
{
    struct libd_reply reply;

    request.length = size;
    REQUIRE(send(fd, &request, sizeof request, MSG_NOSIGNAL | (size ? MSG_MORE : 0)) == sizeof request);
    REQUIRE(!size || send(fd, body, size, MSG_NOSIGNAL) == (ssize_t)size);
    receive_all(fd, &reply, sizeof reply);
    REQUIRE(reply.magic == LIBD_REPLY_MAGIC && reply.length <= room);
    receive_all(fd, payload, reply.length);
    return reply;
}

static int open_as(enum greeting greeting, const void *grant)
{
    uint8_t out[512];
    struct libd_reply reply;
    int fd = dial();
    size_t size = greet(greeting, grant, out);

    REQUIRE(send(fd, out, size, MSG_NOSIGNAL) == (ssize_t)size);
    receive_all(fd, &reply, sizeof reply);
    REQUIRE(reply.code == 0 && reply.length <= sizeof out);
    receive_all(fd, out, reply.length);
    return fd;
}

static void new_element(int admin, const char *tenant, const char *token, bool grows, __typeof__(elastic) *out)
{
    char names[64];
    size_t n = (size_t)snprintf(names, sizeof names, "%s%cm%d", tenant, 0, grows);
    struct libd_request request = {.op = LIBD_OP_ELEMENT_CREATE, .size = grows ? 0 : 8192, .flags = grows};
    struct libd_reply reply = ask(admin, request, names, n, out->key, sizeof out->key);

    REQUIRE(reply.code == 0);
    out->element = reply.a;
    out->tenant = reply.b;
    strcpy(out->token, token);
}

static void new_tenant(int admin, const char *name, char *token)
{
    struct libd_request request = {.op = LIBD_OP_TENANT_CREATE, .size = 1 << 20};
    struct libd_reply reply = ask(admin, request, name, strlen(name), token, LIBD_TOKEN_HEX);

    REQUIRE(reply.code == 0);
    token[LIBD_TOKEN_HEX] = '\0';
}

static void fresh_tenant(void)
{
    char token[LIBD_TOKEN_HEX + 1];
    const char *all[] = {"fuzz", "fuzz-a", "fuzz-b"};
    int admin = open_as(ADMINISTRATOR, NULL);

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ask(admin, (struct libd_request){.op = LIBD_OP_TENANT_DROP}, all[i], strlen(all[i]), NULL, 0);
    new_tenant(admin, "fuzz", token);
    new_element(admin, "fuzz", token, true, &elastic);
    new_element(admin, "fuzz", token, false, &fixed);
    close(admin);
}

static void fresh_server(void)
{
    struct server_options options = {
        .size = 64 << 20,
        .default_region = 1 << 16,
        .path = path,
        .admin_token = ADMIN,
    };
    struct libd_error err;
    uint8_t memory[8192];
    static unsigned number;

    if (server)
        server_stop(server);
    snprintf(path, sizeof path, "scad-fuzz-%d-%u", getpid(), number++);
    REQUIRE(server_start(&options, &server, &err) == 0);
    int admin = open_as(ADMINISTRATOR, NULL);
    char token[LIBD_TOKEN_HEX + 1];
    new_tenant(admin, "bystander", token);
    new_element(admin, "bystander", token, false, &bystander);
    close(admin);
    for (size_t i = 0; i < sizeof memory; i++)
        memory[i] = (uint8_t)secret[i % sizeof secret];
    int fd = open_as(FIXED, &bystander);
    struct libd_request write = {.op = LIBD_OP_WRITE, .size = sizeof memory};
    REQUIRE(ask(fd, write, memory, sizeof memory, NULL, 0).code == 0);
    close(fd);
    fresh_tenant();
}

static void check_bystander(void)
{
    uint8_t memory[8192];
    int fd = open_as(FIXED, &bystander);
    struct libd_request read = {.op = LIBD_OP_READ, .size = sizeof memory};

    REQUIRE(ask(fd, read, NULL, 0, memory, sizeof memory).code == 0);
    close(fd);
    for (size_t i = 0; i < sizeof memory; i++)
        REQUIRE(memory[i] == (uint8_t)secret[i % sizeof secret]);
}

/* What has been answered: whole replies in the protocol's form, and nothing of the bystander. The last one may be cut off,
 * where the server closed the connection. */
static void check_answer(const uint8_t *data, size_t size)
{
    struct libd_reply reply;

    REQUIRE(!memmem(data, size, secret, sizeof secret));
    while (size >= sizeof reply) {
        memcpy(&reply, data, sizeof reply);
        REQUIRE(reply.magic == LIBD_REPLY_MAGIC);
        REQUIRE(reply.code == 0 || reply.length == 0);
        size_t all = sizeof reply + reply.length;
        if (all > size)
            return;
        data += all;
        size -= all;
    }
}

/* Sends an input, hears all answers out. */
static void run(const struct input *in)
{
    static uint8_t out[512 + FRAMES_MAX * sizeof(struct frame)], answer[4 << 20];
    const void *grants[GREETINGS] = {[ELASTIC] = &elastic, [FIXED] = &fixed, [SPOILT] = &elastic};
    size_t size = greet(in->greeting, grants[in->greeting], out), sent = 0, got = 0;
    int fd = dial();
    bool all = false;

    for (uint32_t i = 0; i < in->count; i++) {
        const struct frame *f = &in->frames[i];
        memcpy(out + size, &f->head, sizeof f->head);
        memcpy(out + size + sizeof f->head, f->body, f->size);
        size += sizeof f->head + f->size;
    }
    size -= in->cut < size ? in->cut : size;
    memset(hits, 0, sizeof hits);
    for (;;) {
        struct pollfd p = {fd, (short)(POLLIN | (all ? 0 : POLLOUT)), 0};
        REQUIRE(poll(&p, 1, SILENCE) > 0);
        if (p.revents & POLLOUT && sent < size) {
            ssize_t n = send(fd, out + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
            sent = n > 0 ? sent + (size_t)n : size; /* it has hung up: what it answered counts */
        }
        if (sent == size && !all) {
            all = true;
            shutdown(fd, SHUT_WR);
        }
        if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t n = recv(fd, answer + got, sizeof answer - got, MSG_DONTWAIT);
            if (n <= 0)
                break;
            got += (size_t)n;
            if (got == sizeof answer) /* region 0 many times: enough of it */
                break;
        }
    }
    close(fd);
    check_answer(answer, got);
}

int main(int argc, char **argv)
{
    static struct input *corpus[CORPUS_MAX];
    struct input in;
    uint64_t frames = 0, inputs = 0;
    size_t kept = 0, seeds = 0;

    REQUIRE(argc == 3);
    dice = strtoull(argv[1], NULL, 10) * UINT64_C(0x9E3779B97F4A7C15) | 1;
    for (size_t i = 0; i < sizeof secret; i++)
        secret[i] = (char)roll();
    for (uint64_t wanted = strtoull(argv[2], NULL, 10); frames < wanted; inputs++) {
        if (inputs % FRESH_SERVER == 0) {
            if (server)
                check_bystander();
            fresh_server();
        } else if (inputs % FRESH_TENANT == 0) {
            fresh_tenant();
        }
        bool seeding = inputs < 256;
        if (seeding || kept == 0) {
            seed(&in);
        } else {
            in = *corpus[below(2) ? below(kept) : kept - 1 - below(kept < 64 ? kept : 64)];
            mutate(&in, corpus[below(kept)]);
        }
        run(&in);
        frames += in.count;
        if (is_new() && kept < CORPUS_MAX) {
            corpus[kept] = malloc(sizeof in);
            *corpus[kept++] = in;
        }
        if (seeding)
            seeds = edges();
    }
    check_bystander();
    server_stop(server);
    printf("{\"inputs\": %" PRIu64 ", \"frames\": %" PRIu64 ", \"corpus\": %zu, \"seed_edges\": %zu, \"edges\": %zu}\n", inputs,
           frames, kept, seeds, edges());
    while (kept)
        free(corpus[--kept]);
    return 0;
}
