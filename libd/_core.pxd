"""Declarations of the native core. `transport.h` and `server.h` say what each does."""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "codes.h":
    enum:
        LIBD_OK, LIBD_ECLOSED, LIBD_ETIMEOUT, LIBD_EAUTH, LIBD_EBOUNDS, LIBD_ECAP, LIBD_ESTALE
        LIBD_ECAPACITY, LIBD_EUNSUPPORTED, LIBD_EPROTO, LIBD_EEXIST, LIBD_ENOENT, LIBD_EINVAL
        LIBD_ENOMEM, LIBD_EVERSION, LIBD_ESIGNAL, LIBD_ESYS
    enum:
        LIBD_CAP_ELEMENT, LIBD_CAP_TENANT, LIBD_CAP_SERVER, LIBD_CAP_MACHINE
        LIBD_CAP_FRAGMENTED, LIBD_CAP_REGIONS, LIBD_CAP_TENANTS, LIBD_CAP_CONNECTIONS, LIBD_CAP_DEVICE
    enum:
        LIBD_STRANGER
    enum:
        LIBD_LACK_OPERATION, LIBD_LACK_DOMAIN, LIBD_LACK_BUILD, LIBD_LACK_LIBRARY, LIBD_LACK_DEVICE, LIBD_LACK_SERVER
        LIBD_LACK_WAY

    struct libd_error:
        int code
        uint64_t detail
        uint64_t have


cdef extern from "capacity.h" nogil:
    uint64_t libd_available()


cdef extern from "net.h" nogil:
    bint net_is_loopback(const char *host)


cdef extern from "wire.h":
    enum:
        LIBD_VERSION, LIBD_OFFSET_BITS, LIBD_KEY_BYTES, LIBD_MAX_TOKEN
        LIBD_KIND_DEFAULT, LIBD_KIND_ELEMENT, LIBD_KIND_ADMIN, LIBD_ALLOC_NIC, LIBD_FEATURE_VERBS

    struct libd_request:
        uint16_t op
        uint16_t flags
        uint64_t addr
        uint64_t epoch
        uint64_t size
        uint64_t length

    struct libd_reply:
        uint64_t a
        uint64_t b
        uint64_t length

    struct libd_welcome:
        uint8_t incarnation[16]
        uint64_t tenant
        uint64_t element
        uint64_t size
        uint64_t epoch
        uint32_t root
        uint32_t elastic
        uint32_t features

    struct libd_element_stats:
        uint64_t reserved
        uint64_t peak
        uint64_t limit
        uint64_t regions
        double byte_seconds
        uint64_t bytes_read
        uint64_t bytes_written
        double age
        uint64_t free
        uint64_t free_blocks
        uint64_t largest_free


cdef extern from "pool.h":
    struct libd_wanted:
        uint64_t size
        uint64_t align
        uint64_t lease_ms
        uint16_t flags


cdef extern from "verbs.h" nogil:
    enum:
        LIBD_VERBS_PORTS

    struct libd_verbs_gid:
        unsigned index
        uint8_t raw[16]
        char type[24]

    struct libd_verbs_port:
        unsigned number, state, mtu, lid, gid_count
        bint ethernet
        libd_verbs_gid gids[16]

    struct libd_verbs_device:
        char name[64]
        char firmware[64]
        int error
        unsigned ports, atomics
        uint64_t max_mr_size
        int max_mr, max_qp, max_reads
        libd_verbs_port port[2]

    struct libd_domain:
        pass

    struct libd_local:
        pass

    struct libd_local_counts:
        uint64_t live, bytes, made, used, passing, staged

    int libd_verbs_devices(libd_verbs_device **out, size_t *count, libd_error *err)
    int libd_local_register(libd_domain *domain, void *data, uint64_t size, libd_local **out, libd_error *err)
    void libd_local_release(libd_local *local)
    bint libd_local_holds(const libd_local *local, const void *data, uint64_t size)


