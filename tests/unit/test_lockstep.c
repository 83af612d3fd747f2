/* SPDX-License-Identifier: MIT */
/* Lockstep finds what is not the same, and only that (needs /dev/kvm). */
#include "tests/unit/step_lab.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/kvm/follower.h"
#include "runtime/kvm/kvm.h"

#include <cmocka.h>

/* The leader is a step_lab's machine; the guest ends by HLT with interrupts off. */
struct pair {
    struct step_lab *lab;
    struct lockstep_follower *follower;
    char *text;
};

static bool usable;

static void probe_debug(struct kvm_debug *found)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    kvm_probe_debug(fd, found);
    close(fd);
}

static int find_kvm(void **state)
{
    struct kvm_quality quality;
    struct kvm_debug debug;
    struct error err = {0};
    (void)state;
    usable = kvm_probe(&quality, &err) == 0 && kvm_limit_features(&quality, &err) == 0;
    if (usable)
        probe_debug(&debug);
    if (usable && !debug.ring0)
        usable = false, snprintf(err.text, sizeof err.text, "KVM cannot be stopped");
    if (!usable)
        print_message("# no usable KVM: %s\n", err.text);
    return 0;
}

static int open_pair(void **state)
{
    struct pair *pair = calloc(1, sizeof *pair);
    struct error err = {0};
    assert_non_null(pair);
    *state = pair;
    if (!usable)
        return 0;
    step_lab_open((void **)&pair->lab);
    vmcs_destroy(pair->lab->vmcs); /* lockstep makes one */
    pair->lab->vmcs = NULL;
    pair->follower = kvm_follower_open(&pair->lab->vm, &err);
    if (!pair->follower)
        fail_msg("%s", err.text);
    return 0;
}

static int close_pair(void **state)
{
    struct pair *pair = *state;
    if (pair->follower)
        pair->follower->close(pair->follower);
    if (pair->lab)
        step_lab_close((void **)&pair->lab);
    free(pair->text);
    free(pair);
    return 0;
}

static struct pair *pair_of(void **state)
{
    if (!usable)
        skip();
    return *state;
}

/* Code and registers for both. */
static void put_code(struct pair *pair, const uint8_t *code, const uint8_t *end)
{
    step_load(pair->lab, STEP_CODE, code, end);
    lockstep_copy(pair->follower->vm, &pair->lab->vm);
}
#define LOAD(pair, name) put_code(pair, name##_code, name##_end)

/* True: a difference was found, and told in pair->text. */
static bool run(struct pair *pair)
{
    struct error err = {0};
    size_t size;
    FILE *stream = open_memstream(&pair->text, &size);
    assert_non_null(stream);
    if (lockstep_run(&pair->lab->vm, pair->follower, stream, &err) < 0)
        fail_msg("%s", err.text);
    fclose(stream);
    return pair->lab->vm.shutdown == SHUTDOWN_DIFFERENCE;
}

#define NO_DIFFERENCE(pair)                                                                        \
    do {                                                                                           \
        if (run(pair))                                                                             \
            fail_msg("%s", pair->text);                                                            \
    } while (0)
#define DIFFERENCE(pair, pattern)                                                                  \
    do {                                                                                           \
        assert_true(run(pair));                                                                    \
        if (!strstr(pair->text, pattern))                                                          \
            fail_msg("no '%s' in:\n%s", pattern, pair->text);                                      \
    } while (0)

/* ---- no difference ---- */
STEP_ASM(all,
         "mov $50, %ebx; 1: in $0x71, %al; add %al, %cl; out %al, $0x80; cpuid; rdtsc; dec %esi; "
         "jnz 1b; mov $0x1000, %edi; mov $9, %ecx; mov $0x3fd, %dx; cld; mov $0x10000, %edi; "
         "rep insb; mov $0x10000, %esi; mov $9, %ecx; mov $0x80, %dx; rep outsb; ud2; int3; "
         "mov $0xc0000102, %ecx; mov %ebx, %eax; xor %edx, %edx; wrmsr; mov $0x1b, %ecx; rdmsr; "
         "mov 0x201030, %ebp; hlt");
static void the_same_guest_makes_no_difference(void **state)
{
    struct pair *pair = pair_of(state);
    pair->lab->cpu->r[RSI] = 20;
    *one_insn_pte(pair->lab->cpu, 0x201000) = 0xfee00067; /* the APIC */
    LOAD(pair, all);
    /* UD2 and INT3 are passed over by their handlers */
    static const uint8_t skip2[] = {0x48, 0x83, 0x04, 0x24,
                                    0x02, 0x48, 0xcf}; /* addq $2, (%rsp); iretq */
    step_load(pair->lab, STEP_HANDLER(EXC_UD), skip2, skip2 + sizeof skip2);
    lockstep_copy(pair->follower->vm, &pair->lab->vm);
    NO_DIFFERENCE(pair);
    assert_int_equal(pair->lab->vm.shutdown, SHUTDOWN_HALT);
    assert_non_null(strstr(pair->text, "no difference between soft and kvm"));
}

