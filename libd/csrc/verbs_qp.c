/* Queue pairs: making them, and bringing them from nothing to ready to send. */
#ifdef LIBD_HAVE_VERBS
#include "verbs_lib.h"

#include <errno.h>
#include <string.h>

#include "pool.h"

#define QPN_MASK 0xffffffu
#define READS_MAX 128 /* at a time; each takes memory of the side that answers */
/* After 4.096 µs × 2^14 without an answer (67 ms) a request is repeated, six times (Soft-RoCE takes seven for ever): half a
 * second, or up to four times that, as the specification allows. A server that dies is noticed earlier, by the end of its
 * TCP connection. */
#define ANSWER_TIME 14
#define REPEATS 6

int verbs_qp_create(const struct verbs_port *port, struct ibv_pd *pd, struct ibv_cq *cq, uint32_t depth,
                    uint32_t *inlined, struct ibv_qp **out, struct libd_error *err)
{
    for (uint32_t want = *inlined;; want /= 2) {
        struct ibv_qp_init_attr attributes = {
            .send_cq = cq,
            .recv_cq = cq,
            .cap = {.max_send_wr = depth, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1, .max_inline_data = want},
            .qp_type = IBV_QPT_RC,
        };
        errno = 0;
        *out = port->lib->create_qp(pd, &attributes);
        if (*out) {
            *inlined = attributes.cap.max_inline_data;
            return LIBD_OK;
        }
        if (want == 0 || errno != EINVAL)
            break;
    }
    if (errno == ENOMEM || errno == EAGAIN || errno == ENOSPC)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_DEVICE, 0);
    return libd_fail(err, LIBD_ESYS, (uint64_t)(errno ? errno : EIO), 0);
}

void verbs_qp_describe(const struct verbs_port *port, const struct ibv_qp *qp, struct libd_verbs_peer *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->gid, port->gid.raw, sizeof out->gid);
    out->qpn = qp->qp_num;
    libd_random(&out->psn, sizeof out->psn);
    out->psn &= QPN_MASK;
    out->lid = port->lid;
    out->mtu = port->mtu;
    out->atomic = (uint8_t)(port->max_answers < READS_MAX ? port->max_answers : READS_MAX);
}

static uint8_t smaller(int a, int b) { return (uint8_t)(a < b ? a : b); }

int verbs_qp_connect(const struct verbs_port *port, struct ibv_qp *qp, const struct libd_verbs_peer *own,
                     const struct libd_verbs_peer *peer, unsigned access, struct libd_error *err)
{
    struct ibv_qp_attr init = {.qp_state = IBV_QPS_INIT, .port_num = port->number, .qp_access_flags = access};
    struct ibv_qp_attr receive = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = smaller(own->mtu, peer->mtu),
        .dest_qp_num = peer->qpn & QPN_MASK,
        .rq_psn = peer->psn & QPN_MASK,
        .max_dest_rd_atomic = own->atomic,
        .min_rnr_timer = 12,
        /* With the global header the address is complete whatever the link layer is. */
        .ah_attr = {
            .is_global = 1,
            .grh = {.sgid_index = port->gid_index, .hop_limit = 64},
            .dlid = peer->lid,
            .port_num = port->number,
        },
    };
    struct ibv_qp_attr send = {
        .qp_state = IBV_QPS_RTS,
        .sq_psn = own->psn,
        .timeout = ANSWER_TIME,
        .retry_cnt = REPEATS,
        .rnr_retry = REPEATS,
        .max_rd_atomic = smaller(port->max_asks, peer->atomic),
    };
    int error;

    if (peer->mtu < IBV_MTU_256 || peer->mtu > IBV_MTU_4096)
        return libd_fail(err, LIBD_EINVAL, 0, 0);
    memcpy(receive.ah_attr.grh.dgid.raw, peer->gid, sizeof peer->gid);
    error = port->lib->modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    if (!error)
        error = port->lib->modify_qp(qp, &receive,
                                     IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                         IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (!error)
        error = port->lib->modify_qp(qp, &send,
                                     IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                                         IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
    return error ? libd_fail(err, LIBD_ESYS, (uint64_t)error, 0) : LIBD_OK;
}
#else
typedef int verbs_qp_is_not_built;
#endif
