/* SPDX-License-Identifier: MIT */
/* Differential stepping: random user-mode code, one instruction at a time, on the host's processor (by ptrace) and on the
 * software processor (by VM entries with the single-step indicator). After every step all registers and all memory
 * must be the same (S1, S2, S17).
 *
 *   step_host [STEPS [SEED]]
 *
 * Exit status: 0 all the same, 1 a difference, 2 a host where it cannot be done. */
#include <cpuid.h>
#include <elf.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#undef PAGE_SIZE /* of sys/user.h: the guest's counts here */
#undef PAGE_SHIFT
#include "runtime/vmcs.h"
#include "tests/tools/differential/case.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#define XSAVE_MAX 8192u
#define STEPS_MAX 64u /* of a case: string instructions and loops have more */
#define TF        0x100u
#define RF        0x10000u

/* The traced process, and its memory mapped a second time. */
static struct {
    pid_t pid;
    uint8_t *code, *data;
    struct user_regs_struct regs; /* as it stopped first: segments */
    uint8_t xsave[XSAVE_MAX];
    size_t xsave_size;
    uint32_t ymm_offset;
} host;

/* ---- the traced process ---- */
static int make_memory(size_t bytes, uint8_t **second)
{
    int fd = (int)syscall(SYS_memfd_create, "step_host", 0);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0)
        return -1;
    *second = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    return *second == MAP_FAILED ? -1 : fd;
}

static void touch(uint64_t at, size_t bytes)
{
    for (size_t n = 0; n < bytes; n += 4096)
        (void)*(volatile uint8_t *)(uintptr_t)(at + n);
}

_Noreturn static void be_traced(int code, int data)
{
    void *code_at = (void *)(uintptr_t)CODE_BASE, *data_at = (void *)(uintptr_t)DATA_FIRST;
    const int fixed = MAP_SHARED | MAP_POPULATE | MAP_FIXED_NOREPLACE;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 ||
        mmap(code_at, CODE_BYTES, PROT_READ | PROT_EXEC, fixed, code, 0) != code_at ||
        mmap(data_at, DATA_BYTES, PROT_READ | PROT_WRITE, fixed, data, 0) != data_at)
        _exit(2);
    memset(data_at, 0, DATA_BYTES);
    if (mprotect((void *)(uintptr_t)DATA_READ_ONLY, 4096, PROT_READ) != 0)
        _exit(2);
    touch(CODE_BASE, CODE_BYTES);
    touch(DATA_FIRST, DATA_BYTES);
    raise(SIGSTOP);
    _exit(2);
}

static bool start_host(void)
{
    int code = make_memory(CODE_BYTES, &host.code), data = make_memory(DATA_BYTES, &host.data);
    int status;
    unsigned a, b, c, d;
    if (code < 0 || data < 0)
        return false;
    memset(host.code, 0xcc, CODE_BYTES);
    host.pid = fork();
    if (host.pid == 0)
        be_traced(code, data);
    if (host.pid < 0 || waitpid(host.pid, &status, 0) != host.pid || !WIFSTOPPED(status) ||
        WSTOPSIG(status) != SIGSTOP)
        return false;
    struct iovec area = {host.xsave, sizeof host.xsave};
    if (ptrace(PTRACE_SETOPTIONS, host.pid, NULL, PTRACE_O_EXITKILL) != 0 ||
        ptrace(PTRACE_GETREGS, host.pid, NULL, &host.regs) != 0 ||
        ptrace(PTRACE_GETREGSET, host.pid, NT_X86_XSTATE, &area) != 0)
        return false;
    host.xsave_size = area.iov_len;
    if (native_has_avx() && __get_cpuid_count(0xd, 2, &a, &b, &c, &d))
        host.ymm_offset = b;
    return true;
}

/* ---- its registers ---- */
/* clang-format off */
#define FOR_REGISTERS(X)                                                                           \
    X(0, rax) X(1, rcx) X(2, rdx) X(3, rbx) X(4, rsp) X(5, rbp) X(6, rsi) X(7, rdi)                \
    X(8, r8) X(9, r9) X(10, r10) X(11, r11) X(12, r12) X(13, r13) X(14, r14) X(15, r15)
/* clang-format on */

