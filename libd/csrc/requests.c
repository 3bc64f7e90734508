/* What the server does for elements: every access is checked against the connection's element. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "conn.h"

static bool same(const void *a, size_t na, const void *b, size_t nb)
{
    const uint8_t *x = a, *y = b;
    uint8_t differ = na != nb;

    /* Takes as long for a near miss as for a wild guess. */
    for (size_t i = 0; i < na && i < nb; i++)
        differ |= x[i] ^ y[i];
    return differ == 0;
}

static void refuse(struct conn *conn, int code, uint64_t detail)
{
    conn->server->refused++;
    conn->closing = true;
    conn_reply(conn, code, detail, 0);
}

void serve_hello(struct conn *conn, const struct libd_hello *hello, const char *token)
{
    struct server *server = conn->server;
    size_t length = hello->token_length;
    struct libd_welcome welcome = {0};
    const char *wanted;
    uint64_t most;

    if (hello->version != LIBD_VERSION) {
        refuse(conn, LIBD_EVERSION, LIBD_VERSION);
        return;
    }
    switch (hello->kind) {
    case LIBD_KIND_DEFAULT:
        wanted = server->options.token;
        if (wanted && !same(token, length, wanted, strlen(wanted))) {
            refuse(conn, LIBD_EAUTH, 0);
            return;
        }
        if (!server->default_element) {
            refuse(conn, LIBD_ENOENT, 0);
            return;
        }
        conn->element = server->default_element;
        break;
    case LIBD_KIND_ELEMENT: {
        struct tenant *tenant = pool_tenant_by_id(&server->pool, hello->tenant);
        if (!tenant || !same(token, length, tenant->token, LIBD_TOKEN_HEX)) {
            refuse(conn, LIBD_EAUTH, 0);
            return;
        }
        struct element *element = pool_element_by_id(tenant, hello->element);
        if (!element || !same(hello->key, LIBD_KEY_BYTES, element->key, LIBD_KEY_BYTES)) {
            refuse(conn, LIBD_ECAP, 0);
            return;
        }
        conn->element = element;
        break;
    }
    case LIBD_KIND_ADMIN:
        wanted = server->options.admin_token;
        if (!wanted || !same(token, length, wanted, strlen(wanted))) {
            refuse(conn, LIBD_EAUTH, 0);
            return;
        }
        conn->admin = true;
        break;
    default:
        refuse(conn, LIBD_EPROTO, 0);
        return;
    }
    if (conn->element && !admit(conn, conn->element->tenant, &most)) {
        conn->element = NULL;
        conn->closing = true;
        server->turned_away++;
        conn_reply(conn, LIBD_ECAPACITY, LIBD_CAP_CONNECTIONS, most);
        return;
    }
    memcpy(welcome.incarnation, server->pool.incarnation, sizeof welcome.incarnation);
    if (conn->element) {
        conn->tenant = conn->element->tenant;
        welcome.tenant = conn->tenant->id;
        welcome.element = conn->element->id;
        welcome.elastic = conn->element->elastic;
        welcome.root = conn->element->root;
        welcome.size = pool_element_limit(conn->element);
        if (welcome.root) {
            welcome.size = conn->tenant->regions[welcome.root].size;
            welcome.epoch = conn->tenant->regions[welcome.root].epoch;
        }
        welcome.name_length = (uint32_t)strlen(conn->element->name);
    }
    welcome.features = server->verbs ? LIBD_FEATURE_VERBS : 0;
    memcpy(conn->payload, &welcome, sizeof welcome);
    if (conn->element)
        memcpy(conn->payload + sizeof welcome, conn->element->name, welcome.name_length);
    conn->payload_size = (uint32_t)sizeof welcome + welcome.name_length;
    conn_reply(conn, LIBD_OK, 0, 0);
}

uint64_t serve_body_size(const struct conn *conn)
{
    const struct libd_request *r = &conn->request;

    switch (r->op) {
    case LIBD_OP_READV:
    case LIBD_OP_WRITEV:
        if (r->count == 0 || r->count > LIBD_MAX_SEGMENTS || r->length < r->count * sizeof(struct libd_segment))
            return UINT64_MAX;
        return r->count * sizeof(struct libd_segment);
    case LIBD_OP_WRITE:
        return 0;
    case LIBD_OP_COMPARE_SWAP:
        return r->length == sizeof(uint64_t) ? r->length : UINT64_MAX;
    case LIBD_OP_VERBS_OPEN:
        return r->length == sizeof(struct libd_verbs_peer) ? r->length : UINT64_MAX;
    case LIBD_OP_TENANT_CREATE:
    case LIBD_OP_TENANT_DROP:
    case LIBD_OP_ELEMENT_CREATE:
    case LIBD_OP_ELEMENT_DROP:
    case LIBD_OP_ELEMENT_STATS:
    case LIBD_OP_TENANT_STATS:
    case LIBD_OP_ELEMENT_RENEW:
    case LIBD_OP_LIST:
        return r->length <= 2 * LIBD_MAX_NAME + 1 ? r->length : UINT64_MAX;
    default:
        return r->length == 0 ? 0 : UINT64_MAX;
    }
}

