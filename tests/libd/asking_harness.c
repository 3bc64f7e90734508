/* A client whose RDMA device does at once whatever it is asked to, and writes down how it was asked. In the place of
 * verbs_lib.c; the memory server it asks is in this process, too.
 *
 * Prints for each transfer its name, how many work requests it took, in how many lists, how many of them carried their bytes
 * along, and how many asked for a completion. With an argument requests get lost, and it prints code and detail of opening.
 * Before the transfers that are called `cut-…` the connection to the server ends, and what is heard first is that the device
 * gave the request up. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "server.h"
#include "transport.h"
#include "verbs_lib.h"

#define INLINED 64
#define DONE_MAX 1024

struct exported {
    struct ibv_mr mr; /* first */
    uint64_t from;
    struct exported *next;
};

static struct ibv_context context;
static struct exported *exports;
static struct ibv_wc done[DONE_MAX];
static unsigned done_first, done_count;
static unsigned requests, lists, inlined, signalled;
static bool losing;
static enum ibv_wc_status ending; /* of the next request */
static uint32_t keys;

static struct ibv_pd *alloc_pd(struct ibv_context *c) { return calloc(1, sizeof(struct ibv_pd)); }

static int dealloc_pd(struct ibv_pd *pd)
{
    free(pd);
    return 0;
}

static struct ibv_mr *reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
    struct exported *made = calloc(1, sizeof *made);

    made->mr.addr = addr;
    made->mr.length = length;
    made->mr.lkey = made->mr.rkey = ++keys;
    made->from = iova;
    made->next = exports;
    exports = made;
    return &made->mr;
}

static struct ibv_mr *reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
    return reg_mr_iova(pd, addr, length, (uint64_t)(uintptr_t)addr, access);
}

static int dereg_mr(struct ibv_mr *mr)
{
    struct exported **link = &exports;

    while (*link != (struct exported *)mr)
        link = &(*link)->next;
    *link = (*link)->next;
    free(mr);
    return 0;
}

static struct ibv_comp_channel *create_comp_channel(struct ibv_context *c)
{
    struct ibv_comp_channel *channel = calloc(1, sizeof *channel);

    channel->fd = eventfd(0, EFD_CLOEXEC);
    return channel;
}

static int destroy_comp_channel(struct ibv_comp_channel *channel)
{
    close(channel->fd);
    free(channel);
    return 0;
}

static struct ibv_cq *create_cq(struct ibv_context *c, int n, void *cookie, struct ibv_comp_channel *channel, int vector)
{
    struct ibv_cq *cq = calloc(1, sizeof *cq);

    cq->context = &context;
    return cq;
}

static int destroy_cq(struct ibv_cq *cq)
{
    free(cq);
    return 0;
}

static int get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cookie) { return -1; }
static void ack_cq_events(struct ibv_cq *cq, unsigned n) {}

static struct ibv_qp *create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attributes)
{
    struct ibv_qp *qp = calloc(1, sizeof *qp);

    attributes->cap.max_inline_data = INLINED;
    qp->context = &context;
    qp->qp_num = ++keys;
    return qp;
}

static int modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask) { return 0; }

static int destroy_qp(struct ibv_qp *qp)
{
    free(qp);
    return 0;
}

/* Ends the connections of this process, the server's and the client's ends of them. */
static void hang_up(void)
{
    struct sockaddr_storage peer;

    for (int fd = 0; fd < 256; fd++) {
        socklen_t length = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.ss_family == AF_INET)
            shutdown(fd, SHUT_RDWR);
    }
}

static enum ibv_wc_status perform(const struct ibv_send_wr *wr)
{
    uint64_t size = wr->sg_list->length, at;
    void *own = (void *)(uintptr_t)wr->sg_list->addr;

    if (losing)
        return IBV_WC_RETRY_EXC_ERR;
    if (ending) {
        enum ibv_wc_status status = ending;
        ending = IBV_WC_SUCCESS;
        hang_up();
        return status;
    }
    if (size == 0) /* no key is looked at */
        return IBV_WC_SUCCESS;
    for (struct exported *e = exports; e; e = e->next) {
        at = wr->wr.rdma.remote_addr - e->from;
        if (e->mr.rkey != wr->wr.rdma.rkey || at > e->mr.length || size > e->mr.length - at)
            continue;
        if (wr->opcode == IBV_WR_RDMA_WRITE)
            memcpy((char *)e->mr.addr + at, own, size);
        else
            memcpy(own, (char *)e->mr.addr + at, size);
        return IBV_WC_SUCCESS;
    }
    return IBV_WC_REM_ACCESS_ERR;
}

