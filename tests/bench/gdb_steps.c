/* SPDX-License-Identifier: MIT */
/* Steps per second through gdb's remote protocol, by a raw client: `s`, wait for the stop reply,
 * again. The same client for any server.
 *
 *     gdb_steps SECONDS [HOST:]PORT|unix:PATH      prints the steps per second */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "gdb_steps: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int try_connect(const char *target)
{
    int fd;
    if (!strncmp(target, "unix:", 5)) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s", target + 5);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
            return fd;
    } else {
        const int one = 1;
        const char *colon = strrchr(target, ':');
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons((uint16_t)atoi(colon ? colon + 1 : target)),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd >= 0)
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
            return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* The server may not be listening yet. */
static int open_connection(const char *target)
{
    for (double end = now() + 10; now() < end; usleep(20000)) {
        int fd = try_connect(target);
        if (fd >= 0)
            return fd;
    }
    die(target);
}

/* Sends a packet and waits for the end of the reply: '#' and two digits. True if it is one of
 * `kind`. */
static bool exchange(int fd, const char *packet, char kind)
{
    char reply[4096];
    size_t count = 0, length = strlen(packet);
    if (write(fd, packet, length) != (ssize_t)length)
        die("write");
    for (;;) {
        ssize_t got = read(fd, reply + count, sizeof reply - count);
        if (got <= 0)
            die("read");
        count += (size_t)got;
        if (count >= 4 && reply[count - 3] == '#')
            break;
        if (count == sizeof reply)
            die("reply too long");
    }
    const char *first = memchr(reply, '$', count);
    return first && first[1] == kind;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: gdb_steps SECONDS [HOST:]PORT|unix:PATH\n");
        return 2;
    }
    double seconds = atof(argv[1]);
    int fd = open_connection(argv[2]);
    exchange(fd, "$QStartNoAckMode#b0", 'O');
    if (write(fd, "+", 1) != 1 || !exchange(fd, "$?#3f", 'T'))
        die("no stop reply");
    unsigned long steps = 0;
    double begin = now(), end = begin + seconds, at = begin;
    while (at < end) {
        for (unsigned n = 0; n < 64; n++)
            if (!exchange(fd, "$s#73", 'T'))
                die("the guest has ended");
        steps += 64;
        at = now();
    }
    printf("%.0f\n", (double)steps / (at - begin));
    if (write(fd, "$k#6b", 5) != 5)
        return 0;
    return 0;
}