uint8_t *serve_piece(const struct conn *conn, const struct libd_segment *piece)
{
    if (!conn->element)
        return NULL;
    const struct region *region = &conn->tenant->regions[piece->addr >> LIBD_OFFSET_BITS];
    return region->epoch == piece->epoch ? conn->tenant->arena + region->base + (piece->addr & LIBD_OFFSET_MASK) : NULL;
}

/* Checks what a client asks for, and puts in which slot and which epoch that is now. */
static int check_piece(const struct conn *conn, struct libd_segment *piece, struct libd_error *err)
{
    uint32_t slot;
    int code = pool_check(conn->element, piece->addr, piece->epoch, piece->size, &slot, err);

    if (code)
        return code;
    piece->addr = (uint64_t)slot << LIBD_OFFSET_BITS | (piece->addr & LIBD_OFFSET_MASK);
    piece->epoch = conn->tenant->regions[slot].epoch;
    return LIBD_OK;
}

/* Checks all segments before any byte moves. */
static int gather(struct conn *conn, uint64_t *bytes, struct libd_error *err)
{
    const struct libd_request *r = &conn->request;

    conn->piece_now = 0;
    conn->piece_done = 0;
    if (r->op == LIBD_OP_READ || r->op == LIBD_OP_WRITE) {
        conn->pieces = &conn->one;
        conn->piece_count = 1;
        *bytes = r->size;
        conn->one = (struct libd_segment){r->addr, r->epoch, r->size};
        return check_piece(conn, &conn->one, err);
    }
    conn->pieces = (struct libd_segment *)(void *)conn->body;
    conn->piece_count = r->count;
    *bytes = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        int code = check_piece(conn, &conn->pieces[i], err);
        if (code)
            return code;
        *bytes += conn->pieces[i].size; /* at most 2048 regions of 2**40 bytes: cannot wrap */
    }
    return LIBD_OK;
}

static void serve_read(struct conn *conn)
{
    struct libd_error err;
    uint64_t bytes;
    int code = gather(conn, &bytes, &err);

    if (code) {
        conn_reply(conn, code, err.detail, err.have);
        return;
    }
    conn_reply(conn, LIBD_OK, 0, 0);
    conn->reply.length = bytes;
    conn->element->bytes_read += bytes;
    conn->server->bytes_read += bytes;
}

static void serve_write(struct conn *conn)
{
    const struct libd_request *r = &conn->request;
    uint64_t bytes = 0, data = r->length - serve_body_size(conn);
    struct libd_error err;
    int code;

    if (conn->admin) { /* moves no bytes */
        conn->server->refused++;
        conn->closing = true;
        code = libd_fail(&err, LIBD_EPROTO, 0, 0);
    } else {
        code = conn->element ? gather(conn, &bytes, &err) : libd_fail(&err, LIBD_ESTALE, 0, 0);
    }
    if (!code && bytes != data)
        code = libd_fail(&err, LIBD_EPROTO, 0, 0);
    conn_reply(conn, code, code ? err.detail : 0, code ? err.have : 0);
    if (code) {
        conn->state = CONN_DRAIN;
        conn->drain = data;
        return;
    }
    conn->element->bytes_written += bytes;
    conn->server->bytes_written += bytes;
    conn->state = CONN_DATA;
}

