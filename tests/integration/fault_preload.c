/* SPDX-License-Identifier: MIT */
/* Makes what a program asks of the host fail: loaded before the C library (LD_PRELOAD) by faults.sh and
 * hvrun-faults.sh.
 *
 * PV_FAIL_ALLOC=N      the Nth allocation and all after it fail; 0: none, their number goes to descriptor 9
 * PV_FAIL_ALLOC_ONCE=N only the Nth
 * PV_FAIL_WRITE=N      the Nth write of a file fails with PV_FAIL_ERRNO
 * PV_SHORT=1           reads and writes do part of what is asked, or are interrupted, as waiting is
 * PV_KILL_WRITE=N      SIGKILL at the Nth call that writes, syncs, links or renames */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned long allocations, turns;
static unsigned long
    *calls; /* that write, sync, link or rename, of this process and its children */

static unsigned long number(const char *name)
{
    const char *text = getenv(name);
    return text ? strtoul(text, NULL, 10) : 0;
}

/* ---- memory ---- */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

/* libseccomp 2.5 does not look whether it got what it asks for when it writes a filter. */
static int asked_by_libseccomp(void *caller)
{
    Dl_info from;
    return dladdr(caller, &from) && from.dli_fname && strstr(from.dli_fname, "libseccomp");
}

static int fails(void *caller)
{
    static int known;
    static unsigned long from, once;
    if (!known) {
        known = 1;
        from = number("PV_FAIL_ALLOC");
        once = number("PV_FAIL_ALLOC_ONCE");
    }
    if (asked_by_libseccomp(caller))
        return 0;
    allocations++;
    if ((from && allocations >= from) || (once && allocations == once)) {
        errno = ENOMEM;
        return 1;
    }
    return 0;
}

void *malloc(size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, size);
}

/* What is told at the end goes into memory: descriptor 9 may be closed by then, and no other may be to be had. */
#define TEXT_SIZE 64
static char *text;

__attribute__((constructor)) static void prepare(void)
{
    void *memory = MAP_FAILED;
    if (ftruncate(9, TEXT_SIZE) == 0)
        memory = mmap(NULL, TEXT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, 9, 0);
    text = memory == MAP_FAILED ? NULL : memory;
    memory = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    calls = memory;
}

__attribute__((destructor)) static void tell(void)
{
    if (text)
        snprintf(text, TEXT_SIZE, "%lu %lu\n", allocations, *calls);
}

/* ---- files ---- */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* -1: this call fails. */
static int reached(void)
{
    unsigned long call = ++*calls;
    if (number("PV_KILL_WRITE") == call)
        raise(SIGKILL);
    if (number("PV_FAIL_WRITE") != call)
        return 0;
    errno = (int)number("PV_FAIL_ERRNO");
    return -1;
}

/* Every third call that waits, reads or writes. */
static int interrupted(void)
{
    errno = EINTR;
    return getenv("PV_SHORT") && ++turns % 3 == 0;
}

/* Part of `size`; 0: the call is interrupted. */
static size_t part(size_t size)
{
    if (!getenv("PV_SHORT") || size < 2)
        return size;
    turns++;
    return turns % 3 == 0 ? 0 : turns % 3 == 1 ? 1 : size / 2;
}

ssize_t read(int fd, void *bytes, size_t size)
{
    size_t some = part(size);
    if (some)
        return NEXT(read)(fd, bytes, some);
    errno = EINTR;
    return -1;
}

ssize_t pread(int fd, void *bytes, size_t size, off_t offset)
{
    size_t some = part(size);
    if (some)
        return NEXT(pread)(fd, bytes, some, offset);
    errno = EINTR;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    if (fd <= STDERR_FILENO)
        return NEXT(write)(fd, bytes, size);
    if (reached() < 0)
        return -1;
    size_t some = part(size);
    if (some)
        return NEXT(write)(fd, bytes, some);
    errno = EINTR;
    return -1;
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    if (reached() < 0)
        return -1;
    if (!getenv("PV_SHORT"))
        return NEXT(writev)(fd, pieces, count);
    for (int n = 0; n < count; n++)
        if (pieces[n].iov_len) {
            size_t some = part(pieces[n].iov_len);
            if (some)
                return NEXT(write)(fd, pieces[n].iov_base, some);
            errno = EINTR;
            return -1;
        }
    return 0;
}

int poll(struct pollfd *wanted, nfds_t count, int timeout)
{
    return interrupted() ? -1 : NEXT(poll)(wanted, count, timeout);
}

ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
    return interrupted() ? -1 : NEXT(recv)(fd, bytes, size, flags);
}

ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
    return interrupted() ? -1 : NEXT(send)(fd, bytes, size, flags);
}

pid_t waitpid(pid_t process, int *status, int options)
{
    return interrupted() ? -1 : NEXT(waitpid)(process, status, options);
}

int fsync(int fd)
{
    return reached() < 0 ? -1 : NEXT(fsync)(fd);
}

int rename(const char *from, const char *to)
{
    return reached() < 0 ? -1 : NEXT(rename)(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    return reached() < 0 ? -1 : NEXT(linkat)(from_folder, from, to_folder, to, flags);
}
