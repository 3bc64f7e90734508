/* What loopback itself takes to answer a batch of reads: `loopback SIZE DEPTH SPAN PLACES CLIENT SERVER COUNT` prints the
 * nanoseconds of COUNT round trips of a connection on which one side asks with 24 bytes for each of DEPTH pieces, and the
 * other answers with their SIZE bytes each, from PLACES random places of its SPAN bytes, in turn; one system call for each
 * message on each side. CLIENT and SERVER are processors to run on, or -1. Nothing is parsed, checked, or looked up. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 64
#define WARM_UP 64
#define HEADER 48
#define SEGMENT 24

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void run_on(int processor)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (processor < 0)
        return;
    CPU_SET((size_t)processor, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("sched_setaffinity");
}

static char *memory(size_t size)
{
    char *data = aligned_alloc(4096, (size + 4095) / 4096 * 4096);

    if (!data)
        die("memory");
    memset(data, 1, size);
    return data;
}

/* Moves all of a message, which mostly takes one call. */
static int whole(int fd, struct iovec *iov, size_t count, int out)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = count};

    while (message.msg_iovlen) {
        ssize_t n = out ? sendmsg(fd, &message, MSG_NOSIGNAL) : recvmsg(fd, &message, 0);
        if (n <= 0)
            return -1;
        while (message.msg_iovlen && (size_t)n >= message.msg_iov->iov_len) {
            n -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + n;
            message.msg_iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

static void serve(int fd, size_t size, size_t depth, size_t span, size_t count)
{
    char *data = memory(span), *request = memory(HEADER + depth * SEGMENT);
    char **places = calloc(count, sizeof *places);
    uint64_t dice = 1;
    size_t next = 0;

    for (size_t i = 0; i < count; i++) {
        dice = dice * UINT64_C(6364136223846793005) + 1;
        places[i] = data + (dice >> 33) % (span / size) * size;
    }
    for (;;) {
        struct iovec in = {request, HEADER + depth * SEGMENT}, out[DEPTH_MAX];
        if (whole(fd, &in, 1, 0))
            return;
        for (size_t i = 0; i < depth; i++)
            out[i] = (struct iovec){places[next++ % count], size};
        if (whole(fd, out, depth, 1))
            return;
    }
}

static void ask(int fd, char *request, char *const *buffers, size_t size, size_t depth)
{
    struct iovec out = {request, HEADER + depth * SEGMENT}, in[DEPTH_MAX];

    for (size_t i = 0; i < depth; i++)
        in[i] = (struct iovec){buffers[i], size};
    if (whole(fd, &out, 1, 1) || whole(fd, in, depth, 0))
        die("round trip");
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    char *buffers[DEPTH_MAX];
    int one = 1;

    if (argc != 8)
        return 2;
    size_t size = strtoul(argv[1], NULL, 10), depth = strtoul(argv[2], NULL, 10), span = strtoul(argv[3], NULL, 10);
    size_t places = strtoul(argv[4], NULL, 10);
    long count = atol(argv[7]);
    if (depth < 1 || depth > DEPTH_MAX || size < 1 || span < size || places < 1)
        return 2;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        die("listen");
    pid_t server = fork();
    if (server < 0)
        die("fork");
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_on(atoi(argv[6]));
        int fd = accept(listener, NULL, NULL);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        serve(fd, size, depth, span, places);
        _exit(0);
    }
    run_on(atoi(argv[5]));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    char *request = memory(HEADER + depth * SEGMENT);
    for (size_t i = 0; i < depth; i++)
        buffers[i] = memory(size);
    for (int i = 0; i < WARM_UP; i++)
        ask(fd, request, buffers, size, depth);
    int64_t start = now();
    for (long i = 0; i < count; i++)
        ask(fd, request, buffers, size, depth);
    printf("%" PRId64 "\n", now() - start);
    close(fd);
    waitpid(server, NULL, 0);
    return 0;
}
