/* SPDX-License-Identifier: MIT */
/* The system calls that are left to hvrun while a guest runs: a table of them, and what their arguments may be. */
#include "runtime/syscall_filter.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/vm.h"

/* One condition on one argument; `mask` 0: none. */
struct allowed {
    int call;
    unsigned argument;
    uint64_t mask, value; /* (argument & mask) == value */
};

#define ANY(name)                         SCMP_SYS(name), 0, 0, 0
#define ONLY(name, argument, mask, value) SCMP_SYS(name), argument, mask, value
#define WHOLE                             UINT32_MAX
#define KVM_REQUESTS                      0xae00u /* _IOC_TYPE of KVM's ioctls, in place */

static const struct allowed table[] = {
    /* descriptors that are open */
    {ANY(read)},
    {ANY(write)},
    {ANY(readv)},
    {ANY(pread64)},
    {ANY(writev)},
    {ANY(close)},
    {ANY(lseek)},
    {ANY(fstat)},
    {ANY(fsync)},
    {ANY(poll)},
    {ANY(ppoll)},
    {ONLY(fcntl, 1, WHOLE, F_GETFL)},
    {ONLY(fcntl, 1, WHOLE, F_SETFL)},
    {ONLY(ioctl, 1, 0xff00, KVM_REQUESTS)},
    {ONLY(ioctl, 1, WHOLE, TCGETS)}, /* the terminal: how it is, and back to how it was */
    {ONLY(ioctl, 1, WHOLE, TCSETS)},
    {ONLY(ioctl, 1, WHOLE, TCSETSW)},
    {ONLY(ioctl, 1, WHOLE, TCSETSF)},
    {ONLY(ioctl, 1, WHOLE, TIOCGPGRP)}, /* and whose it is */
    /* gdb: the listening socket is open */
    {ANY(accept4)},
    {ANY(recvfrom)},
    {ANY(sendto)},
    {ANY(setsockopt)},
    /* memory, never executable */
    {ANY(brk)},
    {ANY(munmap)},
    {ANY(mremap)},
    {ANY(madvise)},
    {ONLY(mmap, 2, PROT_EXEC, 0)},
    {ONLY(mprotect, 2, PROT_EXEC, 0)},
    /* threads of this process */
    {ONLY(clone, 0, CLONE_VM | CLONE_THREAD, CLONE_VM | CLONE_THREAD)},
    {ANY(set_robust_list)},
    {ANY(rseq)},
    {ANY(futex)},
    {ANY(sched_yield)},
    {ANY(gettid)},
    {ANY(getpid)},
    {ANY(exit)},
    {ANY(exit_group)},
    {ANY(wait4)}, /* for the clerk */
    /* time and signals */
    {ANY(clock_gettime)},
    {ANY(clock_nanosleep)},
    {ANY(nanosleep)},
    {ANY(gettimeofday)},
    {ANY(setitimer)},
    {ANY(rt_sigaction)},
    {ANY(rt_sigprocmask)},
    {ANY(rt_sigreturn)},
    {ANY(sigaltstack)},
    {ANY(restart_syscall)},
    {ANY(getrandom)},
};

static int allow_row(scmp_filter_ctx filter, const struct allowed *row)
{
    struct scmp_arg_cmp condition = {row->argument, SCMP_CMP_MASKED_EQ, row->mask, row->value};
    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, row->call, row->mask != 0, &condition);
}

static int allow(scmp_filter_ctx filter)
{
    /* only this process, and its threads */
    const struct allowed own_threads = {ONLY(tgkill, 0, WHOLE, (uint32_t)getpid())};
    int failed = allow_row(filter, &own_threads);
    for (size_t n = 0; !failed && n < sizeof table / sizeof table[0]; n++)
        failed = allow_row(filter, &table[n]);
    return failed;
}

int syscall_filter_load(struct error *err)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return fail(err, HVRUN_HOST, "system call filter: out of memory");
    int failed = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (!failed)
        failed = allow(filter);
    /* its flags cannot be looked at: the C library takes clone instead */
    if (!failed)
        failed = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (!failed)
        failed = seccomp_load(filter);
    seccomp_release(filter);
    if (!failed)
        return 0;
    return fail(err, HVRUN_HOST, "system call filter: %s; --no-sandbox runs without",
                strerror(-failed));
}