cdef extern from "transport.h" nogil:
    struct libd_vec:
        uint64_t addr
        uint64_t epoch
        void *data
        uint64_t size
        libd_local *local

    struct libd_transport_ops:
        const char *type
        void *map

    struct libd_batch:
        libd_vec *vec
        size_t count
        size_t reads
        libd_error err

    enum libd_atomic_op:
        LIBD_FETCH_ADD, LIBD_COMPARE_SWAP

    struct libd_memory:
        uint8_t *base
        uint64_t size

    struct libd_counters:
        uint64_t reads
        uint64_t writes
        uint64_t maps
        uint64_t atomics
        uint64_t bytes_read
        uint64_t bytes_written
        uint64_t bytes_mapped
        uint64_t bytes_mapped_writable

    struct libd_transport:
        const libd_transport_ops *ops
        libd_memory *memory
        libd_domain *domain
        libd_welcome who
        const char *name
        libd_counters counters
        bint closed

    struct libd_address:
        const char *host
        const char *port
        const char *path
        uint16_t kind
        const char *token
        uint64_t tenant
        uint64_t element
        uint8_t key[16]
        double timeout
        double stall
        unsigned stripes

    struct libd_call:
        libd_request request
        const void *payload
        uint64_t payload_size
        void *reply_payload
        uint64_t reply_room
        libd_reply reply

    int (*libd_check_signals)() noexcept nogil

    int libd_open_local(uint64_t size, bint elastic, libd_memory **memory, libd_transport **out, libd_error *err)
    int libd_open_stream(const libd_address *address, libd_transport **out, libd_error *err)
    int libd_open_verbs(const libd_address *address, const char *device, libd_transport **out, libd_error *err)
    void libd_local_counts_of "libd_local_counts"(libd_transport *t, libd_local_counts *out)
    void libd_use_memory(libd_transport *transport, libd_memory *memory)
    int libd_open_attached(const libd_address *address, libd_memory **memory, libd_transport **out, libd_error *err)
    int libd_attach(libd_transport *transport, libd_memory **out, libd_error *err)
    void libd_memory_destroy(libd_memory *memory)
    bint libd_memory_alive(const libd_memory *memory)

    int libd_readv(libd_transport *t, libd_vec *vec, size_t count, libd_error *err)
    int libd_writev(libd_transport *t, libd_vec *vec, size_t count, libd_error *err)
    int libd_map(libd_transport *t, uint64_t addr, uint64_t size, bint writable, void **out, libd_error *err)
    bint libd_batch_done(const libd_batch *batch)
    int libd_submit(libd_transport *t, libd_batch *batch, libd_error *err)
    int libd_wait(libd_transport *t, libd_batch *batch, double timeout, libd_error *err)
    void libd_poll(libd_transport *t)
    int libd_fd(libd_transport *t)
    int libd_atomic(libd_transport *t, libd_atomic_op op, uint64_t addr, uint64_t a, uint64_t b, uint64_t *old, libd_error *err)
    int libd_renew(libd_transport *t, uint64_t addr, uint64_t lease_ms, libd_error *err)
    int libd_alloc(libd_transport *t, const libd_wanted *wanted, uint64_t *addr, libd_error *err)
    int libd_free(libd_transport *t, uint64_t addr, libd_error *err)
    int libd_extend(libd_transport *t, uint64_t addr, uint64_t size, uint64_t *out, libd_error *err)
    int libd_region(libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, libd_error *err)
    int libd_resolve(libd_transport *t, uint32_t region, uint64_t epoch, uint64_t *size, libd_error *err)
    int libd_flush(libd_transport *t, libd_error *err)
    int libd_stat(libd_transport *t, libd_element_stats *out, libd_error *err)
    void libd_shutdown(libd_transport *t)
    void libd_destroy(libd_transport *t)
    uint64_t libd_stream_connections(libd_transport *t)
    int libd_stream_call(libd_transport *t, libd_call *call, libd_error *err)


cdef extern from "server.h" nogil:
    struct server:
        pass

    struct server_options:
        uint64_t size
        uint64_t default_region
        const char *host
        uint16_t port
        const char *path
        const char *token
        const char *admin_token
        const char *device
        bint device_optional
        double keep_warm

    int server_start(const server_options *options, server **out, libd_error *err)
    uint16_t server_port(const server *server)
    void server_drain(server *s, uint64_t ms)
    bint server_over(server *s, double seconds)
    const char *server_device(const server *server)
    void server_stop(server *server)
