/* The transport interface: one struct of operations, declared once. A transport is a connection to one memory element.
 *
 * Operations are called without the GIL and from several threads at once. Addresses are region << 40 | offset. A transport
 * remembers, for each region that it allocated, resolved or first touched, the epoch that the region had then, and every
 * access carries it: an address that outlived its region is refused (LIBD_ESTALE), never answered with other bytes.
 * Operations return an enum libd_code and say more in `err`. A transport leaves NULL what it cannot do, and the dispatcher
 * answers LIBD_EUNSUPPORTED; one that moves bytes with loads and stores has readv and writev, one that sends requests has
 * submit and progress, and the dispatcher makes each out of the other. */
#ifndef LIBD_TRANSPORT_H
#define LIBD_TRANSPORT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codes.h"
#include "pool.h"
#include "wire.h"

/* What every transfer runs through: kept together, so that it takes few pages and lines of the instruction cache. */
#define LIBD_HOT __attribute__((hot))

struct libd_transport;

struct libd_vec {
    uint64_t addr;
    uint64_t epoch; /* filled in by the dispatcher */
    void *data;
    uint64_t size;
    struct libd_local *local; /* a registration that holds the bytes, or NULL; only transports with a `domain` look */
};

/* Where in a list of pieces a transfer is. */
struct libd_place {
    size_t index;
    uint64_t done;
};

/* A request and where its reply goes. Until it is done it belongs to the stream. */
struct libd_call {
    struct libd_request request;
    const void *payload; /* request.length bytes of it: `payload`, then the data of `out` */
    uint64_t payload_size;
    const struct libd_vec *out;
    size_t out_count;
    const struct libd_vec *in; /* where the reply's payload goes: exactly its size */
    size_t in_count;
    void *reply_payload; /* or a small payload of at most `reply_room` bytes */
    uint64_t reply_room;
    int *fds, *nfds; /* descriptors that come with the reply, or NULL */
    struct libd_reply reply;
    /* The stream's own: */
    struct libd_batch *batch; /* that it is a part of; NULL: somebody waits for this call alone */
    struct libd_call *prev, *next;
    struct libd_place out_at, in_at;
    uint64_t head_done, expected, weight;
    bool sent;
    atomic_bool done;
    struct libd_error err;
};

/* Reads and writes that are under way. Whoever submits it keeps it, the vector and the buffers in place until `done`. There
 * is no order among its parts, or among batches; `libd_flush` waits for all of them. */
struct libd_batch {
    struct libd_vec *vec; /* the reads, then the writes */
    size_t count, reads;
    uint64_t bytes_in, bytes_out;
    atomic_bool done, counted;
    struct libd_error err; /* how it ended: valid once done */
    /* The transport's own: */
    unsigned left, part_count; /* parts that have not come back; all of them */
    struct libd_call *parts, part;
    void *more;
    struct libd_place at; /* what comes next of a batch that waits for its turn */
    struct libd_batch *next;
};

enum libd_atomic_op { LIBD_FETCH_ADD, LIBD_COMPARE_SWAP };

struct libd_transport_ops {
    const char *type;
    int (*readv)(struct libd_transport *, const struct libd_vec *, size_t, struct libd_error *);
    int (*writev)(struct libd_transport *, const struct libd_vec *, size_t, struct libd_error *);
    /* Starts a batch; does not wait. After an error nothing of it was started. */
    int (*submit)(struct libd_transport *, struct libd_batch *, struct libd_error *);
    /* Moves what is under way along, from the calling thread, until `batch` (NULL: everything) is done or `timeout` seconds have passed (0: does
     * not wait; negative: for ever). LIBD_ESIGNAL: gave up waiting; the batch goes on. */
    int (*progress)(struct libd_transport *, struct libd_batch *batch, double timeout, struct libd_error *);
    /* Gives the connection up: everything that is under way on it fails, and is done then. */
    void (*abandon)(struct libd_transport *);
    /* A descriptor that polls readable when `progress` may have something to do. */
    int (*fd)(struct libd_transport *);
    /* One 64-bit word, `addr` a multiple of 8: a = what to add, or what is expected and b = the new word. */
    int (*atomic)(struct libd_transport *, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a, uint64_t b,
                  uint64_t *old, struct libd_error *);
    int (*renew)(struct libd_transport *, uint64_t addr, uint64_t epoch, uint64_t lease_ms, struct libd_error *);
    int (*map)(struct libd_transport *, uint64_t addr, uint64_t epoch, uint64_t size, void **, struct libd_error *);
    int (*alloc)(struct libd_transport *, const struct libd_wanted *, uint32_t *, uint64_t *, struct libd_error *);
    int (*free)(struct libd_transport *, uint64_t addr, uint64_t epoch, struct libd_error *);
    int (*extend)(struct libd_transport *, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *, uint64_t *,
                  struct libd_error *);
    int (*region)(struct libd_transport *, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *);
    int (*flush)(struct libd_transport *, struct libd_error *);
    int (*stat)(struct libd_transport *, struct libd_element_stats *, struct libd_error *);
    /* Makes pending and later calls fail; other threads may still be inside of them. */
    void (*shutdown)(struct libd_transport *);
    /* Nobody is inside any more. */
    void (*destroy)(struct libd_transport *);
};

/* Memory of this host that a process can reach with loads and stores: a tenant's arena and its table of regions. */
struct libd_memory {
    uint8_t *base;
    uint64_t size;
    const struct libd_table *table;
    void (*destroy)(struct libd_memory *);
};

struct libd_counters {
    _Atomic uint64_t reads, writes, maps, atomics, bytes_read, bytes_written, bytes_mapped, bytes_mapped_writable;
};