/* The APIC's timer, vector 0x30, once in x2APIC mode; waits for its handler to count. */
STEP_ASM(waits, "mov $0x832, %ecx; xor %edx, %edx; mov $0x30, %eax; wrmsr; mov $0x838, %ecx; "
                "mov $5000, %eax; wrmsr; sti; 1: add $1, %rbx; cmpq $0, 0x10000; je 1b; cli; hlt");
static void an_interrupt_comes_at_the_same_instruction(void **state)
{
    static const uint8_t handler[] = {0x48, 0xff, 0x04, 0x25, 0,
                                      0,    1,    0,    0x48, 0xcf}; /* incq 0x10000 */
    struct pair *pair = pair_of(state);
    step_apic(pair->lab);
    step_load(pair->lab, STEP_HANDLER(0x30), handler, handler + sizeof handler);
    LOAD(pair, waits);
    NO_DIFFERENCE(pair);
    assert_true(pair->lab->cpu->r[RBX] > 1000); /* it came in the loop, which makes no exits */
    assert_int_equal(one_insn_get(pair->lab->cpu, 0x10000, 8), 1);
}

STEP_ASM(undefined, "mov $0x1234, %eax; mov $7, %ebx; mul %ebx; and $0x55, %eax; shl $5, %eax; "
                    "out %al, $0x80; bsf %ebx, %ecx; out %al, $0x80; hlt");
static void undefined_flags_are_no_difference(void **state)
{
    struct pair *pair = pair_of(state);
    LOAD(pair, undefined);
    NO_DIFFERENCE(pair);
}

static void a_triple_fault_ends_both(void **state)
{
    struct pair *pair = pair_of(state);
    static const uint8_t ud2[] = {0x0f, 0x0b};
    pair->lab->cpu->idt_limit = 0;
    put_code(pair, ud2, ud2 + sizeof ud2);
    NO_DIFFERENCE(pair);
    assert_int_equal(pair->lab->vm.shutdown, SHUTDOWN_TRIPLE_FAULT);
}

/* ---- differences ---- */
STEP_ASM(sums,
         "mov 0x10000, %eax; add $1, %eax; mov %eax, %ebx; mov $7, %eax; out %al, $0x80; hlt");
static void a_register_that_differs_is_told_with_the_instructions(void **state)
{
    struct pair *pair = pair_of(state);
    LOAD(pair, sums);
    pair->follower->vm->memory.host[0x10000] = 1;
    DIFFERENCE(pair, "rbx            0000000000000001, 0000000000000002");
    assert_non_null(strstr(pair->text, "out 0x80, al"));
    assert_non_null(strstr(pair->text, "state on kvm"));
    assert_int_equal(pair->lab->vm.exit_code, HVRUN_DIFFERENCE);
}

static void what_is_written_to_a_port_is_compared(void **state)
{
    struct pair *pair = pair_of(state);
    LOAD(pair, sums);
    pair->follower->vm->memory.host[STEP_CODE + 13] = 8; /* of mov $7, %eax */
    DIFFERENCE(pair, "a write to port 0x80, 1 bytes, value 0x7; on KVM value 0x8");
}

static void another_way_is_a_difference(void **state)
{
    struct pair *pair = pair_of(state);
    LOAD(pair, sums);
    pair->follower->vm->memory.host[STEP_CODE + 17] = 0xf4; /* HLT in place of OUT */
    DIFFERENCE(pair, "a write to port 0x80, 1 bytes, value 0x7; on KVM HLT");
}

static void memory_is_compared_at_the_end(void **state)
{
    struct pair *pair = pair_of(state);
    LOAD(pair, sums);
    pair->follower->vm->memory.host[0x12345] = 0x80;
    DIFFERENCE(pair, "RAM 12340      0000000000000000, 0000800000000000");
}

static void bits_of_page_tables_are_not(void **state)
{
    struct pair *pair = pair_of(state);
    LOAD(pair, sums);
    *one_insn_pte(pair->follower->vm->vcpus[0], 0x200000) &= ~0x60ull;
    NO_DIFFERENCE(pair);
}

STEP_ASM(many, "mov $0x80, %ecx; "
               "1: out %al, $0x80; dec %ecx; jnz 1b; hlt");
static void system_registers_are_compared_now_and_then(void **state)
{
    struct pair *pair = pair_of(state);
    LOAD(pair, many);
    pair->follower->vm->vcpus[0]->star = 5;
    DIFFERENCE(pair, "star           0000000000000000, 0000000000000005");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_pair, close_pair)
    const struct CMUnitTest tests[] = {
        T(the_same_guest_makes_no_difference),
        T(an_interrupt_comes_at_the_same_instruction),
        T(undefined_flags_are_no_difference),
        T(a_triple_fault_ends_both),
        T(a_register_that_differs_is_told_with_the_instructions),
        T(what_is_written_to_a_port_is_compared),
        T(another_way_is_a_difference),
        T(memory_is_compared_at_the_end),
        T(bits_of_page_tables_are_not),
        T(system_registers_are_compared_now_and_then),
    };
    return cmocka_run_group_tests(tests, find_kvm, NULL);
}
