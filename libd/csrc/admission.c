/* Who may have a connection. Descriptors are what runs out first: a process has a limited number of them. */
#include <dirent.h>
#include <sys/resource.h>

#include "conn.h"

#define RESERVE 32u       /* descriptors that only greetings and the administrator get */
#define RESERVE_SHARE 8u  /* of them all, where there are few */
#define PER_TENANT 2u     /* arena and table */

uint64_t server_descriptors(void)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > UINT32_MAX ? UINT32_MAX : limit.rlim_cur;
}

uint64_t server_open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint64_t count = 0;

    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count;
}

/* Descriptors that connections to elements may still take. */
static uint64_t left(const struct server *server)
{
    uint64_t all = server_descriptors(), kept = all / RESERVE_SHARE;
    /* Strangers do not count: they make room where there is none. It is one itself until it is let in. */
    uint64_t used = server->others + server->conn_count - server->greeting + 1;

    for (const struct tenant *t = server->pool.tenants; t; t = t->next)
        used += PER_TENANT;
    used += kept < RESERVE ? kept : RESERVE;
    return all > used ? all - used : 0;
}

bool admit(struct conn *conn, struct tenant *tenant, uint64_t *most)
{
    /* Nobody gets more than it leaves to all others. So one tenant alone gets half of them, of n that all want more each gets
     * a share of n + 1, and there is always one for who comes next. */
    uint64_t free = left(conn->server);

    *most = tenant->connections;
    if (tenant->connections >= free)
        return false;
    tenant->connections++;
    return true;
}

bool make_room(struct server *server)
{
    struct conn *oldest = NULL;

    for (struct conn *c = server->conns; c; c = c->next)
        if (c->state == CONN_HELLO)
            oldest = c;
    if (!oldest)
        return false;
    server->turned_away++;
    conn_close(oldest);
    return true;
}
