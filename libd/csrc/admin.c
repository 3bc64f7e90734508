/* What the server does for its administrator: tenants, elements, statistics. */
#include <stdlib.h>
#include <string.h>

#include "capacity.h"
#include "conn.h"

#define LIST_MAX (64u << 10) /* bytes of one page of a list */

/* Splits the body into one or two NUL-separated names; false if it is anything else. */
static bool names(struct conn *conn, char *first, char *second)
{
    const uint8_t *body = conn->body, *end = body + conn->body_size, *cut = NULL;

    if (conn->body_size)
        cut = memchr(body, 0, conn->body_size);
    size_t n = (size_t)((cut ? cut : end) - body), m = cut ? (size_t)(end - cut) - 1 : 0;
    if (n == 0 || n > LIBD_MAX_NAME || m > LIBD_MAX_NAME || (cut != NULL) != (second != NULL) ||
        (cut && memchr(cut + 1, 0, m)))
        return false;
    memcpy(first, body, n);
    first[n] = '\0';
    if (second) {
        memcpy(second, cut + 1, m);
        second[m] = '\0';
    }
    return true;
}

/* Connections to what is dropped stay open, so that their next request is told why it fails; a transfer in progress cannot
 * be told and is cut (the loop does that when it finds its piece invalid). So is whoever has keys: their queue pairs live
 * in the tenant's domain, where other elements' regions are. */
void serve_orphan(struct server *server, const struct tenant *tenant, const struct element *element)
{
    for (struct conn *c = server->conns; c; c = c->next) {
        if (c->tenant != tenant || (element && c->element != element))
            continue;
        c->element = NULL;
        c->nfds = 0;
        verbs_cut_off(c);
        if (!element)
            c->tenant = NULL;
    }
}

static void answer(struct conn *conn, const void *data, size_t size)
{
    memcpy(conn->payload, data, size);
    conn->payload_size = (uint32_t)size;
    conn_reply(conn, LIBD_OK, 0, 0);
}

static void server_stats(struct server *server, struct libd_server_stats *out)
{
    *out = (struct libd_server_stats){
        .size = server->pool.size,
        .reserved = server->pool.reserved,
        .resident = pool_resident(&server->pool),
        .connections = server->conn_count,
        .accepted = server->accepted,
        .requests = server->requests,
        .refused = server->refused,
        .bytes_read = server->bytes_read,
        .bytes_written = server->bytes_written,
        .uptime = libd_now() - server->started,
        .overhead = libd_private_memory(),
        .leases = server->pool.leases.held,
        .leases_expired = server->pool.leases.expired,
        .draining = server->draining,
        .peak = server->pool.peak,
        .undrawn = pool_undrawn(&server->pool),
        .undrawn_elsewhere = ledger_undrawn(&server->pool.pledge),
        .turned_away = server->turned_away,
        .descriptors = server_descriptors(),
        .ledger = ledger_joined(&server->pool.pledge),
    };
    memcpy(out->operations, server->operations, sizeof out->operations);
    memcpy(out->errors, server->errors, sizeof out->errors);
    for (const struct tenant *t = server->pool.tenants; t; t = t->next) {
        out->tenants++;
        out->elements += t->elements_live;
        out->regions += t->regions_live;
    }
}

static bool looks_only(uint16_t op)
{
    return op == LIBD_OP_SERVER_STATS || op == LIBD_OP_TENANT_STATS || op == LIBD_OP_ELEMENT_STATS || op == LIBD_OP_LIST;
}

/* Appends an entry to the list; false: the page is full. */
static bool enlist(struct conn *conn, uint64_t id, const char *name, const void *stats, size_t size)
{
    size_t length = strlen(name);
    struct libd_entry entry = {.id = id, .name_length = (uint32_t)length, .size = (uint32_t)size};

    if (conn->payload_size + sizeof entry + length > LIST_MAX)
        return false;
    memcpy(entry.stats, stats, size);
    memcpy(conn->large + conn->payload_size, &entry, sizeof entry);
    memcpy(conn->large + conn->payload_size + sizeof entry, name, length);
    conn->payload_size += (uint32_t)(sizeof entry + length);
    return true;
}

/* A page of tenants, or of one tenant's elements: newest first, so that a number says where the next page begins. */
static void serve_list(struct conn *conn)
{
    uint64_t below = conn->request.addr ? conn->request.addr : UINT64_MAX, count = 0;
    char name[LIBD_MAX_NAME + 1];
    bool more = false;

    if (conn->body_size && !names(conn, name, NULL)) {
        conn_reply(conn, LIBD_EINVAL, 0, 0);
        return;
    }
    struct tenant *t = conn->body_size ? pool_tenant_by_name(&conn->server->pool, name) : conn->server->pool.tenants;
    conn->large = malloc(LIST_MAX);
    if (!conn->large) {
        conn_reply(conn, LIBD_ENOMEM, 0, 0);
        return;
    }
    if (conn->body_size) { /* a tenant that was dropped meanwhile has none */
        for (struct element *e = t ? t->elements : NULL; e && !more; e = e->next) {
            struct libd_element_stats stats;
            if (e->id >= below)
                continue;
            pool_element_stats(e, &stats);
            more = !enlist(conn, e->id, e->name, &stats, sizeof stats);
            count += !more;
        }
    } else {
        for (; t && !more; t = t->next) {
            struct libd_tenant_stats stats;
            if (t->id >= below)
                continue;
            pool_tenant_stats(t, &stats);
            more = !enlist(conn, t->id, t->name, &stats, sizeof stats);
            count += !more;
        }
    }
    conn_reply(conn, LIBD_OK, count, more);
}

