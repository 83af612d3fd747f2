/* SPDX-License-Identifier: MIT */
/* Output files appear whole or not at all.
 *
 * The bytes go to a file without a name where the file system can do that (then even SIGKILL leaves
 * nothing behind), else to a temporary name; they are on disk before the name is theirs. A symbolic
 * link is followed, so that it stays one. A device or a FIFO cannot be replaced: it is written to.
 */
#include "image/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECES_AT_ONCE 64 /* below IOV_MAX */
#define NAME_TRIES     100

struct output {
    char *path;               /* as given, for messages */
    char *target, *directory; /* what is replaced, its folder; NULL for a device */
    char *temporary;          /* the name until then, if it has one */
    int fd;
};

static int failed(struct error *err, const char *path)
{
    const char *advice = "";
    if (errno == ENOSPC || errno == EDQUOT)
        advice = "; free some space or choose another place";
    else if (errno == EFBIG)
        advice = "; raise the limit on file sizes (ulimit -f)";
    else if (errno == ENXIO)
        advice = "; nobody reads it";
    return fail(err, EXIT_IO, "%s: cannot write it: %s%s", path, strerror(errno), advice);
}

/* Writes all pieces, however the kernel splits them. */
static int write_pieces(int fd, const struct iovec *pieces, size_t count)
{
    size_t next = 0, done = 0; /* pieces written, bytes of the next one written */
    for (;;) {
        struct iovec batch[PIECES_AT_ONCE];
        size_t batched = 0;
        while (next < count && done == pieces[next].iov_len) {
            next++;
            done = 0;
        }
        if (next == count)
            return 0;
        for (size_t i = next; i < count && batched < PIECES_AT_ONCE; i++)
            batch[batched++] = pieces[i];
        batch[0].iov_base = (char *)batch[0].iov_base + done;
        batch[0].iov_len -= done;
        ssize_t wrote = writev(fd, batch, batched);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            errno = wrote ? errno : ENOSPC;
            return -1;
        }
        size_t rest = wrote;
        while (next < count && rest >= pieces[next].iov_len - done) {
            rest -= pieces[next].iov_len - done;
            next++;
            done = 0;
        }
        done += rest;
    }
}

/* The name that `path` leads to through symbolic links, dangling ones included: malloc'd. */
static char *follow(const char *path)
{
    char *name = strdup(path);
    for (int links = 0; name && links < 40; links++) {
        char target[PATH_MAX], *next;
        ssize_t length = readlink(name, target, sizeof target - 1);
        if (length < 0) /* not a link, or nothing there */
            return name;
        target[length] = 0;
        char *slash = strrchr(name, '/');
        if (target[0] == '/' || !slash)
            next = strdup(target);
        else if (asprintf(&next, "%.*s/%s", (int)(slash - name), name, target) < 0)
            next = NULL;
        free(name);
        name = next;
    }
    if (name)
        errno = ELOOP;
    free(name);
    return NULL;
}

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : slash - path);
}

/* A file in `directory`: without a name if possible, else with the name written to `temporary`. */
static int open_temporary(const char *directory, char **temporary)
{
    int fd = open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    /* linking it needs /proc */
    if (fd >= 0 && !access("/proc/self/fd", X_OK))
        return fd;
    if (fd >= 0)
        close(fd);
    if (asprintf(temporary, "%s/.patchvisor-XXXXXX", directory) < 0) {
        *temporary = NULL;
        return -1;
    }
    fd = mkostemp(*temporary, O_CLOEXEC);
    if (fd < 0) {
        free(*temporary);
        *temporary = NULL;
    }
    return fd;
}

/* Gives a nameless file a temporary name: linking cannot replace an existing file, renaming can. */
static int name_temporary(int fd, const char *directory, char **temporary)
{
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    for (int i = 0; i < NAME_TRIES; i++) {
        if (asprintf(temporary, "%s/.patchvisor-%ld-%d", directory, (long)getpid(), i) < 0)
            *temporary = NULL;
        if (!*temporary)
            return -1;
        if (!linkat(AT_FDCWD, self, AT_FDCWD, *temporary, AT_SYMLINK_FOLLOW))
            return 0;
        free(*temporary);
        *temporary = NULL;
        if (errno != EEXIST)
            return -1;
    }
    return -1;
}

/* Makes the new name last. The file is whole and in place: where a directory cannot be synced, that
 * is no failure to report. */
static void sync_directory(const char *directory)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

static void release(struct output *output)
{
    if (output->fd >= 0)
        close(output->fd);
    free(output->temporary);
    free(output->directory);
    free(output->target);
    free(output->path);
    free(output);
}

static struct output *allocate(const char *path)
{
    struct output *output = calloc(1, sizeof *output);
    if (!output)
        return NULL;
    output->fd = -1;
    output->path = strdup(path);
    if (output->path)
        return output;
    release(output);
    return NULL;
}

/* A device, a FIFO or a socket: what is written is gone. ENXIO: a FIFO that nobody reads. */
static bool open_through(struct output *output)
{
    output->fd = open(output->path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return output->fd >= 0 && fcntl(output->fd, F_SETFL, 0) >= 0;
}

static bool open_beside(struct output *output, mode_t mode)
{
    output->target = follow(output->path);
    output->directory = output->target ? directory_of(output->target) : NULL;
    if (output->directory)
        output->fd = open_temporary(output->directory, &output->temporary);
    return output->fd >= 0 && fchmod(output->fd, mode) == 0;
}

struct output *output_open(const char *path, mode_t mode, struct error *err)
{
    struct stat st;
    bool there = !stat(path, &st);
    if (there && S_ISDIR(st.st_mode)) {
        fail(err, EXIT_IO, "%s: cannot write it: this is a directory; name a file", path);
        return NULL;
    }
    struct output *output = allocate(path);
    if (output &&
        (there && !S_ISREG(st.st_mode) ? open_through(output) : open_beside(output, mode)))
        return output;
    failed(err, path);
    if (output)
        output_discard(output);
    return NULL;
}

int output_append(struct output *output, const struct iovec *pieces, size_t count,
                  struct error *err)
{
    return write_pieces(output->fd, pieces, count) ? failed(err, output->path) : 0;
}

/* On disk, then named. */
static bool settle(struct output *output)
{
    if (output->target &&
        (fsync(output->fd) ||
         (!output->temporary && name_temporary(output->fd, output->directory, &output->temporary))))
        return false;
    int fd = output->fd;
    output->fd = -1;
    if (close(fd))
        return false;
    return !output->target || !rename(output->temporary, output->target);
}

int output_commit(struct output *output, struct error *err)
{
    if (!settle(output)) {
        failed(err, output->path);
        output_discard(output);
        return -1;
    }
    if (output->target)
        sync_directory(output->directory);
    release(output);
    return 0;
}

void output_leave(struct output *output)
{
    release(output);
}

void output_discard(struct output *output)
{
    if (output->temporary)
        unlink(output->temporary);
    release(output);
}

int output_write(const char *path, const struct iovec *pieces, size_t count, mode_t mode,
                 struct error *err)
{
    struct output *output = output_open(path, mode, err);
    if (!output)
        return -1;
    if (output_append(output, pieces, count, err) == 0)
        return output_commit(output, err);
    output_discard(output);
    return -1;
}
