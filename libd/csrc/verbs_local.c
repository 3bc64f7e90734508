/* Local memory that a device may reach, and the protection domain that all transports of this process to one device
 * share: what one of them registered, the others use. Nobody else learns its keys, and they let nobody in: this side's
 * registrations have no remote rights. */
#ifdef LIBD_HAVE_VERBS
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "verbs_client.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct libd_domain *domains;

/* In a child of fork the devices are the parent's: it closes nothing, for that would close them for the parent. */
static bool foreign(const struct libd_domain *domain) { return domain->generation != libd_generation(); }

static void forked(void)
{
    pthread_mutex_init(&lock, NULL);
    domains = NULL;
}

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, forked); }

static int domain_make(const char *device, struct libd_domain **out, struct libd_error *err)
{
    struct libd_domain *domain = calloc(1, sizeof *domain);

    if (!domain || !(domain->device = strdup(device))) {
        free(domain);
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    }
    domain->generation = libd_generation();
    if (verbs_port_open(device, &domain->port, err)) {
        free(domain->device);
        free(domain);
        return err->code;
    }
    errno = 0;
    domain->pd = domain->port.lib->alloc_pd(domain->port.context);
    if (!domain->pd) {
        libd_fail(err, LIBD_ESYS, (uint64_t)(errno ? errno : EIO), 0);
        verbs_port_close(&domain->port);
        free(domain->device);
        free(domain);
        return err->code;
    }
    domain->next = domains;
    domains = domain;
    *out = domain;
    return LIBD_OK;
}

struct libd_domain *verbs_domain_open(const char *device, struct libd_error *err)
{
    struct libd_domain *domain;
    int code = LIBD_OK;

    pthread_mutex_lock(&lock);
    for (domain = domains; domain; domain = domain->next)
        if (strcmp(domain->device, device) == 0)
            break;
    if (!domain)
        code = domain_make(device, &domain, err);
    if (!code)
        domain->users++;
    pthread_mutex_unlock(&lock);
    return code ? NULL : domain;
}

void verbs_domain_close(struct libd_domain *domain)
{
    struct libd_domain **link = &domains;

    if (foreign(domain))
        return;
    pthread_mutex_lock(&lock);
    if (--domain->users == 0) {
        while (*link != domain)
            link = &(*link)->next;
        *link = domain->next;
        domain->port.lib->dealloc_pd(domain->pd);
        verbs_port_close(&domain->port);
        free(domain->device);
        free(domain);
    }
    pthread_mutex_unlock(&lock);
}

int libd_local_register(struct libd_domain *domain, void *data, uint64_t size, struct libd_local **out,
                        struct libd_error *err)
{
    struct libd_local *local;

    if (foreign(domain)) /* it would pin this process's memory for the parent, until that ends */
        return libd_fail(err, LIBD_ECLOSED, 1, 0);
    local = calloc(1, sizeof *local);
    if (!local)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    local->domain = domain;
    errno = 0;
    local->mr = domain->port.lib->reg_mr(domain->pd, data, size, IBV_ACCESS_LOCAL_WRITE);
    if (!local->mr && (errno == EFAULT || errno == EACCES)) /* memory that cannot be written: it can be sent still */
        local->mr = domain->port.lib->reg_mr(domain->pd, data, size, 0);
    if (!local->mr) {
        int error = errno;
        free(local);
        if (error == ENOMEM || error == EAGAIN || error == ENOSPC)
            return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_DEVICE, 0);
        return libd_fail(err, LIBD_ESYS, (uint64_t)(error ? error : EIO), 0);
    }
    pthread_mutex_lock(&lock);
    domain->users++;
    pthread_mutex_unlock(&lock);
    atomic_fetch_add(&domain->live, 1);
    atomic_fetch_add(&domain->bytes, size);
    atomic_fetch_add(&domain->made, 1);
    *out = local;
    return LIBD_OK;
}

void libd_local_release(struct libd_local *local)
{
    struct libd_domain *domain = local->domain;

    if (foreign(domain))
        return;
    atomic_fetch_sub(&domain->live, 1);
    atomic_fetch_sub(&domain->bytes, local->mr->length);
    domain->port.lib->dereg_mr(local->mr);
    free(local);
    verbs_domain_close(domain);
}

bool libd_local_holds(const struct libd_local *local, const void *data, uint64_t size)
{
    return local->mr->addr == data && local->mr->length == size;
}

void libd_local_counts(struct libd_transport *t, struct libd_local_counts *out)
{
    struct verbs *v = verbs_of(t);

    *out = (struct libd_local_counts){
        .live = atomic_load(&t->domain->live),
        .bytes = atomic_load(&t->domain->bytes),
        .made = atomic_load(&t->domain->made),
        .passing = atomic_load(&t->domain->passing),
    };
    /* In a child of fork nobody else counts, and whoever held the lock is not here to give it back. */
    bool locked = !foreign(t->domain);
    if (locked)
        verbs_lock(v);
    out->used = v->used;
    out->staged = v->staged;
    if (locked)
        pthread_mutex_unlock(&v->lock);
}
#else
typedef int verbs_local_is_not_built;
#endif
