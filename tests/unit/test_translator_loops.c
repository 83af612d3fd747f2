/* SPDX-License-Identifier: MIT */
/* Loops that never end by themselves, translated: a timer's interrupt gets in at the instruction at which it gets into the
 * interpreter, and so does who asks for the end from outside, however the loop goes round. */
#include "tests/unit/step_lab.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "runtime/soft/engine.h"
#include "runtime/state_hash.h"
#include "runtime/translator/translator.h"
#include "tests/unit/translator_lab.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define TIMER   0x30u
#define TICKS   20000u /* of the APIC's timer */
#define LOOP    0x9000u
#define HANDLER 0xe000u
#define DONE    (HANDLER + 0x20)

/* The local APIC in x2APIC mode, its timer once after TICKS; then to LOOP. */
STEP_ASM(start, "mov $0x1b, %ecx; xor %edx, %edx; mov $0xfee00d00, %eax; wrmsr; "
                "mov $0x80f, %ecx; mov $0x1ff, %eax; wrmsr; mov $0x83e, %ecx; mov $0xb, %eax; "
                "wrmsr; mov $0x832, %ecx; mov $0x30, %eax; wrmsr; mov $0x838, %ecx; "
                "mov $20000, %eax; wrmsr; mov $0x9000, %ecx; mov $0x10000, %esi; sti; jmp *%rcx");
/* Out of the loop, wherever it was. */
STEP_ASM(handler,
         "mov $0x80b, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr; movq $0xe020, (%rsp); iretq");
STEP_ASM(done, "cli; hlt");

STEP_ASM(alone, "1: jmp 1b");
STEP_ASM(counts, "1: add $1, %rbx; jmp 1b");
STEP_ASM(condition, "1: inc %ebx; test $1, %bl; jz 2f; dec %edx; 2: jmp 1b");
STEP_ASM(memory, "1: incq (%rsi); mov (%rsi), %rax; push %rax; pop %rbx; jmp 1b");
STEP_ASM(far_jumps, "1: inc %ebx; jmp 2f; .skip 0x1000, 0x90; 2: dec %edx; jmp 1b");
STEP_ASM(indirect, "lea 2f(%rip), %rdx; 2: inc %ebx; jmp *%rdx");
STEP_ASM(calls, "1: call 2f; jmp 1b; 2: inc %ebx; push %rbx; pop %rdx; ret");
STEP_ASM(recursion, "mov %rsp, %rbp; 1: inc %ebx; call 3f; 3: test $0xff, %bl; jnz 1b; "
                    "mov %rbp, %rsp; jmp 1b");
STEP_ASM(thunk, "1: lea 1b(%rip), %rdx; inc %ebx; call 3f; 2: pause; jmp 2b; "
                "3: mov %rdx, (%rsp); ret");
STEP_ASM(strings, "1: mov %rsi, %rdi; mov $50, %ecx; rep stosb; inc %ebx; jmp 1b");

static const struct loop {
    const char *name;
    const uint8_t *code, *end;
} loops[] = {
#define L(name)                                                                                    \
    {                                                                                              \
#name, name##_code, name##_end                                                             \
    }
    L(alone),    L(counts), L(condition), L(memory), L(far_jumps),
    L(indirect), L(calls),  L(recursion), L(thunk),  L(strings),
};
#define LOOPS (sizeof loops / sizeof loops[0])

static struct translator_lab lab;

static int open_lab(void **state)
{
    (void)state;
    return translator_lab_open(&lab, 0) ? 0 : -1;
}

static int close_lab(void **state)
{
    (void)state;
    translator_lab_close(&lab);
    return 0;
}

static void put(uint64_t at, const uint8_t *code, const uint8_t *end)
{
    translator_lab_put(&lab, at, code, (size_t)(end - code));
}

static void prepare(const struct loop *loop)
{
    uint64_t gate[2] = {HANDLER | (uint64_t)ONE_INSN_CS64 << 16 | 0x8eull << 40, 0};
    put(LAB_CODE, start_code, start_end);
    put(HANDLER, handler_code, handler_end);
    put(DONE, done_code, done_end);
    put(LOOP, loop->code, loop->end);
    translator_lab_put(&lab, ONE_INSN_IDT + 16 * TIMER, gate, sizeof gate);
    translator_lab_start(&lab, LAB_CODE, false);
}

static void run(struct vm *vm)
{
    struct error err = {0};
    assert_int_equal(vm->engine->run(vm, &err), 0);
}

/* As a machine runs: with slices as long as it lets them be. */
static void a_timer_gets_in_at_the_same_instruction(void **state)
{
    (void)state;
    for (unsigned n = 0; n < LOOPS; n++) {
        print_message("# %s\n", loops[n].name);
        prepare(&loops[n]);
        uint64_t before = soft_instructions(lab.translates);
        run(lab.translates);
        run(lab.interprets);
        assert_int_equal(lab.translates->shutdown, SHUTDOWN_HALT);
        assert_int_equal(lab.translates->vcpus[0]->rip, DONE + 2);
        assert_in_range(soft_instructions(lab.translates) - before, TICKS, TICKS + 100);
        assert_int_equal(soft_instructions(lab.translates), soft_instructions(lab.interprets));
        assert_int_equal(vm_state_hash(lab.translates), vm_state_hash(lab.interprets));
    }
    assert_in_range(translator_stats(lab.translates->soft->translator)->blocks, LOOPS, UINT64_MAX);
}

static void ask_for_the_end(int number)
{
    (void)number;
    /* made for handlers, as watchdog.c's: NOLINTNEXTLINE(bugprone-signal-handler) */
    vm_request_stop(lab.translates, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
}

/* As --timeout, Ctrl-A x and SIGTERM do it: at any time, and without the guest's help. */
static void who_asks_from_outside_is_heard(void **state)
{
    (void)state;
    signal(SIGALRM, ask_for_the_end);
    for (unsigned n = 0; n < LOOPS; n++) {
        struct itimerval soon = {.it_value.tv_usec = 20000};
        print_message("# %s\n", loops[n].name);
        prepare(&loops[n]);
        lab.translates->vcpus[0]->rip = LOOP; /* no timer: interrupts stay off */
        lab.translates->vcpus[0]->r[RSI] = LAB_DATA;
        setitimer(ITIMER_REAL, &soon, NULL);
        run(lab.translates); /* for ever, but for the signal */
        assert_int_equal(lab.translates->shutdown, SHUTDOWN_TIMEOUT);
        atomic_store(&lab.translates->stop_request, SHUTDOWN_NONE);
    }
    signal(SIGALRM, SIG_DFL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_timer_gets_in_at_the_same_instruction, open_lab,
                                        close_lab),
        cmocka_unit_test_setup_teardown(who_asks_from_outside_is_heard, open_lab, close_lab),
    };
    if (translator_missing()) {
        printf("1..0 # SKIP %s\n", translator_missing());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