#define LIBD_BOUND_CHUNK 512u
#define LIBD_BOUND_CHUNKS (LIBD_SLOTS / LIBD_BOUND_CHUNK)

typedef _Atomic uint64_t libd_bound;

struct libd_transport {
    const struct libd_transport_ops *ops;
    struct libd_memory *memory; /* of mapped transports; whoever made the transport keeps it alive */
    struct libd_domain *domain; /* of those whose device reaches local memory: what that is registered with (verbs.h) */
    struct libd_welcome who;
    char name[LIBD_MAX_NAME + 1]; /* of the element, as the server knows it; may be empty */
    struct libd_counters counters;
    atomic_bool closed;
    unsigned generation; /* of fork: a child must not talk on its parent's connection */
    _Atomic(libd_bound *) bound[LIBD_BOUND_CHUNKS]; /* epochs by region */
};

/* How to reach and unlock an element. */
struct libd_address {
    const char *host, *port; /* or */
    const char *path;        /* an abstract Unix socket, without '@' */
    uint16_t kind;
    const char *token;
    uint64_t tenant, element;
    uint8_t key[LIBD_KEY_BYTES];
    double timeout;   /* seconds to connect */
    double stall;     /* seconds without a byte after which a server that owes us some is given up */
    unsigned stripes; /* connections that large transfers are cut up over */
};

/* Called between interrupted system calls; non-zero: a Python signal handler raised, give up. */
extern int (*libd_check_signals)(void);
unsigned libd_generation(void);

/* ---- what bindings call ---- */

int libd_open_local(uint64_t size, bool elastic, struct libd_memory **memory, struct libd_transport **out,
                    struct libd_error *err);
int libd_open_stream(const struct libd_address *address, struct libd_transport **out, struct libd_error *err);
/* Connects over TCP, and then queue pair to queue pair; LIBD_EUNSUPPORTED with what is missing (enum libd_verbs_lack) if
 * this machine, this build or the server has no RDMA device. */
int libd_open_verbs(const struct libd_address *address, const char *device, struct libd_transport **out,
                    struct libd_error *err);
/* Connects over a Unix socket and maps the tenant's arena, in one round trip. */
int libd_open_attached(const struct libd_address *address, struct libd_memory **memory, struct libd_transport **out,
                       struct libd_error *err);
/* Turns a stream over a Unix socket into a transport that touches `memory` directly. */
void libd_use_memory(struct libd_transport *transport, struct libd_memory *memory);
/* Maps the tenant's arena, for a stream that was opened without. */
int libd_attach(struct libd_transport *transport, struct libd_memory **out, struct libd_error *err);
void libd_memory_destroy(struct libd_memory *memory);
bool libd_memory_alive(const struct libd_memory *memory);

int libd_readv(struct libd_transport *t, struct libd_vec *vec, size_t count, struct libd_error *err);
int libd_writev(struct libd_transport *t, struct libd_vec *vec, size_t count, struct libd_error *err);
int libd_map(struct libd_transport *t, uint64_t addr, uint64_t size, int writable, void **out,
             struct libd_error *err);
/* `batch` has vec, count and reads set. The caller waits for it, or polls it, until it is done. */
int libd_submit(struct libd_transport *t, struct libd_batch *batch, struct libd_error *err);
/* True once it is done; otherwise moves things along for at most `timeout` seconds (as `progress`). LIBD_ETIMEOUT: not yet. */
int libd_wait(struct libd_transport *t, struct libd_batch *batch, double timeout, struct libd_error *err);
/* Moves along whatever can be without waiting. */
void libd_poll(struct libd_transport *t);
static inline bool libd_batch_done(const struct libd_batch *batch)
{
    return atomic_load_explicit(&batch->done, memory_order_acquire);
}
/* A descriptor to wait for, or -1 if batches are always done at once. */
int libd_fd(struct libd_transport *t);
int libd_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t a, uint64_t b, uint64_t *old,
                struct libd_error *err);
int libd_renew(struct libd_transport *t, uint64_t addr, uint64_t lease_ms, struct libd_error *err);
int libd_alloc(struct libd_transport *t, const struct libd_wanted *wanted, uint64_t *addr, struct libd_error *err);
int libd_free(struct libd_transport *t, uint64_t addr, struct libd_error *err);
int libd_extend(struct libd_transport *t, uint64_t addr, uint64_t size, uint64_t *out, struct libd_error *err);
/* The epoch that this transport holds `addr`'s region to (asking for it the first time), and the region's size now. */
int libd_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *err);
/* Checks that `region` still has `epoch`, and holds the transport to it. */
int libd_resolve(struct libd_transport *t, uint32_t region, uint64_t epoch, uint64_t *size, struct libd_error *err);
int libd_flush(struct libd_transport *t, struct libd_error *err);
int libd_stat(struct libd_transport *t, struct libd_element_stats *out, struct libd_error *err);
void libd_shutdown(struct libd_transport *t);
void libd_destroy(struct libd_transport *t);

/* ---- what transports share ---- */

int mapped_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *err);
int mapped_readv(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err);
int mapped_writev(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err);
int mapped_map(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, void **out,
               struct libd_error *err);
int mapped_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a, uint64_t b,
                  uint64_t *old, struct libd_error *err);
int mapped_flush(struct libd_transport *t, struct libd_error *err);

/* ---- requests on a stream, also those of the administrator ---- */

int libd_stream_call(struct libd_transport *t, struct libd_call *call, struct libd_error *err);
/* How often `t` has connected. */
uint64_t libd_stream_connections(struct libd_transport *t);
/* Whether the server that `t` knew is there still, connecting again if need be: LIBD_ESTALE if another is in its place. */
int libd_stream_alive(struct libd_transport *t, struct libd_error *err);

#endif
