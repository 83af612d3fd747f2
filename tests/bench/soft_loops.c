/* How fast the soft engine is: loops of arithmetic, memory copy, calls and big-number work, executed by the
 * host processor and by the software processor, in the same process. Prints a JSON object: for each loop the
 * guest's million instructions per second and how many times slower than native that is. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/soft/engine.h"
#include "tests/unit/one_insn.h"

/* Each loop runs RDI times over memory at RSI (64 KiB), is position independent, and returns. */
__asm__(".pushsection .text\n"
        ".macro LOOP name\n"
        "loop_\\name:\n"
        ".endm\n"
        ".macro END name\n"
        "  ret\n"
        "loop_\\name\\()_end:\n"
        ".endm\n"
        "LOOP alu\n"
        "  mov %rdi, %rcx; xor %eax, %eax; mov $3, %edx; mov %esi, %r8d\n"
        "1: add %rdx, %rax; lea 5(%rax,%rdx), %r8; xor %r8, %rdx; sub $7, %rax; and %rax, %r8\n"
        "  shl $3, %r8; or %r8d, %eax; mov %rax, %r9; dec %rcx; jnz 1b\n"
        "END alu\n"
        "LOOP copy\n"
        "  push %rbx\n"
        "1: mov $1000, %ecx; mov %rsi, %rax; lea 32768(%rsi), %rdx\n"
        "2: mov (%rax), %rbx; mov 8(%rax), %r8; mov %rbx, (%rdx); mov %r8, 8(%rdx); add $16, %rax; "
        "add $16, %rdx\n"
        "  dec %ecx; jnz 2b\n"
        "  dec %rdi; jnz 1b\n"
        "  pop %rbx\n"
        "END copy\n"
        "LOOP call\n"
        "1: call 2f; dec %rdi; jnz 1b\n"
        "  jmp 3f\n"
        "2: push %rbp; mov %rsp, %rbp; call 4f; pop %rbp; ret\n"
        "4: lea 1(%rax), %rax; ret\n"
        "3:\n"
        "END call\n"
        "LOOP mpi\n"
        "  push %rbx; push %rbp\n"
        "1: mov $500, %ecx; mov %rsi, %rbx; xor %r9d, %r9d; mov $0x123456789, %rbp\n"
        "2: mov (%rbx), %rax; mul %rbp; add %r9, %rax; adc $0, %rdx; sub %rax, 32768(%rbx); adc "
        "$0, %rdx\n"
        "  mov %rdx, %r9; add $8, %rbx; dec %ecx; jnz 2b\n"
        "  dec %rdi; jnz 1b\n"
        "  pop %rbp; pop %rbx\n"
        "END mpi\n"
        ".popsection\n");

#define LOOPS(X)      X(alu) X(copy) X(call) X(mpi)
#define DECLARE(name) extern const uint8_t loop_##name[], loop_##name##_end[];
LOOPS(DECLARE)

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static uint8_t data[65536] __attribute__((aligned(4096)));

static double native(const uint8_t *code, uint64_t count)
{
    double start = now();
    __asm__ volatile("mov %2, %%rdi; mov %1, %%rsi; call *%0"
                     :
                     : "r"(code), "r"((uint64_t)data), "r"(count)
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "memory", "cc");
    return now() - start;
}

static double soft(struct vcpu *cpu, const uint8_t *code, size_t size, uint64_t count,
                   uint64_t *instructions)
{
    memcpy(one_insn_at(cpu, ONE_INSN_CODE), code, size);
    *(uint8_t *)one_insn_at(cpu, ONE_INSN_CODE + 0x800) = 0xf4; /* hlt */
    cpu->rip = ONE_INSN_CODE;
    cpu->r[RSP] = ONE_INSN_STACK;
    *(uint64_t *)one_insn_at(cpu, ONE_INSN_STACK) = ONE_INSN_CODE + 0x800;
    cpu->r[RDI] = count;
    cpu->r[RSI] = ONE_INSN_DATA;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->block = NULL;
    uint64_t before = cpu->vm->soft->executed;
    double start = now();
    while (cpu->activity == ACTIVITY_ACTIVE)
        soft_run(cpu, 1000000);
    double seconds = now() - start;
    *instructions = cpu->vm->soft->executed - before;
    return seconds;
}

static void measure(const char *name, const uint8_t *code, const uint8_t *end)
{
    struct vcpu *cpu = one_insn_vcpu();
    struct error err = {0};
    cpu->vm->soft->cache = cache_create(cpu->vm, &err);
    cache_flush(cpu->vm->soft->cache);
    uint64_t count = 100, instructions;
    double seconds;
    while ((seconds = soft(cpu, code, (size_t)(end - code), count, &instructions)) < 0.3)
        count *= seconds < 0.03 ? 10 : 2;
    double host = native(code, count), again = native(code, count);
    if (again < host)
        host = again;
    static bool printed;
    printf("%s  \"%s\": {\"mips\": %.0f, \"native_mips\": %.0f, \"slower\": %.1f}",
           printed ? ",\n" : "", name, (double)instructions / seconds / 1e6,
           (double)instructions / host / 1e6, seconds / host);
    printed = true;
    one_insn_free(cpu);
}

int main(void)
{
    printf("{\n");
#define MEASURE(name) measure(#name, loop_##name, loop_##name##_end);
    LOOPS(MEASURE)
    printf("\n}\n");
    return 0;
}