static bool load_host(const struct test_case *c)
{
    const struct machine *before = &c->before;
    struct user_regs_struct regs = host.regs;
    uint8_t code[CODE_FILLED];
    uint64_t bv = host.ymm_offset ? 7 : 3;
    case_code(c, code);
    memcpy(host.code, code, sizeof code);
    memcpy(host.data, before->data, DATA_BYTES);
#define SET(n, name) regs.name = before->r[n];
    FOR_REGISTERS(SET)
    regs.rip = before->rip;
    regs.eflags = before->rflags;
    regs.orig_rax = ~0ull;
    memcpy(host.xsave, before->fx, 28); /* MXCSR_MASK stays */
    memcpy(host.xsave + 32, before->fx + 32, 464 - 32);
    memcpy(host.xsave + 512, &bv, sizeof bv);
    if (host.ymm_offset)
        memcpy(host.xsave + host.ymm_offset, before->ymm_high, sizeof before->ymm_high);
    struct iovec area = {host.xsave, host.xsave_size};
    return ptrace(PTRACE_SETREGS, host.pid, NULL, &regs) == 0 &&
           ptrace(PTRACE_SETREGSET, host.pid, NT_X86_XSTATE, &area) == 0;
}

static bool show_host(struct machine *now)
{
    struct user_regs_struct regs;
    struct iovec area = {host.xsave, host.xsave_size};
    uint64_t bv;
    if (ptrace(PTRACE_GETREGS, host.pid, NULL, &regs) != 0 ||
        ptrace(PTRACE_GETREGSET, host.pid, NT_X86_XSTATE, &area) != 0)
        return false;
#define GET(n, name) now->r[n] = regs.name;
    FOR_REGISTERS(GET)
    now->rip = regs.rip;
    now->rflags = regs.eflags;
    memcpy(now->fx, host.xsave, 464);
    memcpy(&bv, host.xsave + 512, sizeof bv);
    memset(now->ymm_high, 0, sizeof now->ymm_high);
    if (host.ymm_offset && bv & 4)
        memcpy(now->ymm_high, host.xsave + host.ymm_offset, sizeof now->ymm_high);
    if (!(bv & 2))
        memset(FX_XMM(now, 0), 0, 256);
    if (!(bv & 1)) {
        memset(now->fx, 0, 24);
        now->fx[0] = 0x7f;
        now->fx[1] = 0x03;
        memset(FX_ST(now, 0), 0, 128);
    }
    memcpy(now->data, host.data, DATA_BYTES);
    return true;
}

/* ID and NT cannot be set from outside: the software processor gets them as the last case left them. */
static bool take_flags(struct vcpu *cpu)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, host.pid, NULL, &regs) != 0)
        return false;
    vcpu_set_rflags(cpu, vcpu_rflags(cpu) | (regs.eflags & (RFLAGS_ID | RFLAGS_NT)));
    return true;
}

/* ---- a step on either side: 0 done, a signal if it faults, -1 the process is gone ---- */
static int step_host(void)
{
    int status;
    siginfo_t info;
    if (ptrace(PTRACE_SINGLESTEP, host.pid, NULL, NULL) != 0 ||
        waitpid(host.pid, &status, 0) != host.pid || !WIFSTOPPED(status) ||
        ptrace(PTRACE_GETSIGINFO, host.pid, NULL, &info) != 0)
        return -1;
    bool trap = WSTOPSIG(status) == SIGTRAP && info.si_code == TRAP_TRACE;
    return trap ? 0 : WSTOPSIG(status);
}

/* The signal that Linux makes of an exception. */
static int signal_of(int vector)
{
    switch (vector) {
    case EXC_DE:
    case EXC_MF:
    case EXC_XM:
        return SIGFPE;
    case EXC_UD:
        return SIGILL;
    case EXC_BP:
    case EXC_DB:
        return SIGTRAP;
    case EXC_AC:
    case EXC_SS:
        return SIGBUS;
    default:
        return SIGSEGV;
    }
}

static int step_soft(struct vmcs *vmcs)
{
    enum vmcs_exit reason = vm_enter(vmcs);
    if (reason == VMCS_EXIT_STEP)
        return 0;
    return reason == VMCS_EXIT_EXCEPTION ? signal_of(vmcs->event.vector) : -1;
}

