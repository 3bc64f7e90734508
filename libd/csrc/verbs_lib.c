/* Finding libibverbs, and listing what it finds. */
#ifdef LIBD_HAVE_VERBS
#define _GNU_SOURCE
#include "verbs_lib.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define LIBRARY "libibverbs.so.1"

static struct verbs_lib functions;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;

/* From Linux 5.12 on a fork copies pages that a device has pinned for the child at once. Before, whoever wrote to one first
 * got a copy, and if that was the parent the device went on with a page that nobody saw: there libibverbs has to keep
 * registered pages out of children. */
static bool fork_is_safe(void)
{
    struct utsname kernel;
    unsigned major = 0, minor = 0;

    return uname(&kernel) == 0 && sscanf(kernel.release, "%u.%u", &major, &minor) == 2 &&
           (major > 5 || (major == 5 && minor >= 12));
}

static void load(void)
{
    int (*fork_init)(void);
    const struct {
        const char *name;
        void *place;
    } wanted[] = {
        {"ibv_get_device_list", &functions.get_device_list},
        {"ibv_free_device_list", &functions.free_device_list},
        {"ibv_get_device_name", &functions.get_device_name},
        {"ibv_open_device", &functions.open_device},
        {"ibv_close_device", &functions.close_device},
        {"ibv_query_device", &functions.query_device},
        {"ibv_query_port", &functions.query_port},
        {"ibv_query_gid", &functions.query_gid},
        {"ibv_alloc_pd", &functions.alloc_pd},
        {"ibv_dealloc_pd", &functions.dealloc_pd},
        {"ibv_reg_mr", &functions.reg_mr},
        {"ibv_reg_mr_iova", &functions.reg_mr_iova},
        {"ibv_dereg_mr", &functions.dereg_mr},
        {"ibv_create_comp_channel", &functions.create_comp_channel},
        {"ibv_destroy_comp_channel", &functions.destroy_comp_channel},
        {"ibv_create_cq", &functions.create_cq},
        {"ibv_destroy_cq", &functions.destroy_cq},
        {"ibv_get_cq_event", &functions.get_cq_event},
        {"ibv_ack_cq_events", &functions.ack_cq_events},
        {"ibv_create_qp", &functions.create_qp},
        {"ibv_modify_qp", &functions.modify_qp},
        {"ibv_destroy_qp", &functions.destroy_qp},
        {"ibv_fork_init", &fork_init},
    };
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (!handle)
        return;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *symbol = dlsym(handle, wanted[i].name);
        if (!symbol) {
            dlclose(handle);
            return;
        }
        memcpy(wanted[i].place, &symbol, sizeof symbol);
    }
    if (!fork_is_safe() && fork_init())
        return;
    loaded = true; /* for as long as the process lives: its drivers do not like to be unloaded */
}

const struct verbs_lib *verbs_lib(struct libd_error *err)
{
    pthread_once(&once, load);
    if (loaded)
        return &functions;
    libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_LIBRARY, 0);
    return NULL;
}

/* What the kernel says about entry `index` of a port's GID table; false: there is none. */
static bool gid_type(const char *device, unsigned port, unsigned index, char *out, int size)
{
    char path[160];
    FILE *file;

    snprintf(path, sizeof path, "/sys/class/infiniband/%s/ports/%u/gid_attrs/types/%u", device, port, index);
    file = fopen(path, "re");
    bool read = file && fgets(out, size, file);
    if (file)
        fclose(file);
    if (read)
        out[strcspn(out, "\n")] = '\0';
    return read;
}

static bool all_zero(const union ibv_gid *gid) { return !gid->global.subnet_prefix && !gid->global.interface_id; }

static void list_gids(const struct verbs_lib *lib, struct ibv_context *context, const char *device, int entries,
                      struct libd_verbs_port *out)
{
    for (int i = 0; i < entries && out->gid_count < LIBD_VERBS_GIDS; i++) {
        struct libd_verbs_gid *entry = &out->gids[out->gid_count];
        union ibv_gid gid;
        memset(entry, 0, sizeof *entry);
        if (lib->query_gid(context, (uint8_t)out->number, i, &gid) || all_zero(&gid))
            continue;
        entry->index = (unsigned)i;
        memcpy(entry->raw, gid.raw, sizeof entry->raw);
        gid_type(device, out->number, (unsigned)i, entry->type, sizeof entry->type);
        out->gid_count++;
    }
}

static int list_port(const struct verbs_lib *lib, struct ibv_context *context, const char *device, unsigned number,
                     struct libd_verbs_port *out)
{
    struct ibv_port_attr attributes = {0};
    int code = lib->query_port(context, (uint8_t)number, &attributes);

    memset(out, 0, sizeof *out);
    if (code)
        return code;
    out->number = number;
    out->state = attributes.state;
    out->mtu = attributes.active_mtu ? 128u << attributes.active_mtu : 0;
    out->lid = attributes.lid;
    out->ethernet = attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
    list_gids(lib, context, device, attributes.gid_tbl_len, out);
    return 0;
}

