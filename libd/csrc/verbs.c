/* rdma_uverbs: one-sided reads, writes and atomics over RDMA. What changes regions asks the server over TCP. */
#ifdef LIBD_HAVE_VERBS
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "verbs_client.h"

/* ---- what the server is asked ------------------------------------------------------------------------------------ */

static int verbs_renew(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t lease_ms, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);

    return v->control->ops->renew(v->control, addr, epoch, lease_ms, err);
}

static int verbs_alloc(struct libd_transport *t, const struct libd_wanted *wanted, uint32_t *region, uint64_t *epoch,
                       struct libd_error *err)
{
    struct verbs *v = verbs_of(t);

    return v->control->ops->alloc(v->control, wanted, region, epoch, err);
}

/* What is known about a region is out of date once it was freed or extended. */
static void forget(struct verbs *v, uint64_t addr)
{
    verbs_lock(v);
    struct remote *remote = verbs_remote(v, addr);
    if (remote)
        remote->fresh = false;
    pthread_mutex_unlock(&v->lock);
}

static int verbs_free(struct libd_transport *t, uint64_t addr, uint64_t epoch, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);
    int code = v->control->ops->free(v->control, addr, epoch, err);

    forget(v, addr);
    return code;
}

static int verbs_extend(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
                        uint64_t *new_epoch, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);
    int code = v->control->ops->extend(v->control, addr, epoch, size, region, new_epoch, err);

    forget(v, addr);
    return code;
}

static int verbs_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);

    return v->control->ops->region(v->control, addr, epoch, size, err);
}

static int verbs_stat(struct libd_transport *t, struct libd_element_stats *out, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);

    return v->control->ops->stat(v->control, out, err);
}

static void verbs_shutdown(struct libd_transport *t)
{
    struct verbs *v = verbs_of(t);

    if (v->control)
        libd_shutdown(v->control); /* first: whoever talks to the server comes back */
    verbs_lock(v);
    verbs_link_lose(v, LIBD_ECLOSED, 0, 0);
    pthread_mutex_unlock(&v->lock);
    if (v->event >= 0)
        eventfd_write(v->event, 1);
}

static void verbs_destroy(struct libd_transport *t)
{
    struct verbs *v = verbs_of(t);
    const struct verbs_lib *lib = v->domain ? v->domain->port.lib : NULL;

    /* In a child of fork the device's objects are the parent's, whom destroying them here would hit. */
    if (t->generation == libd_generation() && v->domain) {
        if (v->stage_mr)
            lib->dereg_mr(v->stage_mr);
        if (v->cq)
            lib->destroy_cq(v->cq);
        if (v->channel)
            lib->destroy_comp_channel(v->channel);
        verbs_domain_close(v->domain);
    }
    if (v->stage)
        munmap(v->stage, STAGE_SIZE);
    const int fds[] = {v->event, v->epoll, v->watch};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    for (size_t i = 0; i < LIBD_BOUND_CHUNKS; i++)
        free(v->remotes[i]);
    free(v->ring);
    if (v->control)
        libd_destroy(v->control);
    pthread_cond_destroy(&v->changed);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

static const struct libd_transport_ops verbs_ops = {
    .type = "rdma_uverbs",
    .readv = verbs_readv,
    .writev = verbs_writev,
    .submit = verbs_submit,
    .progress = verbs_progress,
    .abandon = verbs_abandon,
    .fd = verbs_fd,
    .atomic = verbs_atomic,
    .renew = verbs_renew,
    .alloc = verbs_alloc,
    .free = verbs_free,
    .extend = verbs_extend,
    .region = verbs_region,
    .flush = verbs_flush,
    .stat = verbs_stat,
    .shutdown = verbs_shutdown,
    .destroy = verbs_destroy,
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static int failed(struct libd_error *err)
{
    if (errno == ENOMEM || errno == EAGAIN)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_DEVICE, 0);
    return libd_fail(err, LIBD_ESYS, (uint64_t)(errno ? errno : EIO), 0);
}

static int equip(struct verbs *v, struct libd_error *err)
{
    const struct verbs_port *port = &v->domain->port;

    errno = 0;
    v->ring = calloc(DEPTH, sizeof *v->ring);
    v->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    v->stage = mmap(NULL, STAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (v->stage == MAP_FAILED)
        v->stage = NULL;
    if (!v->ring || v->event < 0 || !v->stage)
        return failed(err);
    v->channel = port->lib->create_comp_channel(port->context);
    if (!v->channel)
        return failed(err);
    fcntl(v->channel->fd, F_SETFL, fcntl(v->channel->fd, F_GETFL) | O_NONBLOCK);
    fcntl(v->channel->fd, F_SETFD, FD_CLOEXEC);
    v->cq = port->lib->create_cq(port->context, (int)DEPTH + 16, NULL, v->channel, 0);
    if (!v->cq)
        return failed(err);
    v->stage_mr = port->lib->reg_mr(v->domain->pd, v->stage, STAGE_SIZE, IBV_ACCESS_LOCAL_WRITE);
    return v->stage_mr ? LIBD_OK : failed(err);
}

int libd_open_verbs(const struct libd_address *address, const char *device, struct libd_transport **out,
                    struct libd_error *err)
{
    struct libd_address single = *address;
    struct verbs *v;
    pthread_condattr_t clock;
    int code;

    v = calloc(1, sizeof *v);
    if (!v)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    pthread_mutex_init(&v->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&v->changed, &clock);
    pthread_condattr_destroy(&clock);
    v->event = v->epoll = v->watch = -1;
    v->transport.ops = &verbs_ops;
    v->transport.generation = libd_generation();
    for (unsigned i = 0; i < SIZE_CLASSES; i++)
        v->patience[i] = 512;
    single.stripes = 1; /* no data goes there */
    v->domain = verbs_domain_open(device ? device : "", err);
    code = v->domain ? libd_open_stream(&single, &v->control, err) : err->code;
    if (!code && !(v->control->who.features & LIBD_FEATURE_VERBS))
        code = libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_SERVER, 0);
    if (!code)
        code = equip(v, err);
    if (!code) {
        v->transport.domain = v->domain;
        v->transport.who = v->control->who;
        memcpy(v->transport.name, v->control->name, sizeof v->transport.name);
        /* Two devices can be on networks that have nothing to do with one another, and a queue pair be made all the same. */
        code = verbs_prove(v, address->timeout, err);
    }
    if (code) {
        struct libd_error why = *err;
        libd_destroy(&v->transport);
        *err = why;
        return code;
    }
    *out = &v->transport;
    return LIBD_OK;
}
#else
typedef int verbs_is_not_built;
#endif
