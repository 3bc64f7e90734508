/* One-sided reads or writes with plain verbs: `verbs_calls FROM TO GID read|write SIZE COUNT` connects a queue pair of device
 * FROM to one of device TO (both of this process) and prints the nanoseconds of COUNT operations, one at a time. */
#include <infiniband/verbs.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct end {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    struct ibv_mr *mr;
    union ibv_gid gid;
    uint8_t *memory;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static struct ibv_context *open_device(const char *name)
{
    struct ibv_device **list = ibv_get_device_list(NULL);
    struct ibv_context *context = NULL;

    for (struct ibv_device **d = list; list && *d && !context; d++)
        if (strcmp(ibv_get_device_name(*d), name) == 0)
            context = ibv_open_device(*d);
    if (!context)
        die(name);
    ibv_free_device_list(list);
    return context;
}

static void open_end(struct end *e, const char *device, int gid, size_t size)
{
    e->context = open_device(device);
    e->pd = ibv_alloc_pd(e->context);
    e->cq = ibv_create_cq(e->context, 16, NULL, NULL, 0);
    e->memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    if (!e->pd || !e->cq || !e->memory || ibv_query_gid(e->context, 1, gid, &e->gid) != 0)
        die("open");
    memset(e->memory, 0, size);
    e->mr = ibv_reg_mr(e->pd, e->memory, size,
                       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
    struct ibv_qp_init_attr init = {
        .send_cq = e->cq,
        .recv_cq = e->cq,
        .cap = {.max_send_wr = 4, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1, .max_inline_data = 64},
        .qp_type = IBV_QPT_RC,
    };
    e->qp = ibv_create_qp(e->pd, &init);
    if (!e->mr || !e->qp)
        die("create");
}

static void connect_end(struct end *e, const struct end *other, int gid)
{
    struct ibv_qp_attr to_init = {
        .qp_state = IBV_QPS_INIT,
        .port_num = 1,
        .qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
    };
    struct ibv_qp_attr to_receive = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_4096,
        .dest_qp_num = other->qp->qp_num,
        .max_dest_rd_atomic = 16,
        .min_rnr_timer = 12,
        .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = other->gid, .sgid_index = gid, .hop_limit = 64}},
    };
    struct ibv_qp_attr to_send = {
        .qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 16};
    struct ibv_port_attr port;

    if (ibv_query_port(e->context, 1, &port) != 0)
        die("port");
    to_receive.path_mtu = port.active_mtu;
    if (ibv_modify_qp(e->qp, &to_init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) != 0 ||
        ibv_modify_qp(e->qp, &to_receive,
                      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                          IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER) != 0 ||
        ibv_modify_qp(e->qp, &to_send,
                      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                          IBV_QP_MAX_QP_RD_ATOMIC) != 0)
        die("connect");
}

static void move(struct end *from, const struct end *to, enum ibv_wr_opcode opcode, uint32_t size)
{
    struct ibv_sge sge = {.addr = (uintptr_t)from->memory, .length = size, .lkey = from->mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &sge,
        .num_sge = 1,
        .opcode = opcode,
        .send_flags = IBV_SEND_SIGNALED | (opcode == IBV_WR_RDMA_WRITE && size <= 64 ? IBV_SEND_INLINE : 0),
        .wr.rdma = {.remote_addr = (uintptr_t)to->memory, .rkey = to->mr->rkey},
    };
    struct ibv_send_wr *bad;
    struct ibv_wc wc;
    int done;

    if (ibv_post_send(from->qp, &wr, &bad) != 0)
        die("post");
    while ((done = ibv_poll_cq(from->cq, 1, &wc)) == 0)
        ;
    if (done < 0 || wc.status != IBV_WC_SUCCESS) {
        fprintf(stderr, "completion: %s\n", done < 0 ? "none" : ibv_wc_status_str(wc.status));
        exit(1);
    }
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

int main(int argc, char **argv)
{
    struct end from, to;

    if (argc != 7)
        return 2;
    int gid = atoi(argv[3]);
    enum ibv_wr_opcode opcode = strcmp(argv[4], "read") == 0 ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
    uint32_t size = (uint32_t)strtoul(argv[5], NULL, 10);
    long count = atol(argv[6]);
    open_end(&from, argv[1], gid, size);
    open_end(&to, argv[2], gid, size);
    connect_end(&from, &to, gid);
    connect_end(&to, &from, gid);

    /* Whatever is to arrive must differ from what is there. */
    uint8_t *source = opcode == IBV_WR_RDMA_READ ? to.memory : from.memory;
    for (uint32_t i = 0; i < size; i++)
        source[i] = (uint8_t)(i * 31 + 7);
    for (int i = 0; i < 3; i++)
        move(&from, &to, opcode, size);
    if (memcmp(from.memory, to.memory, size) != 0) {
        fprintf(stderr, "wrong bytes\n");
        return 1;
    }
    int64_t start = now();
    for (long i = 0; i < count; i++)
        move(&from, &to, opcode, size);
    printf("%" PRId64 "\n", now() - start);
    return 0;
}
