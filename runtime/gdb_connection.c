/* SPDX-License-Identifier: MIT */
/* Sockets for gdb's client. Nothing here waits longer than a client may take to read a packet. */
#include "runtime/gdb_connection.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/vm.h"

#define SEND_MS 5000 /* a client that does not read for that long is gone */

/* ---- listening ---- */
static int cannot(struct gdb_connection *c, const char *target, struct error *err)
{
    int number = errno;
    if (c->listener >= 0)
        close(c->listener);
    c->listener = -1;
    return fail(err, HVRUN_HOST, "--gdb %s: %s", target, strerror(number));
}

/* A socket that nobody listens at any more was left behind by a process that was killed. */
static void remove_stale(const struct sockaddr_un *address)
{
    struct stat st;
    if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED)
        unlink(address->sun_path);
    close(fd);
}

static int listen_unix(struct gdb_connection *c, const char *target, const char *path,
                       struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path[0] == '\0' || strlen(path) >= sizeof address.sun_path)
        return fail(err, HVRUN_USAGE, "--gdb '%s': a path of 1 to %zu bytes is needed", target,
                    sizeof address.sun_path - 1);
    strcpy(address.sun_path, path);
    remove_stale(&address);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&address, sizeof address) < 0)
        return cannot(c, target, err);
    strcpy(c->path, path);
    if (listen(c->listener, 4) < 0)
        return cannot(c, target, err);
    snprintf(c->name, sizeof c->name, "%s", path);
    return 0;
}

static int bind_to(const struct addrinfo *address)
{
    const int one = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, 4) < 0) {
        int number = errno;
        close(fd);
        errno = number;
        return -1;
    }
    return fd;
}

/* Where it really listens: port 0 is any. */
static void name_tcp(struct gdb_connection *c)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[64] = "", port[8] = "";
    getsockname(c->listener, (struct sockaddr *)&address, &length);
    getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(c->name, sizeof c->name, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static int listen_tcp(struct gdb_connection *c, const char *target, const char *host,
                      const char *port, struct error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int failed = getaddrinfo(host, port, &hints, &found);
    if (failed)
        return fail(err, HVRUN_HOST, "--gdb %s: %s", target, gai_strerror(failed));
    errno = EADDRNOTAVAIL;
    for (const struct addrinfo *a = found; a && c->listener < 0; a = a->ai_next)
        c->listener = bind_to(a);
    freeaddrinfo(found);
    if (c->listener < 0)
        return cannot(c, target, err);
    name_tcp(c);
    return 0;
}

int gdb_listen(struct gdb_connection *c, const char *target, struct error *err)
{
    char host[128] = "127.0.0.1";
    *c = (struct gdb_connection){.listener = -1, .client = -1};
    if (!strncmp(target, "unix:", 5))
        return listen_unix(c, target, target + 5, err);
    const char *colon = strrchr(target, ':'), *port = colon ? colon + 1 : target;
    size_t length = colon ? (size_t)(colon - target) : 0;
    bool bracketed = length > 2 && target[0] == '[' && colon[-1] == ']'; /* [::1]:1234 */
    size_t digits = strspn(port, "0123456789");
    unsigned long number = digits && digits <= 5 ? strtoul(port, NULL, 10) : 65536;
    if (port[digits] || number > 65535 || length >= sizeof host)
        return fail(err, HVRUN_USAGE,
                    "--gdb '%s': [HOST:]PORT with a port up to 65535, or unix:PATH, is needed",
                    target);
    if (length)
        snprintf(host, sizeof host, "%.*s", (int)length - 2 * bracketed, target + bracketed);
    return listen_tcp(c, target, host, port, err);
}

void gdb_unlisten(struct gdb_connection *c)
{
    gdb_drop(c);
    if (c->listener >= 0)
        close(c->listener);
    if (c->path[0])
        unlink(c->path);
    c->listener = -1;
    c->path[0] = '\0';
}

/* ---- the client ---- */
bool gdb_accept(struct gdb_connection *c)
{
    const int one = 1;
    int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return false;
    if (c->client >= 0) {
        close(fd);
        return false;
    }
    c->client = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* refused by a Unix socket */
    return true;
}

void gdb_drop(struct gdb_connection *c)
{
    if (c->client >= 0)
        close(c->client);
    c->client = -1;
}

ssize_t gdb_receive(struct gdb_connection *c, void *bytes, size_t room)
{
    ssize_t count = recv(c->client, bytes, room, MSG_DONTWAIT);
    if (count > 0)
        return count;
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    gdb_drop(c);
    return -1;
}

bool gdb_send(struct gdb_connection *c, const char *bytes, size_t count)
{
    while (count && c->client >= 0) {
        ssize_t sent = send(c->client, bytes, count, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent > 0) {
            bytes += sent;
            count -= (size_t)sent;
            continue;
        }
        if (sent < 0 && errno == EINTR)
            continue;
        struct pollfd wait = {.fd = c->client, .events = POLLOUT};
        if (sent == 0 || errno != EAGAIN || poll(&wait, 1, SEND_MS) == 0)
            gdb_drop(c);
    }
    return count == 0;
}
