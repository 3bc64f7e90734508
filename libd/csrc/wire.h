/* The wire protocol, version 3. docs/libd-protocol.md is its description; keep the two alike.
 * Little-endian throughout; both sides refuse to build elsewhere rather than swap bytes on the data path. */
#ifndef LIBD_WIRE_H
#define LIBD_WIRE_H

#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "libd's wire protocol and shared tables are little-endian"
#endif

#define LIBD_MAGIC "SCADMEM1"
#define LIBD_VERSION 3
#define LIBD_REPLY_MAGIC 0x5343u
#define LIBD_OFFSET_BITS 40
#define LIBD_OFFSET_MASK ((UINT64_C(1) << LIBD_OFFSET_BITS) - 1)
#define LIBD_SLOTS (1u << 18)       /* regions of one tenant, the unused slot 0 included */
#define LIBD_MAX_SEGMENTS 2048      /* of one READV or WRITEV: what a client makes the server keep is 48 KiB */
#define LIBD_SHORT_READ (64u << 10) /* bytes up to which a READ may be answered before longer ones that came first */
#define LIBD_MAX_NAME 255
#define LIBD_MAX_TOKEN 255
#define LIBD_KEY_BYTES 16
#define LIBD_OPERATIONS 48          /* operations that are counted one by one */
#define LIBD_ERRORS 20
#define LIBD_TOKEN_HEX 64           /* characters of a tenant's token */

enum libd_kind { LIBD_KIND_DEFAULT = 1, LIBD_KIND_ELEMENT = 2, LIBD_KIND_ADMIN = 3 };

enum libd_op {
    LIBD_OP_READ = 1,      /* addr, epoch, size -> data */
    LIBD_OP_WRITE = 2,     /* addr, epoch, size; payload: data */
    LIBD_OP_READV = 3,     /* count; payload: segments -> data */
    LIBD_OP_WRITEV = 4,    /* count; payload: segments, data */
    LIBD_OP_ALLOC = 5,     /* size, addr = alignment, epoch = lease in ms, flags = enum libd_alloc_flags -> region, epoch */
    LIBD_OP_FREE = 6,      /* addr, epoch */
    LIBD_OP_EXTEND = 7,    /* addr, epoch, size -> region, epoch */
    LIBD_OP_REGION = 8,    /* addr -> epoch, size */
    LIBD_OP_FLUSH = 9,     /* -> nothing: requests of a connection are done in order */
    LIBD_OP_STAT = 10,     /* -> struct libd_element_stats */
    LIBD_OP_ATTACH = 11,   /* Unix sockets only -> arena size; the two descriptors go with the reply */
    LIBD_OP_RENEW = 12,    /* addr, epoch, size = lease in ms, 0: keep for good; this connection becomes its holder */
    LIBD_OP_FETCH_ADD = 16,    /* addr, epoch, size = what to add -> the word as it was */
    LIBD_OP_COMPARE_SWAP = 17, /* addr, epoch, size = expected; payload: the new word, 8 bytes -> the word as it was */
    LIBD_OP_VERBS_OPEN = 20,   /* payload: struct libd_verbs_peer -> the server's; this connection keeps the queue pair */
    LIBD_OP_VERBS_REGION = 21, /* addr, epoch -> struct libd_verbs_region */
    LIBD_OP_VERBS_CLOSE = 22,  /* destroys this connection's queue pair */
    LIBD_OP_TENANT_CREATE = 32, /* size = quota; payload: name -> id; payload: token */
    LIBD_OP_TENANT_DROP = 33,   /* payload: name */
    LIBD_OP_ELEMENT_CREATE = 34, /* size, epoch = limit, flags = elastic, addr = lease in ms; payload: tenant NUL name -> id;
                                    payload: key */
    LIBD_OP_ELEMENT_DROP = 35,  /* addr = id; payload: tenant -> struct libd_element_stats */
    LIBD_OP_ELEMENT_STATS = 36, /* addr = id; payload: tenant -> struct libd_element_stats */
    LIBD_OP_SERVER_STATS = 37,  /* -> struct libd_server_stats */
    LIBD_OP_TENANT_STATS = 38,  /* payload: name -> struct libd_tenant_stats */
    LIBD_OP_LIST = 39, /* addr = numbers below it, 0: all; payload: tenant, or none -> count, more; struct libd_entry … */
    LIBD_OP_ELEMENT_RENEW = 40, /* addr = id, size = lease in ms, 0: keep for good; payload: tenant */
};

enum libd_alloc_flags {
    LIBD_ALLOC_NIC = 1, /* the region's words are changed atomically by the RDMA device, by nobody else */
};

/* Of READ and READV: what a long transfer is cut into. A server that drains does not cut it off in the middle. */
enum libd_part_flags {
    LIBD_PART_MORE = 1, /* another part follows on this connection */
    LIBD_PART_LAST = 2,
};

