/* The queue pair of a verbs transport: made over the connection to the server, remade when it has failed. */
#ifdef LIBD_HAVE_VERBS
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "verbs_client.h"

#define TRIES 3 /* of one work request, each with what the server says about its region by then */

/* ---- regions of the other side ----------------------------------------------------------------------------------- */

struct remote *verbs_remote_make(struct verbs *v, uint64_t addr)
{
    uint64_t region = addr >> LIBD_OFFSET_BITS;
    struct remote **chunk = &v->remotes[region / LIBD_BOUND_CHUNK];

    if (!*chunk)
        *chunk = calloc(LIBD_BOUND_CHUNK, sizeof **chunk);
    return *chunk ? *chunk + region % LIBD_BOUND_CHUNK : NULL;
}

void verbs_remote_set(struct remote *remote, const struct libd_verbs_region *about)
{
    *remote = (struct remote){
        .epoch = about->epoch,
        .base = about->addr,
        .size = about->size,
        .rkey = about->rkey,
        .nic = about->nic != 0,
        .fresh = true,
    };
}

/* Asks the server something that may be asked twice. The device may say that a queue pair has ended before anybody has
 * noticed that the connection has, with which it ended: then the question finds out, and is put again on a new one. */
static int ask(struct verbs *v, struct libd_call *call, struct libd_error *err)
{
    const struct libd_call question = *call;
    int code = libd_stream_call(v->control, call, err);

    if (code == LIBD_ECLOSED && !atomic_load(&v->transport.closed)) {
        *call = question;
        code = libd_stream_call(v->control, call, err);
    }
    return code;
}

int verbs_remote_fetch(struct verbs *v, uint64_t addr, uint64_t epoch, struct libd_verbs_region *out,
                       struct libd_error *err)
{
    struct libd_call call = {
        .request = {.op = LIBD_OP_VERBS_REGION, .addr = addr & ~LIBD_OFFSET_MASK, .epoch = epoch},
        .reply_payload = out,
        .reply_room = sizeof *out,
    };
    int code = ask(v, &call, err);

    if (!code && (call.reply.length != sizeof *out || out->size > LIBD_OFFSET_MASK + 1))
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    if (!code && out->epoch != epoch)
        return libd_fail(err, LIBD_ESTALE, out->epoch, 0);
    return code;
}

/* ---- the queue pair ---------------------------------------------------------------------------------------------- */

/* Nothing touches local memory any more when it returns. */
static void unplug(struct verbs *v)
{
    struct ibv_wc wc[16];

    if (v->qp)
        v->domain->port.lib->destroy_qp(v->qp);
    v->qp = NULL;
    while (v->cq && v->cq->context->ops.poll_cq(v->cq, 16, wc) > 0)
        ;
    if (v->watch >= 0)
        close(v->watch);
    v->watch = -1;
}

/* Has the server make its queue pair, and tells it about ours. */
static int shake_hands(struct verbs *v, const struct libd_verbs_peer *own, struct libd_verbs_peer *peer, int *watch,
                       uint64_t *connection, struct libd_error *err)
{
    struct stream *control = stream_of(v->control);

    for (;;) {
        uint64_t before = atomic_load(&control->connection);
        struct libd_call call = {
            .request = {.op = LIBD_OP_VERBS_OPEN, .length = sizeof *own},
            .payload = own,
            .payload_size = sizeof *own,
            .reply_payload = peer,
            .reply_room = sizeof *peer,
        };
        int code = ask(v, &call, err);
        if (code)
            return code;
        if (call.reply.length != sizeof *peer)
            return libd_fail(err, LIBD_EPROTO, 0, 0);
        *watch = stream_connection(v->control, connection);
        if (*watch >= 0 && *connection == before)
            return LIBD_OK;
        /* The server's queue pair ended with the connection that it was made on. */
        if (*watch >= 0)
            close(*watch);
    }
}

