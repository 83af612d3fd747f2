/* SPDX-License-Identifier: MIT */
/* The clerk's two sides: requests and the process that carries them out. */
#include "runtime/clerk.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/output.h"
#include "runtime/vm.h"

/* Requests: the number of a file to commit, or this. */
#define REMOVE_SOCKET CLERK_FILES

/* A message of the other side, whole; false once there is none any more. */
static bool receive(int channel, void *message, size_t size)
{
    ssize_t got;
    do
        got = recv(channel, message, size, 0);
    while (got < 0 && errno == EINTR);
    return got == (ssize_t)size;
}

static bool tell(int channel, const void *message, size_t size)
{
    ssize_t sent;
    do
        sent = send(channel, message, size, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)size;
}

/* ---- the process ---- */
/* Nobody who waits for the end of our output waits for this process, and no signal from a terminal ends it early. */
static void detach(void)
{
    static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE};
    for (size_t n = 0; n < sizeof ignored / sizeof ignored[0]; n++)
        signal(ignored[n], SIG_IGN);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    prctl(PR_SET_NAME, "hvrun-clerk");
}

static void remove_socket(const char *path)
{
    struct stat st;
    if (path && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
}

static void carry_out(struct clerk *clerk, unsigned char request, struct error *answer)
{
    if (request == REMOVE_SOCKET) {
        remove_socket(clerk->socket);
    } else if (request < CLERK_FILES && clerk->files[request]) {
        if (output_commit(clerk->files[request], answer) < 0)
            answer->code = HVRUN_HOST;
        clerk->files[request] = NULL;
    }
}

static _Noreturn void serve(struct clerk *clerk, int channel)
{
    unsigned char request;
    detach();
    while (receive(channel, &request, 1)) {
        struct error answer = {0};
        carry_out(clerk, request, &answer);
        if (!tell(channel, &answer, sizeof answer))
            break;
    }
    for (int n = 0; n < CLERK_FILES; n++)
        if (clerk->files[n])
            output_discard(clerk->files[n]);
    _exit(0);
}

/* ---- the other side ---- */
static int ask(struct clerk *clerk, unsigned char request, struct error *err)
{
    struct error answer;
    if (!tell(clerk->channel, &request, 1) || !receive(clerk->channel, &answer, sizeof answer))
        return fail(err, HVRUN_HOST, "the process that names output files has died");
    if (!answer.code)
        return 0;
    if (err)
        *err = answer;
    return -1;
}

static int open_files(struct clerk *clerk, const struct vm_config *config, struct error *err)
{
    const char *const paths[CLERK_FILES] = {
        [CLERK_STATS] = config->stats,
        [CLERK_TRACE] = config->trace,
    };
    for (int n = 0; n < CLERK_FILES; n++) {
        clerk->files[n] = paths[n] ? output_open(paths[n], 0644, err) : NULL;
        if (paths[n] && !clerk->files[n]) {
            err->code = HVRUN_HOST;
            return -1;
        }
    }
    return 0;
}

static int start_process(struct clerk *clerk, struct error *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return fail(err, HVRUN_HOST, "socketpair: %s", strerror(errno));
    clerk->process = fork();
    if (clerk->process == 0) {
        close(pair[0]);
        serve(clerk, pair[1]);
    }
    close(pair[1]);
    clerk->channel = pair[0];
    if (clerk->process > 0)
        return 0;
    return fail(err, HVRUN_HOST, "fork: %s", strerror(errno));
}

int clerk_start(struct clerk *clerk, const struct vm_config *config, struct error *err)
{
    *clerk = (struct clerk){.channel = -1};
    if (config->gdb && !strncmp(config->gdb, "unix:", 5))
        clerk->socket = config->gdb + 5;
    bool wanted = clerk->socket || config->stats || config->trace;
    if (open_files(clerk, config, err) == 0 && (!wanted || start_process(clerk, err) == 0))
        return 0;
    for (int n = 0; n < CLERK_FILES; n++)
        if (clerk->files[n])
            output_discard(clerk->files[n]);
    if (clerk->channel >= 0)
        close(clerk->channel);
    return -1;
}

int clerk_commit(struct clerk *clerk, enum clerk_file file, struct error *err)
{
    return ask(clerk, (unsigned char)file, err);
}

void clerk_remove_socket(struct clerk *clerk)
{
    if (clerk->socket)
        ask(clerk, REMOVE_SOCKET, NULL);
}

void clerk_end(struct clerk *clerk)
{
    for (int n = 0; n < CLERK_FILES; n++)
        if (clerk->files[n])
            output_leave(clerk->files[n]);
    if (clerk->channel < 0)
        return;
    close(clerk->channel);
    while (waitpid(clerk->process, NULL, 0) < 0 && errno == EINTR)
        ;
}