enum libd_features {
    LIBD_FEATURE_VERBS = 1, /* the server has an RDMA device: LIBD_OP_VERBS_OPEN works */
};

struct libd_hello {
    char magic[8];
    uint16_t version;
    uint16_t kind;
    uint16_t token_length; /* the token follows */
    uint16_t zero;
    uint64_t tenant;
    uint64_t element;
    uint8_t key[LIBD_KEY_BYTES];
};

struct libd_request {
    uint16_t op;
    uint16_t flags;
    uint32_t count;
    uint64_t id;
    uint64_t addr;
    uint64_t epoch;
    uint64_t size;
    uint64_t length; /* of the payload that follows */
};

struct libd_reply {
    uint16_t magic;
    uint16_t op;
    int32_t code; /* enum libd_code */
    uint64_t id;
    uint64_t a;
    uint64_t b;
    uint64_t length; /* of the payload that follows; 0 with an error */
};

struct libd_segment {
    uint64_t addr;
    uint64_t epoch;
    uint64_t size;
};

struct libd_welcome {
    uint8_t incarnation[16];
    uint64_t tenant;
    uint64_t element;
    uint64_t size;  /* of region 0, or the limit of an elastic element */
    uint64_t epoch; /* of region 0 */
    uint32_t root;  /* slot of region 0; 0: none */
    uint32_t elastic;
    uint32_t name_length; /* the element's name follows */
    uint32_t features;    /* enum libd_features */
};

/* One end of a reliable connection between two queue pairs. */
struct libd_verbs_peer {
    uint8_t gid[16];
    uint32_t qpn;
    uint32_t psn;
    uint16_t lid;
    uint8_t mtu;    /* enum ibv_mtu; both sides use the smaller one */
    uint8_t atomic; /* RDMA READs and atomics that this side answers at a time */
    uint32_t zero;
};

/* A region as one-sided operations reach it. */
struct libd_verbs_region {
    uint64_t addr; /* what remote_addr is for offset 0 */
    uint64_t size;
    uint64_t epoch;
    uint32_t rkey;
    uint32_t nic; /* 1: its words are in the device's atomicity domain */
};

struct libd_element_stats {
    uint64_t reserved, peak, limit, regions;
    double byte_seconds;
    uint64_t bytes_read, bytes_written;
    double age; /* seconds since creation */
    uint64_t free, free_blocks, largest_free; /* of what it allocates from: region 0, or (elastic) its tenant's arena */
};

struct libd_tenant_stats {
    uint64_t quota, reserved, resident, elements, regions;
    uint64_t free_blocks, largest_free;
    uint64_t peak, free; /* `free` and the two before: of its arena */
    uint64_t connections;
};

/* Of a list: a tenant or an element. `name_length` bytes of its name follow. */
struct libd_entry {
    uint64_t id;
    uint32_t name_length;
    uint32_t size;      /* of what `stats` holds: libd_tenant_stats or libd_element_stats */
    uint64_t stats[11];
};

struct libd_server_stats {
    uint64_t size, reserved, resident, tenants, elements, regions;
    uint64_t connections, accepted, requests, refused, bytes_read, bytes_written;
    double uptime;
    uint64_t overhead; /* private memory of the server's process: what it takes beyond the pool */
    uint64_t leases, leases_expired, draining;
    uint64_t peak; /* the most that was ever reserved */
    uint64_t operations[LIBD_OPERATIONS]; /* requests by operation */
    uint64_t errors[LIBD_ERRORS];         /* replies by code */
    uint64_t undrawn;           /* promised by this server, and not in use yet */
    uint64_t undrawn_elsewhere; /* by others of the same user on this machine */
    uint64_t ledger;            /* 1: they know of one another */
    uint64_t turned_away;       /* connections for which there was no descriptor */
    uint64_t descriptors;       /* that the server's process may have */
};

_Static_assert(sizeof(struct libd_hello) == 48, "wire layout");
_Static_assert(sizeof(struct libd_request) == 48, "wire layout");
_Static_assert(sizeof(struct libd_reply) == 40, "wire layout");
_Static_assert(sizeof(struct libd_segment) == 24, "wire layout");
_Static_assert(sizeof(struct libd_welcome) == 64, "wire layout");
_Static_assert(sizeof(struct libd_verbs_peer) == 32, "wire layout");
_Static_assert(sizeof(struct libd_verbs_region) == 32, "wire layout");
_Static_assert(sizeof(struct libd_element_stats) == 88, "wire layout");
_Static_assert(sizeof(struct libd_tenant_stats) == 80, "wire layout");
_Static_assert(sizeof(struct libd_server_stats) == 728, "wire layout");
_Static_assert(sizeof(struct libd_entry) == 104, "wire layout");

#endif