static int plug(struct verbs *v, bool cut, struct ibv_qp **qp, int *watch, uint64_t *connection, struct libd_error *err)
{
    const struct verbs_port *port = &v->domain->port;
    struct libd_verbs_peer own, peer;
    int code = cut ? libd_stream_alive(v->control, err) : LIBD_OK;

    *qp = NULL;
    *watch = -1;
    v->inlined = INLINE_WANTED;
    if (!code)
        code = verbs_qp_create(port, v->domain->pd, v->cq, DEPTH, &v->inlined, qp, err);
    if (code)
        return code;
    verbs_qp_describe(port, *qp, &own);
    own.atomic = 1; /* nobody asks us */
    code = shake_hands(v, &own, &peer, watch, connection, err);
    if (!code && peer.atomic == 0) /* a READ would wait for its turn for ever */
        code = libd_fail(err, LIBD_EPROTO, 0, 0);
    if (!code)
        code = verbs_qp_connect(port, *qp, &own, &peer, 0, err);
    if (code) {
        port->lib->destroy_qp(*qp);
        if (*watch >= 0)
            close(*watch);
    }
    return code;
}

/* With the lock held and no queue pair; drops the lock. */
static int link_make(struct verbs *v, struct libd_error *err)
{
    struct ibv_qp *qp;
    uint64_t connection;
    bool cut = v->cut;
    int watch, code;

    v->linking = true;
    pthread_mutex_unlock(&v->lock);
    code = plug(v, cut, &qp, &watch, &connection, err);
    verbs_lock(v);
    v->linking = false;
    if (v->waiting)
        pthread_cond_broadcast(&v->changed);
    if (code)
        return code;
    v->qp = qp;
    v->watch = watch;
    v->connection = connection;
    v->cut = v->broken = false;
    if (atomic_load(&v->transport.closed)) {
        unplug(v);
        return libd_fail(err, LIBD_ECLOSED, 0, 0);
    }
    struct epoll_event event = {.events = EPOLLRDHUP};
    if (v->epoll >= 0)
        epoll_ctl(v->epoll, EPOLL_CTL_ADD, watch, &event);
    return LIBD_OK;
}

void verbs_link_lose(struct verbs *v, int code, uint64_t detail, uint64_t have)
{
    struct libd_error err;

    unplug(v);
    v->broken = false;
    v->losses++;
    libd_fail(&err, code, detail, have);
    verbs_fail_all(v, &err);
    if (v->waiting)
        pthread_cond_broadcast(&v->changed);
}

/* A queue pair for what is under way, or its end. */
static int resume(struct verbs *v, struct libd_error *err)
{
    int code = link_make(v, err);

    if (code) {
        if (code == LIBD_ESTALE)
            verbs_link_lose(v, code, err->detail, err->have);
        else
            verbs_link_lose(v, LIBD_ECLOSED, atomic_load(&v->transport.closed) ? 0 : 2,
                            code == LIBD_ECLOSED ? err->have : code == LIBD_ETIMEOUT ? ETIMEDOUT : 0);
        return code == LIBD_ESIGNAL ? code : LIBD_OK;
    }
    verbs_repost(v);
    verbs_pump(v);
    return LIBD_OK;
}

/* Whether a word was changed by what got no answer nobody knows: it must not be done again. */
static void spoil_atomics(struct verbs *v, uint64_t until)
{
    struct libd_error err;

    libd_fail(&err, LIBD_ECLOSED, 2, 0);
    for (uint64_t i = v->tail; i < until; i++)
        if (!v->ring[i % DEPTH].dead && v->ring[i % DEPTH].batch->more) /* a dead one's batch may be gone */
            verbs_fail_posted(v, &v->ring[i % DEPTH], &err);
}

int verbs_link_restore(struct verbs *v, struct libd_error *err)
{
    v->cut = true;
    v->broken = false;
    unplug(v);
    spoil_atomics(v, v->head);
    return resume(v, err);
}

