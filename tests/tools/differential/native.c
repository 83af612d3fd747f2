/* SPDX-License-Identifier: MIT */
/* The host processor's side: a child process that executes one case after the other.
 *
 * The child maps code and data at the cases' addresses and lives in its signal handler: returning from it loads the
 * registers of the next case from the signal frame, and whatever ends that case (the INT3 behind it, or a fault) is a
 * signal again, whose frame holds all registers as they were. Code and data are written through second mappings. */
#include "tests/tools/differential/case.h"

#include <cpuid.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

struct job {
    uint8_t code[CODE_FILLED];
    struct machine before, after;
};

struct shared {
    unsigned count, done;
    struct job jobs[BATCH];
};

struct native {
    struct shared *shared;
    int go[2], done[2]; /* pipes: a byte each */
    pid_t child;
};

bool native_has_avx(void)
{
    return __builtin_cpu_supports("avx");
}

/* ---- in the child ---- */
static struct {
    struct shared *shared;
    uint8_t *code, *data; /* second mappings, writable */
    int go, done;
    bool running;
    unsigned job;
    uint32_t ymm_offset; /* in the XSAVE area */
} child;

static const uint8_t greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                    REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                    REG_R12, REG_R13, REG_R14, REG_R15};

/* The signal frame's FP state is an XSAVE area: FXSAVE image, header, components. Bytes 464 to 511 of the image are
 * the kernel's. */
#define KERNELS_OWN       464
#define XSTATE_BV_OFFSET  512
#define XSTATE_FP_SSE_AVX 7u

static void save(const ucontext_t *context, struct machine *after)
{
    const greg_t *gregs = context->uc_mcontext.gregs;
    const uint8_t *fp = (const uint8_t *)context->uc_mcontext.fpregs;
    uint64_t bv;
    for (int reg = 0; reg < 16; reg++)
        after->r[reg] = (uint64_t)gregs[greg_of[reg]];
    after->rip = (uint64_t)gregs[REG_RIP];
    after->rflags = (uint64_t)gregs[REG_EFL];
    after->vector = (int)gregs[REG_TRAPNO];
    after->error = (uint32_t)gregs[REG_ERR];
    after->cr2 = (uint64_t)gregs[REG_CR2];
    memcpy(after->fx, fp, KERNELS_OWN);
    memcpy(&bv, fp + XSTATE_BV_OFFSET, sizeof bv);
    if (child.ymm_offset && bv & 4)
        memcpy(after->ymm_high, fp + child.ymm_offset, sizeof after->ymm_high);
    else
        memset(after->ymm_high, 0, sizeof after->ymm_high);
    if (!(bv & 2))
        memset(FX_XMM(after, 0), 0, 256);
    if (!(bv & 1)) {
        memset(after->fx, 0, 24);
        after->fx[0] = 0x7f;
        after->fx[1] = 0x03;
        memset(FX_ST(after, 0), 0, 128);
    }
    memcpy(after->data, child.data, DATA_BYTES);
}

static void load(ucontext_t *context, const struct job *job)
{
    greg_t *gregs = context->uc_mcontext.gregs;
    uint8_t *fp = (uint8_t *)context->uc_mcontext.fpregs;
    const struct machine *before = &job->before;
    uint64_t bv;
    for (int reg = 0; reg < 16; reg++)
        gregs[greg_of[reg]] = (greg_t)before->r[reg];
    gregs[REG_RIP] = (greg_t)before->rip;
    gregs[REG_EFL] = (greg_t)before->rflags;
    memcpy(fp, before->fx, 28); /* MXCSR_MASK stays */
    memcpy(fp + 32, before->fx + 32, KERNELS_OWN - 32);
    memcpy(&bv, fp + XSTATE_BV_OFFSET, sizeof bv);
    bv |= child.ymm_offset ? XSTATE_FP_SSE_AVX : 3u;
    memcpy(fp + XSTATE_BV_OFFSET, &bv, sizeof bv);
    if (child.ymm_offset)
        memcpy(fp + child.ymm_offset, before->ymm_high, sizeof before->ymm_high);
    memcpy(child.data, before->data, DATA_BYTES);
    memcpy(child.code, job->code, CODE_FILLED);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    /* The case may have set AC, and this code reads unaligned; NT and ID would stay set for the next case. */
    __asm__ volatile(
        "lea -128(%%rsp), %%rsp; pushfq; andq $~0x244400, (%%rsp); popfq; lea 128(%%rsp), %%rsp"
        :
        :
        : "memory", "cc");
    char byte = 0;
    (void)number;
    (void)info;
    if (child.running) {
        save(context, &child.shared->jobs[child.job].after);
        child.shared->done = ++child.job;
    }
    if (!child.running || child.job == child.shared->count) {
        if (child.running && write(child.done, &byte, 1) != 1)
            _exit(1);
        if (read(child.go, &byte, 1) != 1)
            _exit(0); /* the parent is gone, or done with us */
        child.job = 0;
        child.running = true;
    }
    load(context, &child.shared->jobs[child.job]);
}