static int post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    lists++;
    for (; wr; wr = wr->next) {
        enum ibv_wc_status status = perform(wr);
        bool asked = (wr->send_flags & IBV_SEND_SIGNALED) != 0;
        requests++;
        signalled += asked;
        inlined += (wr->send_flags & IBV_SEND_INLINE) != 0;
        if (asked || status != IBV_WC_SUCCESS)
            done[(done_first + done_count++) % DONE_MAX] =
                (struct ibv_wc){.wr_id = wr->wr_id, .status = status, .qp_num = qp->qp_num};
    }
    return 0;
}

static int poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *wc)
{
    int n = 0;

    for (; n < most && done_count; done_count--)
        wc[n++] = done[done_first++ % DONE_MAX];
    return n;
}

static int req_notify_cq(struct ibv_cq *cq, int solicited) { return 0; }

static const struct verbs_lib lib = {
    .alloc_pd = alloc_pd,
    .dealloc_pd = dealloc_pd,
    .reg_mr = reg_mr,
    .reg_mr_iova = reg_mr_iova,
    .dereg_mr = dereg_mr,
    .create_comp_channel = create_comp_channel,
    .destroy_comp_channel = destroy_comp_channel,
    .create_cq = create_cq,
    .destroy_cq = destroy_cq,
    .get_cq_event = get_cq_event,
    .ack_cq_events = ack_cq_events,
    .create_qp = create_qp,
    .modify_qp = modify_qp,
    .destroy_qp = destroy_qp,
};

int verbs_port_open(const char *device, struct verbs_port *out, struct libd_error *err)
{
    *out = (struct verbs_port){.lib = &lib, .context = &context, .name = "fake0", .number = 1, .mtu = IBV_MTU_1024};
    out->max_answers = out->max_asks = 16;
    return LIBD_OK;
}

void verbs_port_close(struct verbs_port *port) {}

int libd_verbs_devices(struct libd_verbs_device **out, size_t *count, struct libd_error *err)
{
    *out = NULL;
    *count = 0;
    return LIBD_OK;
}

static void transfer(struct libd_transport *t, const char *name, size_t count, size_t size, bool in)
{
    struct libd_vec *vec = calloc(count, sizeof *vec);
    char *data = malloc(count * size);
    struct libd_error err;

    memset(data, in ? 0xff : 0x5a, count * size);
    for (size_t i = 0; i < count; i++)
        vec[i] = (struct libd_vec){.addr = i * size, .data = data + i * size, .size = size};
    requests = lists = inlined = signalled = 0;
    int code = in ? libd_readv(t, vec, count, &err) : libd_writev(t, vec, count, &err);
    for (size_t i = 0; i < count * size; i++)
        if (!code && data[i] != 0x5a)
            code = -1;
    printf("%s %d %u %u %u %u\n", name, code, requests, lists, inlined, signalled);
    free(data);
    free(vec);
}

int main(int argc, char **argv)
{
    struct server_options options = {
        .size = UINT64_C(64) << 20,
        .default_region = UINT64_C(1) << 20,
        .host = "127.0.0.1",
        .device = "",
    };
    struct libd_address address = {.host = "127.0.0.1", .kind = LIBD_KIND_DEFAULT, .timeout = 20, .stall = 20, .stripes = 1};
    struct libd_transport *t;
    struct libd_error err;
    struct server *server;
    char port[8];

    context.ops.post_send = post_send;
    context.ops.poll_cq = poll_cq;
    context.ops.req_notify_cq = req_notify_cq;
    losing = argc > 1;
    if (server_start(&options, &server, &err))
        return 1;
    snprintf(port, sizeof port, "%d", server_port(server));
    address.port = port;
    if (libd_open_verbs(&address, "", &t, &err)) {
        printf("open %d %lu\n", err.code, (unsigned long)err.detail);
    } else {
        printf("open 0 %u\n", requests);
        transfer(t, "short-write", 1, INLINED, false);
        transfer(t, "longer-write", 1, INLINED + 1, false);
        transfer(t, "short-writes", 1000, 8, false);
        transfer(t, "short-reads", 1000, 8, true);
        transfer(t, "long-writes", 4, 4096, false);
        ending = IBV_WC_WR_FLUSH_ERR;
        transfer(t, "cut-and-flushed", 4, 4096, true);
        ending = IBV_WC_RETRY_EXC_ERR;
        transfer(t, "cut-and-given-up", 4, 4096, true);
        libd_destroy(t);
    }
    server_stop(server);
    return exports ? 3 : 0;
}
