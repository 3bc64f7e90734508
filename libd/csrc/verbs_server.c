/* The server's side of verbs: a protection domain for each tenant, a memory region for each libd region that a client
 * asked for, a queue pair for each connection that wants one. All of it is set up here, over the authenticated
 * connection; moving bytes involves no code of the server's. */
#ifdef LIBD_HAVE_VERBS
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "conn.h"
#include "verbs_lib.h"

#define QP_ACCESS (IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE) /* and atomics, of devices that have them */
/* Of one tenant: it pays for bytes, but windows of a fixed element are free, and each takes memory of the device. Clients
 * ask again for what was withdrawn, which costs them their queue pair: a device that refuses a key ends it. What they use
 * without asking nobody sees here; that they asked lately is the best guess. */
#define EXPORTS_MAX 4096u
#define CQ_ENTRIES 16 /* the server's queue pairs only answer: nothing completes here */

struct verbs_server {
    struct verbs_port port;
    struct ibv_cq *cq;
};

struct verbs_domain {
    struct verbs_server *verbs;
    struct ibv_pd *pd;
    struct verbs_link *links;
    struct export *oldest, *newest;
    unsigned exports;
    bool dead; /* something is registered with it that ought not to be */
};

/* A region that the device knows. */
struct export {
    struct export *older, *newer; /* by when it was asked for */
    struct ibv_mr *mr;
    uint32_t slot;
};

struct verbs_link {
    struct verbs_domain *domain;
    struct verbs_link *prev, *next;
    struct ibv_qp *qp;
    struct conn *conn;
};

static int exhausted(struct libd_error *err, int error)
{
    if (error == ENOMEM || error == EAGAIN || error == ENOSPC)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_DEVICE, 0);
    return libd_fail(err, LIBD_ESYS, (uint64_t)(error ? error : EIO), 0);
}

/* ---- domains and regions ----------------------------------------------------------------------------------------- */

static void hang_up(struct verbs_link *link)
{
    struct verbs_domain *domain = link->domain;

    domain->verbs->port.lib->destroy_qp(link->qp);
    if (link->prev)
        link->prev->next = link->next;
    else
        domain->links = link->next;
    if (link->next)
        link->next->prev = link->prev;
    link->conn->link = NULL;
    free(link);
}

static void cut_off(struct verbs_domain *domain)
{
    while (domain->links)
        verbs_cut_off(domain->links->conn);
}

static void unlist(struct verbs_domain *domain, struct export *export)
{
    *(export->older ? &export->older->newer : &domain->oldest) = export->newer;
    *(export->newer ? &export->newer->older : &domain->newest) = export->older;
}

static void list(struct verbs_domain *domain, struct export *export)
{
    export->older = domain->newest;
    export->newer = NULL;
    *(domain->newest ? &domain->newest->newer : &domain->oldest) = export;
    domain->newest = export;
}

static void withdraw(struct region *region)
{
    struct export *export = region->exported;
    struct verbs_domain *domain = region->element->tenant->domain;

    region->exported = NULL;
    unlist(domain, export);
    domain->exports--;
    /* It fails if the device is gone, or is broken. What it still lets in no queue pair of this domain may come by, nor any
     * that is made later. */
    if (domain->verbs->port.lib->dereg_mr(export->mr)) {
        domain->dead = true;
        cut_off(domain);
    }
    free(export);
}

static void leave(struct tenant *tenant)
{
    struct verbs_domain *domain = tenant->domain;

    cut_off(domain);
    domain->verbs->port.lib->dealloc_pd(domain->pd);
    free(domain);
    tenant->domain = NULL;
}

static const struct pool_device device = {.withdraw = withdraw, .leave = leave};

static struct verbs_domain *domain_of(struct conn *conn, struct libd_error *err)
{
    struct verbs_server *verbs = conn->server->verbs;
    struct verbs_domain *domain = conn->tenant->domain;

    if (domain && domain->dead) {
        libd_fail(err, LIBD_ESYS, EIO, 0);
        return NULL;
    }
    if (domain)
        return domain;
    domain = calloc(1, sizeof *domain);
    if (!domain) {
        libd_fail(err, LIBD_ENOMEM, 0, 0);
        return NULL;
    }
    domain->verbs = verbs;
    errno = 0;
    domain->pd = verbs->port.lib->alloc_pd(verbs->port.context);
    if (!domain->pd) {
        exhausted(err, errno);
        free(domain);
        return NULL;
    }
    conn->tenant->domain = domain;
    return domain;
}

/* Where clients see a region. Devices give keys out again, and its bytes have an address for good: an address of its epoch's
 * own is in no region that somebody could come by with an old key. The low bits let the device use large pages. */
static uint64_t far_address(const struct tenant *tenant, const struct region *region)
{
    uint64_t address = (uint64_t)(uintptr_t)(tenant->arena + region->base);

    return (region->epoch & 0x3fffff) << 41 | (address & ((UINT64_C(1) << 30) - 1));
}

