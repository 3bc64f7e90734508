/* RDMA verbs, as bindings see them: devices of this machine, and local memory that a device may reach. Works without
 * libibverbs, and without its headers: then everything answers LIBD_EUNSUPPORTED and says what is missing. */
#ifndef LIBD_VERBS_H
#define LIBD_VERBS_H

#include <stdbool.h>
#include <stdint.h>

#include "codes.h"

#define LIBD_VERBS_PORTS 2 /* of a device that are listed */
#define LIBD_VERBS_GIDS 16 /* of a port that are listed */

struct libd_verbs_gid {
    unsigned index;
    uint8_t raw[16];
    char type[24]; /* as the kernel calls it: "RoCE v2", "IB/RoCE v1" */
};

struct libd_verbs_port {
    unsigned number, state, mtu, lid, gid_count; /* state: enum ibv_port_state; mtu in bytes */
    bool ethernet;
    struct libd_verbs_gid gids[LIBD_VERBS_GIDS];
};

struct libd_verbs_device {
    char name[64], firmware[64];
    int error; /* errno of opening or querying it; 0: the rest is known */
    unsigned ports, atomics; /* atomics: 0 none, 1 within the device, 2 with the CPU too */
    uint64_t max_mr_size;
    int max_mr, max_qp, max_reads;
    struct libd_verbs_port port[LIBD_VERBS_PORTS];
};

/* Lists devices; `free` the array. A machine without any has 0. */
int libd_verbs_devices(struct libd_verbs_device **out, size_t *count, struct libd_error *err);

struct libd_domain; /* what one device can be told about this process's memory; transports to one device share it */
struct libd_local;  /* memory of this process that a device may reach */

/* Registers memory, which must stay mapped as it is until it is released again; the registration outlives transports. */
int libd_local_register(struct libd_domain *domain, void *data, uint64_t size, struct libd_local **out,
                        struct libd_error *err);
void libd_local_release(struct libd_local *local);
bool libd_local_holds(const struct libd_local *local, const void *data, uint64_t size);

struct libd_local_counts {
    uint64_t live, bytes;   /* registrations with the device that exist */
    uint64_t made, passing; /* that were made to last, and for one transfer only */
    uint64_t used, staged;  /* ranges that the transport moved straight to or from a lasting one, or copied */
};

struct libd_transport;

/* Of a transport that has a domain. */
void libd_local_counts(struct libd_transport *t, struct libd_local_counts *out);

#endif
