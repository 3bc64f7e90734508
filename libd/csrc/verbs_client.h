/* Inside of the verbs transport.
 *
 * A batch waits in a queue with a cursor. `verbs_pump` cuts the next work requests off it for as long as the send queue has
 * room; each has an entry in a ring until it is done, in order, since requests of a reliable connection complete in order.
 * What the entry says is enough to post it again on another queue pair. */
#ifndef LIBD_VERBS_CLIENT_H
#define LIBD_VERBS_CLIENT_H

#include <pthread.h>

#include "stream.h"
#include "verbs_lib.h"

#define DEPTH 256u                      /* work requests under way, a power of two */
#define SIGNAL_EVERY 64u                /* ask for a completion at least that often */
#define BURST 32                        /* work requests handed to the device at a time */
#define PIECE (UINT64_C(1) << 20)       /* the longest work request */
#define STAGE_SIZE (UINT64_C(1) << 19)  /* registered memory of the transport's own */
#define STAGE_MAX (UINT64_C(64) << 10)  /* transfers up to this size are copied through it rather than registered */
#define INLINE_WANTED 256u

struct libd_domain {
    struct libd_domain *next;
    unsigned users; /* transports and registrations */
    unsigned generation;
    char *device; /* as it was asked for */
    struct verbs_port port;
    struct ibv_pd *pd;
    _Atomic uint64_t live, bytes, made, passing;
};

struct libd_local {
    struct libd_domain *domain;
    struct ibv_mr *mr;
    bool passing; /* for one batch */
};

/* A region of the other side. */
struct remote {
    uint64_t epoch, base, size;
    uint32_t rkey;
    bool nic, fresh; /* fresh: nothing is known to have changed it */
};

/* A 64-bit word to change; a batch that does it points here. */
struct word {
    enum libd_atomic_op op;
    uint64_t a, b;
};

/* A work request that was posted. */
struct posted {
    struct libd_batch *batch;
    const struct libd_vec *vec;
    uint64_t offset, stage; /* in the vec's bytes; in the stage, plus one: 0: it is not staged */
    uint64_t stage_end;     /* of the stage's counter, when it is done */
    uint32_t size, rkey; /* rkey: that it was posted with */
    uint8_t tries;
    bool in, dead; /* dead: it failed, or must not be done again */
};

#define SIZE_CLASSES 8

struct verbs {
    struct libd_transport transport; /* first */
    struct libd_transport *control;
    struct libd_domain *domain;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a batch is done, the role of the leader is free, there is a queue pair again */
    atomic_uint wanting;    /* threads at the lock, which the leader makes way for */
    unsigned waiting;
    bool leading; /* a thread polls for all */
    bool linking; /* a thread makes a queue pair, without the lock */
    bool cut;     /* the connection to the server has ended */

    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
    bool armed;
    struct ibv_qp *qp; /* NULL: none, the next batch makes one */
    uint32_t inlined;
    uint64_t connection; /* that the server's queue pair belongs to */
    int watch;           /* hangs up with it */
    int event, epoll;

    struct posted *ring;
    uint64_t head, tail; /* numbers of the next and of the oldest work request */
    uint32_t unsignalled;
    uint64_t losses; /* how often everything under way has failed */
    bool broken;     /* `culprit` has ended the queue pair */
    uint64_t culprit;
    enum ibv_wc_status status;

    uint8_t *stage;
    struct ibv_mr *stage_mr;
    uint64_t stage_head, stage_tail; /* bytes that were ever taken and given back */

    struct libd_batch *first, *last;
    struct remote *remotes[LIBD_BOUND_CHUNKS];
    uint64_t dirty[8], dirty_epoch[8]; /* the last regions that were written, newest first */
    unsigned dirty_count;
    uint64_t written, flushed; /* ranges to write that were ever submitted; of them those that a flush has pushed */
    uint64_t used, staged; /* ranges that went straight to or from registered memory, or were copied */
    uint32_t patience[SIZE_CLASSES]; /* polls that batches of a size take, on average */
};

static inline struct verbs *verbs_of(struct libd_transport *t) { return (struct verbs *)t; }

