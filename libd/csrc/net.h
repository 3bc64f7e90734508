/* Sockets: listening, connecting with a deadline, passing descriptors. Every descriptor is close-on-exec. */
#ifndef LIBD_NET_H
#define LIBD_NET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Each returns a descriptor, or -errno, or for names that do not resolve -ENXIO. `name` of an abstract socket is given
 * without the leading '@' or NUL. */
int net_listen_tcp(const char *host, uint16_t port, uint16_t *bound);
int net_listen_unix(const char *name);
/* Of a name with several addresses none takes more than its share of the time. */
int net_connect_tcp(const char *host, const char *port, double timeout);
int net_connect_unix(const char *name, double timeout);
/* The user at the other end of a Unix socket: for who connected, the one that listened. False: nobody knows. */
bool net_peer_user(int fd, uid_t *user);
void net_tune_tcp(int fd);
int net_is_loopback(const char *host);

/* Does not wait. `more`: further bytes follow at once, and the kernel may hold these back for them. */
ssize_t net_send_fds(int fd, const struct iovec *iov, int count, const int *fds, int nfds, bool more);

#endif
