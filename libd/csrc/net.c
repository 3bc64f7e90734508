#define _GNU_SOURCE
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "transport.h"

#define BACKLOG 512
#define LOOPBACK_BUFFER (512 << 10)

static void set(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }

static bool peer_is_here(int fd)
{
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;

    if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0)
        return false;
    if (peer.ss_family == AF_INET)
        return (ntohl(((struct sockaddr_in *)&peer)->sin_addr.s_addr) >> 24) == 127;
    if (peer.ss_family == AF_INET6) {
        const struct in6_addr *a = &((struct sockaddr_in6 *)&peer)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
    }
    return false;
}

/* A peer whose machine is gone is noticed within about 20 s; one whose process is gone, at once. */
void net_tune_tcp(int fd)
{
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    /* On loopback nothing is won by more bytes on the way than the second-level cache holds: measured on 1 MiB of it, 64 MiB
     * reads are 1.3 times as fast as with the 4 MiB that the kernel grows to. On a network it may need them. */
    if (peer_is_here(fd))
        set(fd, SOL_SOCKET, SO_SNDBUF, LOOPBACK_BUFFER);
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 5);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 3);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 20000);
}

static int resolve(const char *host, const char *port, int flags, struct addrinfo **out)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};

    return getaddrinfo(host, port, &hints, out) == 0 ? 0 : -ENXIO;
}

int net_is_loopback(const char *host)
{
    struct addrinfo *list, *a;
    int all = 1;

    if (resolve(host, "0", 0, &list) != 0)
        return 0;
    for (a = list; a; a = a->ai_next) {
        if (a->ai_family == AF_INET) {
            const struct sockaddr_in *in = (const void *)a->ai_addr;
            all &= (ntohl(in->sin_addr.s_addr) >> 24) == 127;
        } else if (a->ai_family == AF_INET6) {
            const struct sockaddr_in6 *in = (const void *)a->ai_addr;
            all &= IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
        } else {
            all = 0;
        }
    }
    freeaddrinfo(list);
    return all;
}

int net_listen_tcp(const char *host, uint16_t port, uint16_t *bound)
{
    struct addrinfo *list, *a;
    char text[8];
    int fd = -1, error = -ENXIO;

    snprintf(text, sizeof text, "%u", port);
    error = resolve(*host ? host : NULL, text, AI_PASSIVE | AI_NUMERICSERV, &list);
    if (error)
        return error;
    for (a = list; a; a = a->ai_next) {
        struct sockaddr_storage name;
        socklen_t length = sizeof name;

        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            error = -errno;
            continue;
        }
        set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        if (bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0 &&
            getsockname(fd, (struct sockaddr *)&name, &length) == 0) {
            *bound = ntohs(name.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&name)->sin6_port
                                                      : ((struct sockaddr_in *)&name)->sin_port);
            break;
        }
        error = -errno;
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd >= 0 ? fd : error;
}

static socklen_t abstract(struct sockaddr_un *address, const char *name)
{
    size_t length = strlen(name);

    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (length == 0 || length > sizeof address->sun_path - 1)
        return 0;
    memcpy(address->sun_path + 1, name, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

int net_listen_unix(const char *name)
{
    struct sockaddr_un address;
    socklen_t length = abstract(&address, name);
    int fd, error;

    if (!length)
        return -ENAMETOOLONG;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, length) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    error = -errno;
    close(fd);
    return error;
}

static int connect_nonblocking(int fd, const struct sockaddr *address, socklen_t length, double deadline)
{
    const struct timespec pause = {.tv_nsec = 1000000};

    /* Where the queue of a Unix socket is full the kernel says so at once, and offers nothing to wait on. */
    while (connect(fd, address, length) != 0) {
        if (errno != EAGAIN || address->sa_family != AF_UNIX)
            return -errno;
        if (libd_now() >= deadline)
            return -ETIMEDOUT;
        if (nanosleep(&pause, NULL) != 0 && libd_check_signals && libd_check_signals())
            return -EINTR;
    }
    return 0;
}

/* Connects the non-blocking `fd` within `timeout` seconds and leaves it blocking; -EINTR: a signal handler raised. */
static int connect_within(int fd, const struct sockaddr *address, socklen_t length, double timeout)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    double deadline = libd_now() + timeout, left;
    int error = connect_nonblocking(fd, address, length, deadline), n;
    socklen_t size = sizeof error;

    if (error && error != -EINPROGRESS)
        return error;
    if (error) {
        for (;;) {
            left = deadline - libd_now();
            n = poll(&p, 1, left > 0 ? (int)(left * 1000) + 1 : 0);
            if (n > 0)
                break;
            if (n == 0)
                return -ETIMEDOUT;
            if (errno != EINTR)
                return -errno;
            if (libd_check_signals && libd_check_signals())
                return -EINTR;
        }
        error = 0;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error)
            return -(error ? error : errno);
    }
    fcntl(fd, F_SETFL, 0); /* nothing else was set */
    return 0;
}

int net_connect_tcp(const char *host, const char *port, double timeout)
{
    double until = libd_now() + timeout;
    struct addrinfo *list, *a;
    int error = resolve(host, port, AI_NUMERICSERV, &list);
    unsigned left = 0;

    if (error)
        return error;
    error = -ENXIO;
    for (a = list; a; a = a->ai_next)
        left++;
    for (a = list; a && error != -EINTR; a = a->ai_next, left--) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            error = -errno;
            continue;
        }
        /* One that does not answer leaves the others their time; and whoever answers is greeted in what is left of it. */
        error = connect_within(fd, a->ai_addr, a->ai_addrlen, (until - libd_now()) / left);
        if (error == 0) {
            net_tune_tcp(fd);
            error = fd;
            break;
        }
        close(fd);
    }
    freeaddrinfo(list);
    return error;
}

int net_connect_unix(const char *name, double timeout)
{
    struct sockaddr_un address;
    socklen_t length = abstract(&address, name);
    int fd, error;

    if (!length)
        return -ENAMETOOLONG;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    error = connect_within(fd, (struct sockaddr *)&address, length, timeout);
    if (error == 0)
        return fd;
    close(fd);
    return error;
}

bool net_peer_user(int fd, uid_t *user)
{
    struct ucred peer;
    socklen_t size = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return false;
    *user = peer.uid;
    return true;
}

ssize_t net_send_fds(int fd, const struct iovec *iov, int count, const int *fds, int nfds, bool more)
{
    union {
        char bytes[CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)count};

    if (nfds) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)nfds * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT | (more ? MSG_MORE : 0));
}