static inline void verbs_lock(struct verbs *v)
{
    if (pthread_mutex_trylock(&v->lock) == 0)
        return;
    atomic_fetch_add_explicit(&v->wanting, 1, memory_order_relaxed);
    pthread_mutex_lock(&v->lock);
    atomic_fetch_sub_explicit(&v->wanting, 1, memory_order_relaxed);
}

/* verbs_local.c */
struct libd_domain *verbs_domain_open(const char *device, struct libd_error *err);
void verbs_domain_close(struct libd_domain *domain);

/* verbs_link.c: they drop the lock while they talk to the server. */
/* Whether nothing keeps work requests from being posted. */
static inline bool verbs_linked(struct verbs *v)
{
    return v->qp && !v->broken && !v->cut && !v->linking &&
           atomic_load_explicit(&stream_of(v->control)->connection, memory_order_relaxed) == v->connection;
}
/* Whether there is a queue pair, making one if need be. */
int verbs_link_ready(struct verbs *v, struct libd_error *err);
/* Ends the queue pair and fails everything under way. */
void verbs_link_lose(struct verbs *v, int code, uint64_t detail, uint64_t have);
/* After `broken`: fails what caused it, and goes on with the rest on another queue pair. */
int verbs_link_repair(struct verbs *v, struct libd_error *err);
/* After `cut`: the same if the server is there still. */
int verbs_link_restore(struct verbs *v, struct libd_error *err);
/* Asks the server about a region, without the lock. */
int verbs_remote_fetch(struct verbs *v, uint64_t addr, uint64_t epoch, struct libd_verbs_region *out,
                       struct libd_error *err);
struct remote *verbs_remote_make(struct verbs *v, uint64_t addr);
static inline struct remote *verbs_remote(struct verbs *v, uint64_t addr)
{
    struct remote *chunk = v->remotes[(addr >> LIBD_OFFSET_BITS) / LIBD_BOUND_CHUNK];

    return chunk ? chunk + (addr >> LIBD_OFFSET_BITS) % LIBD_BOUND_CHUNK : verbs_remote_make(v, addr);
}
void verbs_remote_set(struct remote *remote, const struct libd_verbs_region *about);

/* verbs_queue.c: with the lock held. */
void verbs_enqueue(struct verbs *v, struct libd_batch *batch);
/* Posts a batch of one work request past the queue, which is empty; false: it has to go through it. */
bool verbs_quick(struct verbs *v, struct libd_batch *batch);
/* Hands work requests to the device, as many as there is room for. */
void verbs_pump(struct verbs *v);
/* Posts what is under way once more. */
void verbs_repost(struct verbs *v);
/* Takes completions; how many work requests were done. */
unsigned verbs_reap(struct verbs *v);
void verbs_fail_posted(struct verbs *v, struct posted *p, const struct libd_error *err);
void verbs_fail_all(struct verbs *v, const struct libd_error *err);

/* verbs_transfer.c */
int verbs_readv(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err);
int verbs_writev(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err);
int verbs_submit(struct libd_transport *t, struct libd_batch *batch, struct libd_error *err);
int verbs_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a, uint64_t b,
                 uint64_t *old, struct libd_error *err);
void verbs_abandon(struct libd_transport *t);
/* A batch as a call that waits; after a signal the queue pair is given up rather than the wait. */
int verbs_run(struct verbs *v, struct libd_batch *batch, struct libd_error *err);
/* Whether anything gets to the other side and back, which takes `seconds` at most. */
int verbs_prove(struct verbs *v, double seconds, struct libd_error *err);

/* verbs_flush.c */
int verbs_flush(struct libd_transport *t, struct libd_error *err);

/* verbs_wait.c */
/* With the lock held: until the batch is done, or `deadline` (0: never; negative: at once). */
int verbs_await(struct verbs *v, struct libd_batch *batch, double deadline, struct libd_error *err);
int verbs_progress(struct libd_transport *t, struct libd_batch *batch, double timeout, struct libd_error *err);
int verbs_fd(struct libd_transport *t);

#endif
