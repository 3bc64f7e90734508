/* A server as other threads see it: starting it, stopping it, and waiting for either. */
#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conn.h"
#include "transport.h"

static void forget(struct server *server)
{
    free((char *)server->options.host);
    free((char *)server->options.path);
    free((char *)server->options.token);
    free((char *)server->options.admin_token);
    free((char *)server->options.device);
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->ready);
    free(server);
}

static const char *copy(const char *text) { return text ? strdup(text) : NULL; }

int server_start(const struct server_options *options, struct server **out, struct libd_error *err)
{
    struct server *server = calloc(1, sizeof *server);
    sigset_t all, before;
    int code;

    if (!server)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->ready, NULL);
    server->options = *options;
    server->options.host = copy(options->host);
    server->options.path = copy(options->path);
    server->options.token = copy(options->token);
    server->options.admin_token = copy(options->admin_token);
    server->options.device = copy(options->device);
    server->epoll = server->spare = -1;
    server->stop.fd = server->alarm.fd = server->tcp.fd = server->path.fd = -1;
    server->outcome = -1;
    server->started = libd_now();
    server->generation = libd_generation();
    server->user = geteuid();
    /* A token that could not be copied must not open the server to everybody. */
    if ((options->host && !server->options.host) || (options->path && !server->options.path) ||
        (options->token && !server->options.token) || (options->admin_token && !server->options.admin_token) ||
        (options->device && !server->options.device)) {
        forget(server);
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    }
    sigfillset(&all); /* signals are for the process's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(&server->thread, NULL, server_run, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) {
        forget(server);
        return libd_fail(err, LIBD_ESYS, (uint64_t)code, 0);
    }
    pthread_mutex_lock(&server->lock);
    while (server->outcome == -1)
        pthread_cond_wait(&server->ready, &server->lock);
    code = server->outcome == -2 ? server->error.code : server->outcome;
    *err = server->error;
    pthread_mutex_unlock(&server->lock);
    if (code) {
        pthread_join(server->thread, NULL);
        forget(server);
        return code;
    }
    *out = server;
    return LIBD_OK;
}

uint16_t server_port(const struct server *server) { return server->port; }

const char *server_device(const struct server *server) { return verbs_server_device(server); }

static void poke(struct server *server)
{
    uint64_t one = 1;
    ssize_t n;

    do
        n = write(server->stop.fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
}

void server_drain(struct server *server, uint64_t ms)
{
    if (server->generation != libd_generation())
        return;
    atomic_store(&server->drain_ms, ms);
    pthread_mutex_lock(&server->lock);
    if (server->looping)
        poke(server);
    while (ms && server->looping && !server->draining)
        pthread_cond_wait(&server->ready, &server->lock);
    pthread_mutex_unlock(&server->lock);
}

bool server_over(struct server *server, double seconds)
{
    struct timespec until;
    bool over;

    if (server->generation != libd_generation())
        return true;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    until.tv_sec += (time_t)seconds + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&server->lock);
    while (server->outcome != -2 && pthread_cond_timedwait(&server->ready, &server->lock, &until) == 0)
        ;
    over = server->outcome == -2;
    pthread_mutex_unlock(&server->lock);
    return over;
}

void server_stop(struct server *server)
{
    if (server->generation != libd_generation())
        return; /* the thread is the parent's */
    server_drain(server, 0);
    pthread_join(server->thread, NULL);
    forget(server);
}