/* The second mapping of a region, and the region itself with its protection in the case's place. */
static uint8_t *map_twice(uint64_t at, size_t bytes, int protection)
{
    int fd = (int)syscall(SYS_memfd_create, "differential", 0);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
        return NULL;
    void *wanted = (void *)(uintptr_t)at; /* NOLINT(performance-no-int-to-ptr) */
    void *place =
        mmap(wanted, bytes, protection, MAP_SHARED | MAP_POPULATE | MAP_FIXED_NOREPLACE, fd, 0);
    uint8_t *second = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    close(fd);
    if (place != wanted || second == MAP_FAILED)
        return NULL;
    memset(second, 0xcc, bytes);
    return second;
}

/* All pages must be in the page tables: a case's fault must be the processor's, not a page that the kernel brings in. */
static void touch(uint64_t at, size_t bytes, bool write)
{
    for (size_t n = 0; n < bytes; n += 4096) {
        volatile uint8_t *p = (volatile uint8_t *)(uintptr_t)(at + n);
        uint8_t value = *p;
        if (write)
            *p = value;
    }
}

/* Nothing but what the signal handler needs. Where the kernel knows no seccomp there is none. */
static void confine(void)
{
#define ALLOW(name)                                                                                \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##name, 0, 1),                                         \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(read),
        ALLOW(write),
        ALLOW(rt_sigreturn),
        ALLOW(exit_group),
        ALLOW(exit),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static uint32_t find_ymm_offset(void)
{
    unsigned a, b, c, d;
    if (!native_has_avx() || !__get_cpuid_count(0xd, 2, &a, &b, &c, &d))
        return 0;
    return b;
}

_Noreturn static void live(struct native *native)
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    static uint8_t stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    child.shared = native->shared;
    child.go = native->go[0];
    child.done = native->done[1];
    close(native->go[1]);
    close(native->done[0]);
    child.ymm_offset = find_ymm_offset();
    child.code = map_twice(CODE_BASE, CODE_BYTES, PROT_READ | PROT_EXEC);
    child.data = map_twice(DATA_FIRST, DATA_BYTES, PROT_READ | PROT_WRITE);
    if (!child.code || !child.data || sigaltstack(&alternate, NULL) != 0 ||
        mprotect((void *)(uintptr_t)DATA_READ_ONLY, 4096, PROT_READ) != 0) {
        fprintf(stderr, "differential: no memory at the addresses of the cases\n");
        _exit(2);
    }
    touch(CODE_BASE, CODE_BYTES, false);
    touch(DATA_FIRST, DATA_WRITABLE * 4096, true);
    touch(DATA_READ_ONLY, 4096, false);
    for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++)
        sigaction(numbers[n], &action, NULL);
    confine();
    __asm__ volatile("int3"); /* into the handler, which does not come back */
    _exit(2);
}

/* ---- in the parent ---- */
static bool spawn(struct native *native)
{
    if (pipe(native->go) != 0 || pipe(native->done) != 0) {
        perror("differential: pipe");
        return false;
    }
    fflush(NULL);
    native->child = fork();
    if (native->child == 0)
        live(native);
    close(native->go[0]);
    close(native->done[1]);
    return native->child > 0;
}

static void reap(struct native *native)
{
    int status;
    close(native->go[1]);
    close(native->done[0]);
    if (native->child > 0 && waitpid(native->child, &status, 0) == native->child &&
        WIFSIGNALED(status))
        fprintf(stderr, "# the host's process was killed by signal %d\n", WTERMSIG(status));
    native->child = 0;
}

struct native *native_start(void)
{
    struct native *native = calloc(1, sizeof *native);
    if (!native)
        return NULL;
    signal(SIGPIPE, SIG_IGN);
    native->shared = mmap(NULL, sizeof *native->shared, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (native->shared == MAP_FAILED || !spawn(native)) {
        perror("differential");
        free(native);
        return NULL;
    }
    return native;
}

void native_stop(struct native *native)
{
    reap(native);
    munmap(native->shared, sizeof *native->shared);
    free(native);
}

void native_begin(struct native *native, const struct test_case *cases, unsigned count)
{
    char byte = 0;
    native->shared->count = count;
    native->shared->done = 0;
    for (unsigned n = 0; n < count; n++) {
        struct job *job = &native->shared->jobs[n];
        case_code(&cases[n], job->code);
        job->before = cases[n].before;
    }
    if (write(native->go[1], &byte, 1) != 1)
        fprintf(stderr, "# the host's process is gone\n");
}

bool native_finish(struct native *native, struct machine *after, unsigned count)
{
    char byte;
    if (read(native->done[0], &byte, 1) == 1) {
        for (unsigned n = 0; n < count; n++)
            after[n] = native->shared->jobs[n].after;
        return true;
    }
    fprintf(stderr, "# the host's process died after %u of %u cases\n", native->shared->done,
            count);
    reap(native);
    spawn(native);
    return false;
}
