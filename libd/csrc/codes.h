/* Return codes; `_core.pyx` turns them into exceptions in one place. They also travel in replies. */
#ifndef LIBD_CODES_H
#define LIBD_CODES_H

#include <stdint.h>

enum libd_code {
    LIBD_OK = 0,
    LIBD_ECLOSED = 1,
    LIBD_ETIMEOUT = 2,
    LIBD_EAUTH = 3,
    LIBD_EBOUNDS = 4,
    LIBD_ECAP = 5,
    LIBD_ESTALE = 6,
    LIBD_ECAPACITY = 7,
    LIBD_EUNSUPPORTED = 8,
    LIBD_EPROTO = 9,
    LIBD_EEXIST = 10,
    LIBD_ENOENT = 11,
    LIBD_EINVAL = 12,
    LIBD_ENOMEM = 13,
    LIBD_EVERSION = 14, /* detail: the other side's version */
    LIBD_ESIGNAL = 15,  /* a Python signal handler raised; never on the wire */
    LIBD_ESYS = 16,     /* detail: errno */
};

/* What ran out, in `detail` of LIBD_ECAPACITY; `have` is what was left of it. */
enum libd_capacity {
    LIBD_CAP_ELEMENT = 1,
    LIBD_CAP_TENANT = 2,
    LIBD_CAP_SERVER = 3,
    LIBD_CAP_MACHINE = 4,
    LIBD_CAP_FRAGMENTED = 5,
    LIBD_CAP_REGIONS = 6,
    LIBD_CAP_TENANTS = 7, /* of one server: see MAX_TENANTS */
    LIBD_CAP_CONNECTIONS = 8, /* of one tenant: see admission.c */
    LIBD_CAP_DEVICE = 16, /* an RDMA device, or what may be locked in memory for it */
};

/* What is missing, in `detail` of LIBD_EUNSUPPORTED. */
enum libd_lack {
    LIBD_LACK_OPERATION = 0, /* this kind of transport cannot do it */
    LIBD_LACK_DOMAIN = 1,    /* the word is in another atomicity domain */
    LIBD_LACK_BUILD = 2,     /* built without libibverbs' headers */
    LIBD_LACK_LIBRARY = 3,   /* libibverbs is not installed */
    LIBD_LACK_DEVICE = 4,    /* no RDMA device here, or none of that name */
    LIBD_LACK_SERVER = 5,    /* the memory server has no RDMA device, or was not started with one */
    LIBD_LACK_WAY = 6,       /* both have one, and nothing gets from one to the other */
};

#define LIBD_STRANGER 1 /* detail of LIBD_EAUTH: the server is another user's, `have`; never on the wire */
#define LIBD_STOPPING 4 /* detail of LIBD_ECLOSED: the server begins nothing any more */

struct libd_error {
    int code;
    uint64_t detail;
    uint64_t have;
};

static inline int libd_fail(struct libd_error *err, int code, uint64_t detail, uint64_t have)
{
    err->code = code;
    err->detail = detail;
    err->have = have;
    return code;
}

#endif
