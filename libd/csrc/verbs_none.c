/* What a libd that was built without libibverbs' headers says about verbs. */
#ifndef LIBD_HAVE_VERBS
#include "conn.h"
#include "transport.h"
#include "verbs.h"

static int lacking(struct libd_error *err) { return libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_BUILD, 0); }

int libd_verbs_devices(struct libd_verbs_device **out, size_t *count, struct libd_error *err)
{
    *out = NULL;
    *count = 0;
    return lacking(err);
}

int libd_open_verbs(const struct libd_address *address, const char *device, struct libd_transport **out,
                    struct libd_error *err)
{
    return lacking(err);
}

int libd_local_register(struct libd_domain *domain, void *data, uint64_t size, struct libd_local **out,
                        struct libd_error *err)
{
    return lacking(err);
}

void libd_local_release(struct libd_local *local) {}

bool libd_local_holds(const struct libd_local *local, const void *data, uint64_t size) { return false; }

void libd_local_counts(struct libd_transport *t, struct libd_local_counts *out)
{
    *out = (struct libd_local_counts){0};
}

int verbs_server_start(struct server *server, struct libd_error *err)
{
    return server->options.device_optional ? LIBD_OK : lacking(err);
}

void verbs_server_stop(struct server *server) {}

const char *verbs_server_device(const struct server *server) { return NULL; }

void serve_verbs(struct conn *conn) { conn_reply(conn, LIBD_EUNSUPPORTED, LIBD_LACK_SERVER, 0); }

void verbs_hang_up(struct conn *conn) {}

void verbs_cut_off(struct conn *conn) {}
#else
typedef int verbs_none_is_not_needed;
#endif
