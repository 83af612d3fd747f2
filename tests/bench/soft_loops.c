/* SPDX-License-Identifier: MIT */
/* How fast the soft engine is: loops of arithmetic, memory copy, calls and big-number work, executed by the host
 * processor and by the software processor, translated and interpreted, in the same process. Prints a JSON object: for
 * each loop the million instructions per second, and how many times slower than native they are (`slower`:
 * interpreted). */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/soft/engine.h"
#include "runtime/vm.h"
#include "tests/unit/one_insn.h"

/* Each loop runs RDI times over memory at RSI (64 KiB; `far`, `movs`: 2 MiB), is position independent, and returns. */
__asm__(
    ".pushsection .text\n"
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
    "LOOP count\n"
    "1: dec %rdi; jnz 1b\n"
    "END count\n"
    "LOOP far\n" /* 1 MiB copied and summed up, source and destination exactly 1 MiB apart */
    "1: mov $65536, %ecx; mov %rsi, %r8\n"
    "2: mov (%r8), %rax; add %rax, %r9; mov %rax, 0x100000(%r8); mov 8(%r8), %rdx; add %rdx, %r9\n"
    "  mov %rdx, 0x100008(%r8); add $16, %r8; dec %ecx; jnz 2b\n"
    "  dec %rdi; jnz 1b\n"
    "END far\n"
    "LOOP movs\n"
    "  mov %rsi, %r8; mov %rdi, %r9\n"
    "1: mov $131072, %ecx; mov %r8, %rsi; lea 0x100000(%r8), %rdi; rep movsq\n"
    "  dec %r9; jnz 1b\n"
    "END movs\n"
    "LOOP recurse\n"
    "1: mov $16, %eax; call 2f; dec %rdi; jnz 1b; jmp 3f\n"
    "2: push %rdx; dec %eax; jz 4f; call 2b\n"
    "4: inc %r9; pop %rdx; ret\n"
    "3:\n"
    "END recurse\n"
    "LOOP indirect\n"
    "  lea 2f(%rip), %rdx; lea 4f(%rip), %r8\n"
    "1: call *%rdx; call *%r8; dec %rdi; jnz 1b; jmp 3f\n"
    "2: inc %r9; ret\n"
    "4: lea 1(%rax), %rax; ret\n"
    "3:\n"
    "END indirect\n"
    ".popsection\n");

#define LOOPS(X)      X(alu) X(copy) X(call) X(mpi) X(count) X(far) X(movs) X(recurse) X(indirect)
#define DECLARE(name) extern const uint8_t loop_##name[], loop_##name##_end[];
LOOPS(DECLARE)

static double seconds_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static uint8_t data[2 << 20] __attribute__((aligned(4096)));

#define DATA 0x100000u /* of the guest */

static double native(const uint8_t *code, uint64_t count)
{
    double start = seconds_now();
    __asm__ volatile("mov %2, %%rdi; mov %1, %%rsi; call *%0"
                     :
                     : "r"(code), "r"((uint64_t)data), "r"(count)
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "memory", "cc");
    return seconds_now() - start;
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
    cpu->r[RSI] = DATA;
    cpu->activity = ACTIVITY_ACTIVE;
    uint64_t before = cpu->vm->soft->executed;
    double start = seconds_now();
    while (cpu->activity == ACTIVITY_ACTIVE)
        soft_run(cpu, 1000000);
    double seconds = seconds_now() - start;
    *instructions = cpu->vm->soft->executed - before;
    return seconds;
}

/* A machine with memory, page tables and registers as the tests of single instructions have them. */
static struct vm *machine(bool translator)
{
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        exit(1);
    vm->config = (struct vm_config){
        .memory = ONE_INSN_RAM, .smp = 1, .deterministic = true, .translator = translator};
    vm->engine = &soft_engine;
    if (vm_create(vm, &err)) {
        fprintf(stderr, "soft_loops: %s\n", err.text);
        exit(1);
    }
    one_insn_set_up(vm->vcpus[0]);
    return vm;
}

/* Instructions a second. *count: so many rounds take long enough to tell. */
static double speed(bool translator, const uint8_t *code, const uint8_t *end, uint64_t *count,
                    uint64_t *instructions)
{
    struct vm *vm = machine(translator);
    double seconds;
    while ((seconds = soft(vm->vcpus[0], code, (size_t)(end - code), *count, instructions)) < 0.2)
        *count *= seconds < 0.02 ? 10 : 2;
    vm_destroy(vm);
    free(vm);
    return (double)*instructions / seconds;
}

static void measure(const char *name, const uint8_t *code, const uint8_t *end)
{
    uint64_t count = 10, instructions;
    double interpreted = speed(false, code, end, &count, &instructions);
    double translated = speed(true, code, end, &count, &instructions);
    double host = native(code, count), again = native(code, count);
    double fastest = (double)instructions / (again < host ? again : host);
    static bool printed;
    printf("%s  \"%s\": {\"mips\": %.0f, \"translated_mips\": %.0f, \"native_mips\": %.0f, "
           "\"slower\": %.1f, \"translated_slower\": %.1f}",
           printed ? ",\n" : "", name, interpreted / 1e6, translated / 1e6, fastest / 1e6,
           fastest / interpreted, fastest / translated);
    printed = true;
}

int main(void)
{
    printf("{\n");
#define MEASURE(name) measure(#name, loop_##name, loop_##name##_end);
    LOOPS(MEASURE)
    printf("\n}\n");
    return 0;
}
