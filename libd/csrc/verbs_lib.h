/* libibverbs, loaded when it is first needed, and what server and clients both do with it.
 *
 * The functions that verbs.h defines inline go through the context's table of operations and need no library; its macros
 * are avoided by calling the functions that the library exports. */
#ifndef LIBD_VERBS_LIB_H
#define LIBD_VERBS_LIB_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#include "codes.h"
#include "verbs.h"
#include "wire.h"

#undef ibv_get_device_list
#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova

struct verbs_lib {
    struct ibv_device **(*get_device_list)(int *count);
    void (*free_device_list)(struct ibv_device **list);
    const char *(*get_device_name)(struct ibv_device *device);
    struct ibv_context *(*open_device)(struct ibv_device *device);
    int (*close_device)(struct ibv_context *context);
    int (*query_device)(struct ibv_context *context, struct ibv_device_attr *attributes);
    int (*query_port)(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attributes);
    int (*query_gid)(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid);
    struct ibv_pd *(*alloc_pd)(struct ibv_context *context);
    int (*dealloc_pd)(struct ibv_pd *pd);
    struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *addr, size_t length, int access);
    struct ibv_mr *(*reg_mr_iova)(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access);
    int (*dereg_mr)(struct ibv_mr *mr);
    struct ibv_comp_channel *(*create_comp_channel)(struct ibv_context *context);
    int (*destroy_comp_channel)(struct ibv_comp_channel *channel);
    struct ibv_cq *(*create_cq)(struct ibv_context *context, int cqe, void *cookie, struct ibv_comp_channel *channel,
                                int vector);
    int (*destroy_cq)(struct ibv_cq *cq);
    int (*get_cq_event)(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **cookie);
    void (*ack_cq_events)(struct ibv_cq *cq, unsigned count);
    struct ibv_qp *(*create_qp)(struct ibv_pd *pd, struct ibv_qp_init_attr *attributes);
    int (*modify_qp)(struct ibv_qp *qp, struct ibv_qp_attr *attributes, int mask);
    int (*destroy_qp)(struct ibv_qp *qp);
};

/* An open device and where its packets leave it. */
struct verbs_port {
    const struct verbs_lib *lib;
    struct ibv_context *context;
    char name[64];
    uint8_t number, gid_index, mtu; /* mtu: enum ibv_mtu */
    uint16_t lid;
    union ibv_gid gid;
    int max_answers, max_asks; /* READs and atomics at a time */
    enum ibv_atomic_cap atomics;
};

const struct verbs_lib *verbs_lib(struct libd_error *err);

/* `device` is NAME[:PORT[:GID INDEX]]; empty: the first with an active port. */
int verbs_port_open(const char *device, struct verbs_port *out, struct libd_error *err);
void verbs_port_close(struct verbs_port *port);

/* A queue pair that is connected to nobody yet. `inlined`: bytes that a WRITE should be able to carry in the request; what
 * the device grants. */
int verbs_qp_create(const struct verbs_port *port, struct ibv_pd *pd, struct ibv_cq *cq, uint32_t depth,
                    uint32_t *inlined, struct ibv_qp **out, struct libd_error *err);
/* What to tell the other side about `qp`. */
void verbs_qp_describe(const struct verbs_port *port, const struct ibv_qp *qp, struct libd_verbs_peer *out);
/* Connects it. `access`: what the other side may do here. */
int verbs_qp_connect(const struct verbs_port *port, struct ibv_qp *qp, const struct libd_verbs_peer *own,
                     const struct libd_verbs_peer *peer, unsigned access, struct libd_error *err);

#endif