/* Clients may touch exactly the region's bytes. Its pages are pinned from now on until it is freed. */
static int export_region(struct conn *conn, struct region *region, struct libd_error *err)
{
    struct verbs_domain *domain = domain_of(conn, err);
    int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;

    if (!domain)
        return err->code;
    if (region->exported) { /* whoever asks is about to use it */
        unlist(domain, region->exported);
        list(domain, region->exported);
        return LIBD_OK;
    }
    if (region->size == 0)
        return LIBD_OK;
    if (region->nic)
        access |= IBV_ACCESS_REMOTE_ATOMIC;
    if (domain->exports == EXPORTS_MAX)
        withdraw(&conn->tenant->regions[domain->oldest->slot]);
    if (domain->dead)
        return libd_fail(err, LIBD_ESYS, EIO, 0);
    struct export *export = malloc(sizeof *export);
    if (!export)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    errno = 0;
    *export = (struct export){
        .mr = domain->verbs->port.lib->reg_mr_iova(domain->pd, conn->tenant->arena + region->base, region->size,
                                                   far_address(conn->tenant, region), access),
        .slot = (uint32_t)(region - conn->tenant->regions),
    };
    if (!export->mr) {
        int error = errno;
        free(export);
        return exhausted(err, error);
    }
    region->exported = export;
    list(domain, export);
    domain->exports++;
    return LIBD_OK;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void answer(struct conn *conn, const void *data, size_t size)
{
    memcpy(conn->payload, data, size);
    conn->payload_size = (uint32_t)size;
    conn_reply(conn, LIBD_OK, 0, 0);
}

static int open_link(struct conn *conn, const struct libd_verbs_peer *peer, struct libd_verbs_peer *own,
                     struct libd_error *err)
{
    struct verbs_server *verbs = conn->server->verbs;
    struct verbs_domain *domain = domain_of(conn, err);
    struct verbs_link *link;
    uint32_t inlined = 0;

    if (!domain)
        return err->code;
    link = calloc(1, sizeof *link);
    if (!link)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    if (verbs_qp_create(&verbs->port, domain->pd, verbs->cq, 1, &inlined, &link->qp, err)) {
        free(link);
        return err->code;
    }
    link->domain = domain;
    link->conn = conn;
    link->next = domain->links;
    if (domain->links)
        domain->links->prev = link;
    domain->links = conn->link = link;
    verbs_qp_describe(&verbs->port, link->qp, own);
    unsigned access = QP_ACCESS | (verbs->port.atomics != IBV_ATOMIC_NONE ? IBV_ACCESS_REMOTE_ATOMIC : 0);
    if (verbs_qp_connect(&verbs->port, link->qp, own, peer, access, err))
        hang_up(link);
    return err->code;
}

void serve_verbs(struct conn *conn)
{
    const struct libd_request *r = &conn->request;
    struct libd_error err = {0};
    uint32_t slot;

    if (!conn->server->verbs) {
        conn_reply(conn, LIBD_EUNSUPPORTED, LIBD_LACK_SERVER, 0);
        return;
    }
    if (r->op == LIBD_OP_VERBS_REGION) {
        struct region *region;
        if (pool_check(conn->element, r->addr, r->epoch, 0, &slot, &err) ||
            export_region(conn, region = &conn->tenant->regions[slot], &err)) {
            conn_reply(conn, err.code, err.detail, err.have);
            return;
        }
        const struct export *export = region->exported;
        struct libd_verbs_region out = {
            .addr = far_address(conn->tenant, region),
            .size = region->size,
            .epoch = region->epoch,
            .rkey = export ? export->mr->rkey : 0,
            .nic = region->nic,
        };
        answer(conn, &out, sizeof out);
        return;
    }
    verbs_hang_up(conn); /* one at a time: whoever opens another one has lost the first */
    if (r->op == LIBD_OP_VERBS_OPEN) {
        struct libd_verbs_peer peer, own;
        memcpy(&peer, conn->body, sizeof peer);
        if (open_link(conn, &peer, &own, &err)) {
            conn_reply(conn, err.code, err.detail, err.have);
            return;
        }
        answer(conn, &own, sizeof own);
        return;
    }
    conn_reply(conn, LIBD_OK, 0, 0);
}

void verbs_hang_up(struct conn *conn)
{
    if (conn->link)
        hang_up(conn->link);
}

/* Whoever waits for an answer from a queue pair that is gone would wait long; the end of its connection it sees at once. */
void verbs_cut_off(struct conn *conn)
{
    if (!conn->link)
        return;
    shutdown(conn->watched.fd, SHUT_RDWR);
    hang_up(conn->link);
}

/* ---- the device -------------------------------------------------------------------------------------------------- */

int verbs_server_start(struct server *server, struct libd_error *err)
{
    struct verbs_server *verbs = calloc(1, sizeof *verbs);
    int code;

    if (!verbs)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    code = verbs_port_open(server->options.device, &verbs->port, err);
    if (code) {
        free(verbs);
        return server->options.device_optional ? LIBD_OK : code;
    }
    errno = 0;
    verbs->cq = verbs->port.lib->create_cq(verbs->port.context, CQ_ENTRIES, NULL, NULL, 0);
    if (!verbs->cq) {
        exhausted(err, errno);
        verbs_port_close(&verbs->port);
        free(verbs);
        return err->code;
    }
    server->verbs = verbs;
    server->pool.device = &device;
    server->pool.nic = verbs->port.atomics != IBV_ATOMIC_NONE;
    return LIBD_OK;
}

void verbs_server_stop(struct server *server)
{
    struct verbs_server *verbs = server->verbs;

    if (!verbs)
        return;
    server->verbs = NULL;
    verbs->port.lib->destroy_cq(verbs->cq);
    verbs_port_close(&verbs->port);
    free(verbs);
}

const char *verbs_server_device(const struct server *server) { return server->verbs ? server->verbs->port.name : NULL; }
#else
typedef int verbs_server_is_not_built;
#endif