/* The word changes in the CPU's atomicity domain, which clients that have the arena mapped share. */
static int serve_atomic(struct conn *conn, uint64_t *old, struct libd_error *err)
{
    const struct libd_request *r = &conn->request;
    struct libd_segment piece = {r->addr, r->epoch, sizeof *old};
    uint64_t desired;
    int code = check_piece(conn, &piece, err);

    if (code)
        return code;
    if (r->addr % sizeof *old)
        return libd_fail(err, LIBD_EINVAL, 0, 0);
    if (conn->tenant->regions[piece.addr >> LIBD_OFFSET_BITS].nic)
        return libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_DOMAIN, 0);
    uint64_t *word = (uint64_t *)(void *)serve_piece(conn, &piece);
    if (r->op == LIBD_OP_FETCH_ADD) {
        *old = __atomic_fetch_add(word, r->size, __ATOMIC_SEQ_CST);
    } else {
        memcpy(&desired, conn->body, sizeof desired);
        *old = r->size;
        __atomic_compare_exchange_n(word, old, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    return LIBD_OK;
}

void serve_expired(struct server *server, struct lease *lease)
{
    if (!lease->slot)
        serve_orphan(server, lease->element->tenant, lease->element);
    pool_expire(lease);
}

void serve_guard(struct server *server)
{
    struct tenant *tenant = pool_guard(&server->pool);

    if (!tenant)
        return;
    server->refused++;
    serve_orphan(server, tenant, NULL);
    if (server->default_element && server->default_element->tenant == tenant)
        server->default_element = NULL;
    pool_tenant_drop(tenant);
}

static void moved(void *waiter, int code, uint32_t region, uint64_t epoch)
{
    struct conn *conn = waiter;

    conn->move = NULL;
    conn_reply(conn, code, region, epoch);
    conn_queue(conn);
}

static void serve(struct conn *conn)
{
    const struct libd_request *r = &conn->request;
    struct libd_error err = {0};
    uint64_t epoch = 0;
    uint32_t slot = 0;
    int code;

    if (r->op == LIBD_OP_WRITE || r->op == LIBD_OP_WRITEV) {
        serve_write(conn);
        return;
    }
    if (conn->admin) {
        serve_admin(conn);
        return;
    }
    if (!conn->element) {
        conn_reply(conn, LIBD_ESTALE, 0, 0);
        return;
    }
    switch (r->op) {
    case LIBD_OP_READ:
    case LIBD_OP_READV:
        serve_read(conn);
        return;
    case LIBD_OP_ALLOC:
        code = pool_alloc(conn->element, &(struct libd_wanted){r->size, r->addr, r->epoch, r->flags}, &slot, &epoch, &err);
        if (!code && r->epoch) {
            code = pool_lease(conn->element, slot, &conn->holder, r->epoch, &err);
            if (code)
                pool_free(conn->element, (uint64_t)slot << LIBD_OFFSET_BITS, epoch, &(struct libd_error){0});
        }
        break;
    case LIBD_OP_RENEW:
        code = pool_check(conn->element, r->addr, r->epoch, 0, &slot, &err);
        if (!code)
            code = pool_lease(conn->element, slot, &conn->holder, r->size, &err);
        break;
    case LIBD_OP_FETCH_ADD:
    case LIBD_OP_COMPARE_SWAP: {
        uint64_t old;
        code = serve_atomic(conn, &old, &err);
        if (!code) {
            conn_reply(conn, LIBD_OK, old, 0);
            return;
        }
        break;
    }
    case LIBD_OP_FREE:
        code = pool_free(conn->element, r->addr, r->epoch, &err);
        break;
    case LIBD_OP_EXTEND:
        code = pool_grow(conn->element, r->addr, r->epoch, r->size, &slot, &epoch, &conn->move, &err);
        if (!code && conn->move) {
            conn->state = CONN_MOVE;
            conn->move->over = moved;
            conn->move->waiter = conn;
            pool_move(conn->move, CONN_TURN); /* short ones are done at once */
            return;
        }
        break;
    case LIBD_OP_REGION:
        code = pool_check(conn->element, r->addr, r->epoch, 0, &slot, &err);
        if (!code) {
            const struct region *region = &conn->tenant->regions[slot];
            conn_reply(conn, LIBD_OK, region->epoch, region->size);
            return;
        }
        break;
    case LIBD_OP_FLUSH:
        code = LIBD_OK;
        break;
    case LIBD_OP_STAT: {
        struct libd_element_stats stats;
        pool_element_stats(conn->element, &stats);
        memcpy(conn->payload, &stats, sizeof stats);
        conn->payload_size = sizeof stats;
        code = LIBD_OK;
        break;
    }
    case LIBD_OP_ATTACH:
        if (!conn->local) {
            code = libd_fail(&err, LIBD_EUNSUPPORTED, 0, 0);
            break;
        }
        pool_attach(conn->tenant);
        conn_reply(conn, LIBD_OK, conn->tenant->arena_size, 0);
        conn->fds[0] = conn->tenant->arena_fd;
        conn->fds[1] = conn->tenant->table_fd;
        conn->nfds = 2;
        return;
    case LIBD_OP_VERBS_OPEN:
    case LIBD_OP_VERBS_REGION:
    case LIBD_OP_VERBS_CLOSE:
        serve_verbs(conn);
        return;
    default:
        refuse(conn, LIBD_EPROTO, 0);
        return;
    }
    if (code && serve_later(conn, &err))
        return;
    if (code)
        conn_reply(conn, code, err.detail, err.have);
    else
        conn_reply(conn, LIBD_OK, slot, epoch);
}

bool serve_later(struct conn *conn, const struct libd_error *err)
{
    if (err->code != LIBD_ECAPACITY || (err->detail != LIBD_CAP_SERVER && err->detail != LIBD_CAP_MACHINE) ||
        !conn->server->pool.leaving)
        return false;
    conn->state = CONN_ROOM;
    return true;
}

void serve_waiting(struct server *server)
{
    for (struct conn *c = server->conns, *next; c; c = next) {
        next = c->next; /* a reply closes nobody: that is the loop's */
        if (c->state != CONN_ROOM)
            continue;
        serve(c);
        if (c->state != CONN_ROOM)
            conn_queue(c);
    }
}

void serve_request(struct conn *conn)
{
    uint16_t op = conn->request.op;

    conn->server->requests++;
    conn->server->operations[op < LIBD_OPERATIONS ? op : 0]++;
    serve(conn);
}