static void grant(struct conn *conn, const struct element *element)
{
    answer(conn, element->key, LIBD_KEY_BYTES);
    conn->reply.a = element->id;
    conn->reply.b = element->tenant->id;
}

static void cleared(void *waiter, int code, struct element *element)
{
    struct conn *conn = waiter;

    conn->clearing = NULL;
    if (code)
        conn_reply(conn, code, 2, 0);
    else
        grant(conn, element);
    conn_queue(conn);
}

void serve_admin(struct conn *conn)
{
    const struct libd_request *r = &conn->request;
    struct server *server = conn->server;
    char first[LIBD_MAX_NAME + 1], second[LIBD_MAX_NAME + 1];
    struct tenant *tenant = NULL;
    struct element *element = NULL;
    struct libd_error err = {0};
    int code;

    if (r->op < LIBD_OP_TENANT_CREATE || r->op > LIBD_OP_ELEMENT_RENEW) {
        conn_reply(conn, LIBD_EUNSUPPORTED, 0, 0);
        return;
    }
    if (server->draining && !looks_only(r->op)) {
        conn->closing = true;
        conn_reply(conn, LIBD_ECLOSED, LIBD_STOPPING, 0);
        return;
    }
    if (r->op == LIBD_OP_SERVER_STATS) {
        struct libd_server_stats stats;
        server_stats(server, &stats);
        answer(conn, &stats, sizeof stats);
        return;
    }
    if (r->op == LIBD_OP_LIST) {
        serve_list(conn);
        return;
    }
    if (!names(conn, first, r->op == LIBD_OP_ELEMENT_CREATE ? second : NULL)) {
        conn_reply(conn, LIBD_EINVAL, 0, 0);
        return;
    }
    if (r->op == LIBD_OP_TENANT_CREATE) {
        code = pool_tenant_create(&server->pool, first, r->size, &tenant, &err);
        if (code) {
            conn_reply(conn, code, err.detail, err.have);
            return;
        }
        answer(conn, tenant->token, LIBD_TOKEN_HEX);
        conn->reply.a = tenant->id;
        return;
    }
    tenant = pool_tenant_by_name(&server->pool, first);
    if (!tenant) {
        conn_reply(conn, LIBD_ENOENT, 1, 0);
        return;
    }
    switch (r->op) {
    case LIBD_OP_TENANT_DROP:
        if (server->default_element && tenant == server->default_element->tenant) {
            conn_reply(conn, LIBD_EINVAL, 0, 0);
            return;
        }
        serve_orphan(server, tenant, NULL);
        pool_tenant_drop(tenant);
        conn_reply(conn, LIBD_OK, 0, 0);
        return;
    case LIBD_OP_TENANT_STATS: {
        struct libd_tenant_stats stats;
        pool_tenant_stats(tenant, &stats);
        answer(conn, &stats, sizeof stats);
        return;
    }
    case LIBD_OP_ELEMENT_CREATE:
        code = pool_element_begin(tenant, second, r->size, r->flags & 1, r->epoch, &element, &err);
        if (code && serve_later(conn, &err))
            return;
        if (code) {
            conn_reply(conn, code, err.detail, err.have);
            return;
        }
        if (r->addr && pool_lease(element, 0, &conn->holder, r->addr, &err)) {
            pool_element_drop(element);
            conn_reply(conn, err.code, err.detail, err.have);
            return;
        }
        if (element->clearing) {
            conn->state = CONN_MOVE;
            conn->clearing = element->clearing;
            conn->clearing->over = cleared;
            conn->clearing->waiter = conn;
        } else {
            grant(conn, element);
        }
        return;
    default: {
        struct libd_element_stats stats;
        element = pool_element_by_id(tenant, r->addr);
        if (!element || element == server->default_element) {
            conn_reply(conn, LIBD_ENOENT, 2, 0);
            return;
        }
        if (r->op == LIBD_OP_ELEMENT_RENEW) {
            code = pool_lease(element, 0, &conn->holder, r->size, &err);
            conn_reply(conn, code, err.detail, err.have);
            return;
        }
        pool_element_stats(element, &stats);
        if (r->op == LIBD_OP_ELEMENT_DROP) {
            serve_orphan(server, tenant, element);
            pool_element_drop(element);
        }
        answer(conn, &stats, sizeof stats);
        return;
    }
    }
}
