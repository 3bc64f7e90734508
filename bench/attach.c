/* What attaching costs the kernel alone: `attach ARENA TABLE CLIENT SERVER COUNT` prints the nanoseconds of COUNT times
 * connecting to an abstract Unix socket, sending what a greeting has, receiving two descriptors with the answer and mapping
 * ARENA and TABLE bytes of them; letting go of it all is not counted. The other side waits in accept and in recv, and sends
 * one message. CLIENT and SERVER are processors to run on, or -1. Nothing is parsed, compared, or watched. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GREETING 160
#define ANSWER 150
#define WARM_UP 64

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

/* Passes (`out`) or receives two descriptors with the bytes of one message. */
static void message(int fd, char *bytes, size_t size, int *fds, int out)
{
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec iov = {bytes, size};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);

    if (out) {
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(2 * sizeof(int));
        memcpy(CMSG_DATA(c), fds, 2 * sizeof(int));
        if (sendmsg(fd, &m, MSG_NOSIGNAL) != (ssize_t)size)
            die("sendmsg");
        return;
    }
    if (recvmsg(fd, &m, MSG_CMSG_CLOEXEC) != (ssize_t)size || !(c = CMSG_FIRSTHDR(&m)))
        die("recvmsg");
    memcpy(fds, CMSG_DATA(c), 2 * sizeof(int));
}

static int shared(size_t size)
{
    int fd = memfd_create("bench", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)size) != 0)
        die("memfd");
    return fd;
}

static void serve(int listener, const size_t *sizes)
{
    int fds[] = {shared(sizes[0]), shared(sizes[1])};
    char bytes[GREETING];

    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            die("accept");
        if (recv(fd, bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes) {
            message(fd, bytes, ANSWER, fds, 1);
            recv(fd, bytes, 1, 0);
        }
        close(fd);
    }
}

static int64_t attach(const struct sockaddr_un *address, socklen_t length, const size_t *sizes)
{
    char bytes[GREETING] = {0};
    void *mapped[2];
    int fds[2];
    int64_t start = now(), spent;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)address, length) != 0 ||
        send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) != (ssize_t)sizeof bytes)
        die("connect");
    message(fd, bytes, ANSWER, fds, 0);
    for (int i = 0; i < 2; i++) {
        mapped[i] = mmap(NULL, sizes[i], i ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
        close(fds[i]);
        if (mapped[i] == MAP_FAILED)
            die("mmap");
    }
    spent = now() - start;
    close(fd);
    for (int i = 0; i < 2; i++)
        munmap(mapped[i], sizes[i]);
    return spent;
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(sa_family_t); /* the kernel chooses a name */
    int64_t spent = 0;

    if (argc != 6)
        return 2;
    const size_t sizes[] = {strtoul(argv[1], NULL, 10), strtoul(argv[2], NULL, 10)};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 8) != 0)
        die("listen");
    length = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        die("getsockname");
    pid_t server = fork();
    if (server < 0)
        die("fork");
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_on(atoi(argv[4]));
        serve(listener, sizes);
    }
    close(listener);
    run_on(atoi(argv[3]));
    for (int i = 0; i < WARM_UP; i++)
        attach(&address, length, sizes);
    for (long i = atol(argv[5]); i > 0; i--)
        spent += attach(&address, length, sizes);
    printf("%" PRId64 "\n", spent);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return 0;
}
