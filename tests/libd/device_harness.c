/* A memory server with an RDMA device that does nothing but count, and fails when it is told to: what the server asks of a
 * device can be seen without one, and what a healthy one never does can be had. In the place of verbs_lib.c.
 *
 * Prints its port, then answers lines: `count` with domains, memory regions and queue pairs that exist; `fail` has
 * memory regions stay from then on, `work` ends that. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server.h"
#include "transport.h"
#include "verbs_lib.h"

static atomic_int domains, regions, pairs, keys;
static atomic_bool failing;
static struct ibv_context context;

static struct ibv_pd *alloc_pd(struct ibv_context *c)
{
    atomic_fetch_add(&domains, 1);
    return calloc(1, sizeof(struct ibv_pd));
}

static int dealloc_pd(struct ibv_pd *pd)
{
    atomic_fetch_sub(&domains, 1);
    free(pd);
    return 0;
}

static struct ibv_mr *reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
    struct ibv_mr *mr = calloc(1, sizeof *mr);

    atomic_fetch_add(&regions, 1);
    mr->rkey = (uint32_t)atomic_fetch_add(&keys, 1) + 1;
    return mr;
}

static int dereg_mr(struct ibv_mr *mr)
{
    if (atomic_load(&failing))
        return EIO;
    atomic_fetch_sub(&regions, 1);
    free(mr);
    return 0;
}

static struct ibv_cq *create_cq(struct ibv_context *c, int n, void *cookie, struct ibv_comp_channel *channel, int vector)
{
    return calloc(1, sizeof(struct ibv_cq));
}

static int destroy_cq(struct ibv_cq *cq)
{
    free(cq);
    return 0;
}

static struct ibv_qp *create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attributes)
{
    struct ibv_qp *qp = calloc(1, sizeof *qp);

    qp->qp_num = (uint32_t)atomic_fetch_add(&pairs, 1);
    return qp;
}

static int modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask) { return 0; }

static int destroy_qp(struct ibv_qp *qp)
{
    atomic_fetch_sub(&pairs, 1);
    free(qp);
    return 0;
}

static const struct verbs_lib lib = {
    .alloc_pd = alloc_pd,
    .dealloc_pd = dealloc_pd,
    .reg_mr_iova = reg_mr_iova,
    .dereg_mr = dereg_mr,
    .create_cq = create_cq,
    .destroy_cq = destroy_cq,
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

int main(int argc, char **argv)
{
    struct server_options options = {
        .size = UINT64_C(64) << 20,
        .host = "127.0.0.1",
        .admin_token = argc > 1 ? argv[1] : "",
        .device = "",
    };
    struct libd_error err;
    struct server *server;
    char line[64];

    if (server_start(&options, &server, &err))
        return 1;
    printf("%u\n", server_port(server));
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (strcmp(line, "count\n") != 0)
            atomic_store(&failing, strcmp(line, "fail\n") == 0);
        printf("%d %d %d\n", domains, regions, pairs);
        fflush(stdout);
    }
    server_stop(server);
    return domains || pairs ? 3 : 0;
}
