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

static int failed(struct error *err, const char *path)
{
    const char *advice = "";
    if (errno == ENOSPC || errno == EDQUOT)
        advice = "; free some space or choose another place";
    else if (errno == EFBIG)
        advice = "; raise the limit on file sizes (ulimit -f)";
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

static int replace(const char *path, const struct iovec *pieces, size_t count, mode_t mode)
{
    char *directory = directory_of(path), *temporary = NULL;
    int fd = directory ? open_temporary(directory, &temporary) : -1;
    bool ok = fd >= 0 && !write_pieces(fd, pieces, count) && !fchmod(fd, mode) && !fsync(fd) &&
              (temporary || !name_temporary(fd, directory, &temporary));
    int reason = errno;
    if (fd >= 0 && close(fd) && ok) {
        ok = false;
        reason = errno;
    }
    if (ok && rename(temporary, path)) {
        ok = false;
        reason = errno;
    }
    if (!ok && temporary)
        unlink(temporary);
    if (ok)
        sync_directory(directory);
    free(temporary);
    free(directory);
    errno = reason;
    return ok ? 0 : -1;
}

/* A device, a FIFO or a socket: what is written is gone. */
static int write_through(const char *path, const struct iovec *pieces, size_t count)
{
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return -1; /* ENXIO: a FIFO that nobody reads */
    bool ok = fcntl(fd, F_SETFL, 0) >= 0 && !write_pieces(fd, pieces, count);
    int reason = errno;
    if (close(fd) && ok) {
        ok = false;
        reason = errno;
    }
    errno = reason;
    return ok ? 0 : -1;
}

int output_write(const char *path, const struct iovec *pieces, size_t count, mode_t mode,
                 struct error *err)
{
    struct stat st;
    bool there = !stat(path, &st);
    if (there && S_ISDIR(st.st_mode))
        return fail(err, EXIT_IO, "%s: cannot write it: this is a directory; name a file", path);
    if (there && !S_ISREG(st.st_mode))
        return write_through(path, pieces, count) ? failed(err, path) : 0;
    char *target = follow(path);
    int result = target ? replace(target, pieces, count, mode) : -1;
    if (result)
        failed(err, path);
    free(target);
    return result;
}

int output_check(const char *path, struct error *err)
{
    struct stat st;
    bool there = !stat(path, &st);
    if (there && S_ISDIR(st.st_mode))
        return fail(err, EXIT_IO, "%s: cannot write it: this is a directory; name a file", path);
    if (there && !S_ISREG(st.st_mode))
        return access(path, W_OK) ? failed(err, path) : 0;
    char *target = follow(path), *directory = target ? directory_of(target) : NULL;
    /* the file itself is replaced: its own permissions do not matter */
    int result = !directory || access(directory, W_OK | X_OK) ? failed(err, path) : 0;
    free(directory);
    free(target);
    return result;
}
