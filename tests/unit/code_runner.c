/* SPDX-License-Identifier: MIT */
/* Runs pieces of generated code inside the test process. */
#include "tests/unit/code_runner.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

void code_start(struct code_registers *registers, const void *entry);

uint64_t code_host_rsp, code_target, code_saved_rdi;
struct code_registers *code_current;

/* Loads change no flags, so the flags go first. The guest's RSP is in use from its load on: a
 * signal frame goes to the alternate stack. */
__asm__(".pushsection .text\n"
        ".globl code_start, code_exit\n"
        ".type code_start, @function\n"
        "code_start:\n"
        "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "    mov %rsp, code_host_rsp(%rip)\n"
        "    mov %rsi, code_target(%rip)\n"
        "    pushq 128(%rdi)\n"
        "    popfq\n"
        "    mov (%rdi), %rax; mov 8(%rdi), %rcx; mov 16(%rdi), %rdx; mov 24(%rdi), %rbx\n"
        "    mov 32(%rdi), %rsp; mov 40(%rdi), %rbp; mov 48(%rdi), %rsi\n"
        "    mov 64(%rdi), %r8; mov 72(%rdi), %r9; mov 80(%rdi), %r10; mov 88(%rdi), %r11\n"
        "    mov 96(%rdi), %r12; mov 104(%rdi), %r13; mov 112(%rdi), %r14; mov 120(%rdi), %r15\n"
        "    mov 56(%rdi), %rdi\n"
        "    jmp *code_target(%rip)\n"
        ".type code_exit, @function\n"
        "code_exit:\n"
        "    mov %rdi, code_saved_rdi(%rip)\n"
        "    mov code_current(%rip), %rdi\n"
        "    mov %rax, (%rdi); mov %rcx, 8(%rdi); mov %rdx, 16(%rdi); mov %rbx, 24(%rdi)\n"
        "    mov %rsp, 32(%rdi); mov %rbp, 40(%rdi); mov %rsi, 48(%rdi)\n"
        "    mov %r8, 64(%rdi); mov %r9, 72(%rdi); mov %r10, 80(%rdi); mov %r11, 88(%rdi)\n"
        "    mov %r12, 96(%rdi); mov %r13, 104(%rdi); mov %r14, 112(%rdi); mov %r15, 120(%rdi)\n"
        "    mov code_saved_rdi(%rip), %rax\n"
        "    mov %rax, 56(%rdi)\n"
        "    mov code_host_rsp(%rip), %rsp\n"
        "    pushfq\n"
        "    popq 128(%rdi)\n"
        "    pushq $2\n"
        "    popfq\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "    ret\n"
        ".popsection\n");

static code_trap *current_trap;
static void *current_context;

static const uint8_t context_order[REGISTERS] = {
    REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
    REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static void on_signal(int number, siginfo_t *info, void *ucontext)
{
    (void)info;
    greg_t *machine = ((ucontext_t *)ucontext)->uc_mcontext.gregs;
    struct code_registers registers;
    for (int i = 0; i < REGISTERS; i++)
        registers.r[i] = (uint64_t)machine[context_order[i]];
    registers.flags = (uint64_t)machine[REG_EFL];
    uint64_t rip = (uint64_t)machine[REG_RIP];
    if (!current_trap || !current_trap(current_context, number, &registers, &rip)) {
        signal(number, SIG_DFL); /* the instruction is executed again, and kills */
        return;
    }
    for (int i = 0; i < REGISTERS; i++)
        machine[context_order[i]] = (greg_t)registers.r[i];
    machine[REG_EFL] = (greg_t)registers.flags;
    machine[REG_RIP] = (greg_t)rip;
}

/* The test framework has handlers of its own: ours are in place during the run only. */
void code_run(struct code_registers *registers, const void *entry, code_trap *trap, void *context)
{
    static char stack[65536];
    static const int numbers[4] = {SIGSEGV, SIGILL, SIGTRAP, SIGFPE};
    struct sigaction previous[4];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack}, previous_stack;
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigaltstack(&alternate, &previous_stack);
    for (int i = 0; i < 4; i++)
        sigaction(numbers[i], &action, &previous[i]);
    current_trap = trap;
    current_context = context;
    code_current = registers;
    code_start(registers, entry);
    current_trap = NULL;
    for (int i = 0; i < 4; i++)
        sigaction(numbers[i], &previous[i], NULL);
    sigaltstack(&previous_stack, NULL);
}

uint8_t *code_put_exit(uint8_t *p)
{
    static const uint8_t jump[6] = {0xff, 0x25}; /* jmp *0(%rip) */
    uint64_t target = (uint64_t)(uintptr_t)code_exit;
    memcpy(p, jump, sizeof jump);
    memcpy(p + sizeof jump, &target, sizeof target);
    return p + sizeof jump + sizeof target;
}

uint8_t *code_put_jump(uint8_t *p, const void *target)
{
    int32_t distance = (int32_t)((intptr_t)target - (intptr_t)(p + 5));
    *p = 0xe9;
    memcpy(p + 1, &distance, 4);
    return p + 5;
}

void *code_map(void *wanted, size_t size)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (wanted ? MAP_FIXED_NOREPLACE : 0);
    void *p = mmap(wanted, size, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (wanted && p != wanted) {
        munmap(p, size);
        return NULL;
    }
    return p;
}

uint64_t code_random(void)
{
    static uint64_t state = 0x9e3779b97f4a7c15u; /* splitmix64 */
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void code_randomize(struct code_registers *registers, uint64_t rsp)
{
    for (int i = 0; i < REGISTERS; i++)
        registers->r[i] = code_random();
    registers->r[RSP] = rsp;
    registers->flags = 0x202u | (code_random() & (FLAGS_ARITHMETIC | FLAG_DIRECTION));
}