/* ---- one case ---- */
/* Under ptrace PUSHF shows the program that it is stepped: TF is in what it pushes. That is the host's weakness. */
static void hide_trap_flag(const struct test_case *c, uint64_t rip, struct machine *now)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    uint8_t code[CODE_FILLED];
    uint64_t at = now->r[4] + 1 - DATA_FIRST, offset = rip - CODE_BASE;
    case_code(c, code);
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (offset >= sizeof code || at >= DATA_BYTES ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, code + offset,
                                                    sizeof code - offset, &insn)) ||
        (insn.mnemonic != ZYDIS_MNEMONIC_PUSHF && insn.mnemonic != ZYDIS_MNEMONIC_PUSHFQ))
        return;
    now->data[at] &= (uint8_t) ~(TF >> 8);
    host.data[at] &= (uint8_t) ~(TF >> 8);
}

/* True if all steps up to the case's end are the same. *steps counts them. */
static bool same_steps(const struct test_case *c, struct soft_side *soft, struct vmcs *vmcs,
                       uint64_t *steps)
{
    static struct machine ours, theirs;
    for (unsigned n = 0; n < STEPS_MAX; n++) {
        uint64_t rip = vmcs->cpu->rip;
        int theirs_end = step_host(), ours_end = step_soft(vmcs);
        if (theirs_end < 0 || !show_host(&theirs))
            return false;
        soft_side_show(soft, &ours);
        if (!theirs_end)
            hide_trap_flag(c, rip, &theirs);
        /* what a tracer does not see; for compare.c, which knows where processors differ */
        ours.vector = ours_end ? vmcs->event.vector : VECTOR_NONE;
        theirs.vector = theirs_end == ours_end ? ours.vector : theirs_end ? EXC_PF : VECTOR_NONE;
        theirs.error = ours.error = ours_end ? vmcs->event.error : 0;
        theirs.cr2 = ours.cr2 = vmcs->qualification;
        bool trapped = ours.rflags & TF;
        ours.rflags &= ~(uint64_t)TF; /* behind POPF the host's shows, which is the tracer's */
        theirs.rflags &= ~(uint64_t)TF;
        if (theirs_end) /* the frame that the fault pushed has it set */
            theirs.rflags &= ~(uint64_t)RF;
        if (ours_end == SIGTRAP) /* INT3 exits before it is executed */
            ours.rip += vmcs->instruction_length;
        ++*steps;
        if (!same_outcome(c, &theirs, &ours, stdout)) {
            printf("# step %u of the case, at 0x%" PRIx64 ": signal %d on the host, %d here\n",
                   n + 1, rip, theirs_end, ours_end);
            return false;
        }
        if (ours_end || theirs_end || trapped)
            return true;
    }
    return true;
}

int main(int argc, char **argv)
{
    uint64_t most = argc > 1 ? strtoull(argv[1], NULL, 0) : 100000, steps = 0, index = 0;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 0x57e9;
    struct error err = {0};
    struct soft_side *soft = soft_side_create(false);
    if (!soft || !start_host()) {
        fputs("step_host: this host cannot trace a process\n", stderr);
        return 2;
    }
    static struct test_case c;
    struct vmcs *vmcs = NULL;
    for (; steps < most; index++) {
        generate(&c, seed, index, MIX_ALL);
        struct vcpu *cpu = soft_side_begin(soft, &c);
        vmcs_destroy(vmcs);
        vmcs = vmcs_create(cpu, &err);
        if (!vmcs)
            return 2;
        vmcs->single_step = true;
        vmcs->exception_bitmap = ~0u;
        if (!load_host(&c) || !take_flags(cpu) || !same_steps(&c, soft, vmcs, &steps)) {
            printf("# case %" PRIu64 " of seed 0x%" PRIx64 "\n", index, seed);
            print_case(&c, stdout);
            return 1;
        }
    }
    printf("# %" PRIu64 " steps of %" PRIu64 " cases are the same\n", steps, index);
    kill(host.pid, SIGKILL);
    vmcs_destroy(vmcs);
    soft_side_destroy(soft);
    return 0;
}
