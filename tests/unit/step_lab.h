/* SPDX-License-Identifier: MIT */
/* A whole machine with a small kernel's tables, to be entered through vm_enter: what the tests of the rows S0 to S17
 * stand on, on either engine. Memory and selectors are those of one_insn.h. Include it before <cmocka.h>. */
#ifndef TESTS_STEP_LAB_H
#define TESTS_STEP_LAB_H

#include "runtime/vmcs.h"
#include "tests/unit/one_insn.h"

#define STEP_HANDLERS        0x9000u /* 16 bytes a vector: NOP, IRETQ */
#define STEP_HANDLER(vector) (STEP_HANDLERS + 16u * (unsigned)(vector))
#define STEP_CODE            ONE_INSN_CODE
#define STEP_USER            0xb000u /* user-mode code, if a test has some */
#define STEP_STACK           ONE_INSN_STACK

/* Gate flags: type, present, DPL; the IST is in the low bits. */
enum { STEP_INTERRUPT = 0x8e00, STEP_TRAP = 0x8f00, STEP_ABSENT = 0x0e00, STEP_DPL3 = 0x6000 };

struct step_lab {
    struct vm vm;
    struct vcpu *cpu;
    struct vmcs *vmcs;
};

/* Code of a test, 64-bit, assembled with it: NAME_code to NAME_end. */
#define STEP_ASM(name, text)                                                                       \
    __asm__(".pushsection .rodata, \"a\"\n.balign 16\n" #name "_code:\n" text "\n" #name           \
            "_end:\n.popsection\n");                                                               \
    extern const uint8_t name##_code[], name##_end[]

/* Tests, with the lab as their *state. Each runs on the soft engine, and again on the KVM engine, where before every
 * entry the vCPU's state goes into the kernel and comes back. What main returns. */
struct step_test {
    const char *name;
    void (*test)(void **state);
    void (*prepare)(struct step_lab *lab); /* before it; may be NULL */
};
int step_run_tests(const struct step_test *tests, size_t count);

/* vm_enter of the lab's vCPU. */
enum vmcs_exit step_enter(struct step_lab *lab);

/* cmocka's setup and teardown: *state is the lab. In 64-bit mode at CPL 0, RIP at STEP_CODE, all 256 gates present, the
 * single-step indicator set, IF clear; deterministic on the soft engine. */
int step_lab_open(void **state);
int step_lab_open_kvm(void **state);
int step_lab_close(void **state);

/* RIP behind so many bytes of the code. */
#define STEP_BEHIND(n) (STEP_CODE + (n))
static inline enum vmcs_exit step(struct step_lab *lab)
{
    return step_enter(lab);
}
/* One step, which ends as such with RIP there. */
#define STEPS_TO(rip_)                                                                             \
    do {                                                                                           \
        assert_int_equal(step(lab), VMCS_EXIT_STEP);                                               \
        assert_int_equal(lab->cpu->rip, (rip_));                                                   \
    } while (0)

void step_gate(struct step_lab *lab, int vector, unsigned flags);
void step_load(struct step_lab *lab, uint64_t at, const uint8_t *code, const uint8_t *end);
#define STEP_LOAD(lab, name) step_load(lab, STEP_CODE, name##_code, name##_end)
/* The page at this address is not there. */
void step_unmap(struct step_lab *lab, uint64_t linear);
/* A word of the guest's stack. */
uint64_t step_stack(struct step_lab *lab, unsigned n);
/* x2APIC mode, enabled in software; an interrupt that waits there. */
void step_apic(struct step_lab *lab);
void step_interrupt(struct step_lab *lab, uint8_t vector);

#endif