/* Why the device refused a request: what the server says about its region now. */
static int refusal(struct verbs *v, const struct posted *p, struct libd_error *err)
{
    const struct libd_vec vec = *p->vec;
    struct libd_verbs_region about;
    struct remote *remote = verbs_remote(v, vec.addr);
    uint64_t offset = vec.addr & LIBD_OFFSET_MASK;
    uint32_t rkey = p->rkey; /* others may have learned of a new one since */
    int code;

    v->linking = true;
    pthread_mutex_unlock(&v->lock);
    code = verbs_remote_fetch(v, vec.addr, vec.epoch, &about, err);
    verbs_lock(v);
    v->linking = false;
    if (code == LIBD_ESTALE)
        *remote = (struct remote){0}; /* others that are under way to it need not try */
    if (code)
        return code;
    verbs_remote_set(remote, &about);
    if (offset > about.size || vec.size > about.size - offset)
        return libd_fail(err, LIBD_EBOUNDS, about.size, 0);
    /* Registered anew since: it grew where it is. */
    return about.rkey != rkey ? LIBD_OK : libd_fail(err, LIBD_ESYS, EACCES, 0);
}

int verbs_link_repair(struct verbs *v, struct libd_error *err)
{
    struct posted *p = &v->ring[v->culprit % DEPTH];
    enum ibv_wc_status status = v->status;
    struct libd_error outcome = {0};
    uint64_t losses = v->losses;
    int code = LIBD_OK;

    unplug(v);
    v->broken = false;
    switch (status) {
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RNR_RETRY_EXC_ERR:
        /* The way there is gone; or its region went while it was being answered, which Soft-RoCE says nothing about; or only the
         * server's queue pair has gone: its connection has not ended. */
        spoil_atomics(v, v->head);
        if (p->dead)
            break;
        if (++p->tries > TRIES) {
            verbs_link_lose(v, LIBD_ECLOSED, 2, ETIMEDOUT);
            return LIBD_OK;
        }
        code = refusal(v, p, &outcome);
        if (v->losses != losses)
            return LIBD_OK;
        if (code == LIBD_ESYS) /* the region is there, and the key right */
            code = LIBD_OK;
        break;
    case IBV_WC_REM_ACCESS_ERR:
    case IBV_WC_REM_INV_REQ_ERR:
        code = ++p->tries > TRIES ? libd_fail(&outcome, LIBD_ESYS, EACCES, 0) : refusal(v, p, &outcome);
        if (v->losses != losses)
            return LIBD_OK;
        break;
    case IBV_WC_WR_FLUSH_ERR: /* the queue pair ended by itself */
        spoil_atomics(v, v->head);
        if (p->dead || ++p->tries <= TRIES)
            break;
        code = libd_fail(&outcome, LIBD_ESYS, EIO, 0);
        break;
    default:
        spoil_atomics(v, v->culprit);
        code = libd_fail(&outcome, LIBD_ESYS, status == IBV_WC_LOC_PROT_ERR ? EFAULT : EIO, 0);
    }
    if (code == LIBD_ESIGNAL || code == LIBD_ECLOSED) {
        *err = outcome;
        verbs_link_lose(v, LIBD_ECLOSED, code == LIBD_ECLOSED ? outcome.detail : 2, outcome.have);
        return code == LIBD_ESIGNAL ? code : LIBD_OK;
    }
    if (code)
        verbs_fail_posted(v, p, &outcome);
    return resume(v, err);
}

static void pause_until_linked(struct verbs *v)
{
    v->waiting++;
    pthread_cond_wait(&v->changed, &v->lock);
    v->waiting--;
}

int verbs_link_ready(struct verbs *v, struct libd_error *err)
{
    for (;;) {
        if (atomic_load(&v->transport.closed))
            return libd_fail(err, LIBD_ECLOSED, 0, 0);
        if (verbs_linked(v))
            return LIBD_OK;
        if (v->linking)
            pause_until_linked(v);
        else if (v->broken)
            return LIBD_OK; /* whoever waits for what is under way sees to it */
        else if (!v->qp)
            return link_make(v, err);
        else if (verbs_link_restore(v, err)) /* the connection was cut, and may have been made again */
            return err->code;
        else if (!v->qp) /* it said why to what was under way */
            return link_make(v, err);
    }
}
#else
typedef int verbs_link_is_not_built;
#endif