static void list_device(const struct verbs_lib *lib, struct ibv_device *device, struct libd_verbs_device *out)
{
    struct ibv_context *context;
    struct ibv_device_attr attributes = {0};

    snprintf(out->name, sizeof out->name, "%s", lib->get_device_name(device));
    errno = 0;
    context = lib->open_device(device);
    if (!context) {
        out->error = errno ? errno : EIO;
        return;
    }
    out->error = lib->query_device(context, &attributes);
    snprintf(out->firmware, sizeof out->firmware, "%.63s", attributes.fw_ver);
    out->ports = attributes.phys_port_cnt;
    out->atomics = (unsigned)attributes.atomic_cap;
    out->max_mr_size = attributes.max_mr_size;
    out->max_mr = attributes.max_mr;
    out->max_qp = attributes.max_qp;
    out->max_reads = attributes.max_qp_rd_atom;
    for (unsigned i = 0; i < LIBD_VERBS_PORTS && i < out->ports && !out->error; i++)
        out->error = list_port(lib, context, out->name, i + 1, &out->port[i]);
    lib->close_device(context);
}

int libd_verbs_devices(struct libd_verbs_device **out, size_t *count, struct libd_error *err)
{
    const struct verbs_lib *lib = verbs_lib(err);
    struct ibv_device **found;
    int n = 0;

    *out = NULL;
    *count = 0;
    if (!lib)
        return err->code;
    found = lib->get_device_list(&n);
    if (!found || n == 0) { /* NULL: no RDMA in this kernel */
        if (found)
            lib->free_device_list(found);
        return LIBD_OK;
    }
    *out = calloc((size_t)n, sizeof **out);
    for (int i = 0; i < n && *out; i++)
        list_device(lib, found[i], &(*out)[i]);
    lib->free_device_list(found);
    if (!*out)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    *count = (size_t)n;
    return LIBD_OK;
}

/* ---- choosing ---------------------------------------------------------------------------------------------------- */

/* How well a GID serves: packets of RoCE v2 can be routed, and IPv4 is what most networks for it have. */
static int rank(const struct libd_verbs_gid *gid, bool ethernet)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    bool v2 = strcmp(gid->type, "RoCE v2") == 0, ipv4 = memcmp(gid->raw, mapped, sizeof mapped) == 0;
    bool link_local = gid->raw[0] == 0xfe && (gid->raw[1] & 0xc0) == 0x80;

    if (!ethernet)
        return gid->index == 0 ? 8 : 1; /* the others are aliases */
    return (v2 ? 4 : 0) + (ipv4 ? 2 : link_local ? 0 : 1) + 1;
}

static bool choose_gid(const struct libd_verbs_port *port, int wanted, struct verbs_port *out)
{
    int best = 0;

    for (unsigned i = 0; i < port->gid_count; i++) {
        const struct libd_verbs_gid *gid = &port->gids[i];
        int r = wanted < 0 ? rank(gid, port->ethernet) : (int)gid->index == wanted;
        if (r <= best)
            continue;
        best = r;
        out->gid_index = (uint8_t)gid->index;
        memcpy(out->gid.raw, gid->raw, sizeof out->gid.raw);
    }
    return best > 0;
}

static bool choose_port(const struct libd_verbs_device *device, int number, int gid, struct verbs_port *out)
{
    for (unsigned i = 0; i < LIBD_VERBS_PORTS && i < device->ports; i++) {
        const struct libd_verbs_port *port = &device->port[i];
        if (number > 0 && (int)port->number != number)
            continue;
        if (port->state != IBV_PORT_ACTIVE || !choose_gid(port, gid, out))
            continue;
        out->number = (uint8_t)port->number;
        out->lid = (uint16_t)port->lid;
        for (out->mtu = IBV_MTU_256; out->mtu < IBV_MTU_4096 && (128u << out->mtu) < port->mtu;)
            out->mtu++;
        out->max_answers = device->max_reads;
        out->atomics = (enum ibv_atomic_cap)device->atomics;
        return true;
    }
    return false;
}

static int open_chosen(struct verbs_port *out, struct libd_error *err)
{
    int n = 0;
    struct ibv_device **found = out->lib->get_device_list(&n);
    struct ibv_device_attr attributes = {0};

    errno = ENODEV;
    for (int i = 0; i < n && found && !out->context; i++)
        if (strcmp(out->lib->get_device_name(found[i]), out->name) == 0)
            out->context = out->lib->open_device(found[i]);
    int error = errno;
    if (found)
        out->lib->free_device_list(found);
    if (!out->context)
        return libd_fail(err, LIBD_ESYS, (uint64_t)error, 0);
    error = out->lib->query_device(out->context, &attributes);
    if (error) {
        verbs_port_close(out);
        return libd_fail(err, LIBD_ESYS, (uint64_t)error, 0);
    }
    out->max_asks = attributes.max_qp_init_rd_atom;
    return LIBD_OK;
}

int verbs_port_open(const char *device, struct verbs_port *out, struct libd_error *err)
{
    struct libd_verbs_device *list;
    char name[64] = "";
    int port = -1, gid = -1;
    size_t count;
    bool chosen = false;

    memset(out, 0, sizeof *out);
    if (device && *device && sscanf(device, "%63[^:]:%d:%d", name, &port, &gid) < 1)
        return libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_DEVICE, 0);
    out->lib = verbs_lib(err);
    if (!out->lib || libd_verbs_devices(&list, &count, err))
        return err->code;
    for (size_t i = 0; i < count && !chosen; i++) {
        if (list[i].error || (*name && strcmp(list[i].name, name) != 0))
            continue;
        chosen = choose_port(&list[i], port, gid, out);
        if (chosen)
            snprintf(out->name, sizeof out->name, "%s", list[i].name);
    }
    free(list);
    return chosen ? open_chosen(out, err) : libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_DEVICE, 0);
}

void verbs_port_close(struct verbs_port *port)
{
    if (port->context)
        port->lib->close_device(port->context);
    port->context = NULL;
}
#else
typedef int verbs_lib_is_not_built; /* a translation unit must not be empty */
#endif
