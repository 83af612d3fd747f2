/* SPDX-License-Identifier: MIT */
/* The machine that the tests of single-stepping enter. */
#include "tests/unit/step_lab.h"

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/interrupts.h"
#include "runtime/kvm/kvm.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"

#include <cmocka.h>

void step_gate(struct step_lab *lab, int vector, unsigned flags)
{
    uint64_t gate = STEP_HANDLER(vector) | ONE_INSN_CS64 << 16 | (uint64_t)flags << 32;
    one_insn_put(lab->cpu, ONE_INSN_IDT + 16u * (unsigned)vector, 8, gate);
    one_insn_put(lab->cpu, ONE_INSN_IDT + 16u * (unsigned)vector + 8, 8, 0);
}

static int open_on(const struct engine *engine, void **state)
{
    static const uint8_t handler[16] = {0x90, 0x48, 0xcf}; /* nop; iretq */
    const struct step_test *test = *state;
    struct step_lab *lab = calloc(1, sizeof *lab);
    struct error err = {0};
    assert(lab);
    lab->vm.config = (struct vm_config){.memory = ONE_INSN_RAM, .smp = 1, .deterministic = true};
    lab->vm.engine = engine;
    if (vm_create(&lab->vm, &err) < 0)
        return -1;
    lab->cpu = lab->vm.vcpus[0];
    one_insn_set_up(lab->cpu);
    for (int vector = 0; vector < 256; vector++) {
        step_gate(lab, vector, STEP_INTERRUPT);
        memory_write(&lab->vm.memory, STEP_HANDLER(vector), handler, sizeof handler);
    }
    lab->vmcs = vmcs_create(lab->cpu, &err);
    assert(lab->vmcs);
    lab->vmcs->single_step = true;
    *state = lab;
    if (test && test->prepare)
        test->prepare(lab);
    return 0;
}

int step_lab_open(void **state)
{
    return open_on(&soft_engine, state);
}

int step_lab_open_kvm(void **state)
{
    static bool limited; /* for this process: tests of the soft engine come before */
    struct kvm_quality quality;
    struct error err = {0};
    if (!limited && (kvm_probe(&quality, &err) < 0 || kvm_limit_features(&quality, &err) < 0))
        fail_msg("%s", err.text);
    limited = true;
    return open_on(&kvm_engine, state);
}

int step_lab_close(void **state)
{
    struct step_lab *lab = *state;
    vmcs_destroy(lab->vmcs);
    vm_destroy(&lab->vm);
    free(lab);
    return 0;
}

/* ---- on KVM ---- */
/* Into the kernel and back: what does not come back shows in the test. */
static void bounce(struct step_lab *lab)
{
    struct kvm_cpu *cpu = &lab->vm.kvm->cpus[0];
    struct error err = {0};
    assert_true(cpu->pulled);
    if (kvm_push(cpu, &err) < 0)
        fail_msg("%s", err.text);
    memset(lab->cpu->r, 0x55, 16 * sizeof lab->cpu->r[0]);
    memset(lab->cpu->segment, 0x55, sizeof lab->cpu->segment);
    lab->cpu->rip = lab->cpu->cr0 = lab->cpu->cr3 = lab->cpu->cr4 = lab->cpu->efer = 0;
    if (kvm_pull(cpu, &err) < 0)
        fail_msg("%s", err.text);
}

enum vmcs_exit step_enter(struct step_lab *lab)
{
    if (lab->vm.kvm)
        bounce(lab);
    return vm_enter(lab->vmcs);
}

static void skipped(void **state)
{
    (void)state;
    skip();
}

/* Why there can be no tests on KVM, or NULL. */
static const char *no_kvm(void)
{
    static struct error err;
    struct kvm_quality quality;
    return kvm_probe(&quality, &err) < 0 ? err.text : NULL;
}

static struct CMUnitTest on_kvm(const struct step_test *test, bool usable)
{
    char *name = NULL;
    if (asprintf(&name, "%s_on_kvm", test->name) < 0)
        abort();
    if (!usable)
        return (struct CMUnitTest){name, skipped, NULL, NULL, NULL};
    return (struct CMUnitTest){name, test->test, step_lab_open_kvm, step_lab_close, (void *)test};
}

int step_run_tests(const struct step_test *tests, size_t count)
{
    struct CMUnitTest *rows = calloc(count, 2 * sizeof *rows);
    const char *why = no_kvm();
    assert(rows);
    if (why)
        print_message("# on KVM: %s\n", why);
    for (size_t n = 0; n < count; n++) {
        rows[n] = (struct CMUnitTest){tests[n].name, tests[n].test, step_lab_open, step_lab_close,
                                      (void *)&tests[n]};
        rows[count + n] = on_kvm(&tests[n], !why);
    }
    int failed = _cmocka_run_group_tests("tests", rows, 2 * count, NULL, NULL);
    for (size_t n = 0; n < count; n++)
        free((char *)rows[count + n].name);
    free(rows);
    return failed;
}

void step_load(struct step_lab *lab, uint64_t at, const uint8_t *code, const uint8_t *end)
{
    memory_write(&lab->vm.memory, at, code, (size_t)(end - code));
}

void step_unmap(struct step_lab *lab, uint64_t linear)
{
    *one_insn_pte(lab->cpu, linear) &= ~1ull;
    tlb_flush(lab->cpu);
}

uint64_t step_stack(struct step_lab *lab, unsigned n)
{
    return one_insn_get(lab->cpu, lab->cpu->r[RSP] + 8 * n, 8);
}

void step_apic(struct step_lab *lab)
{
    bool good = msr_write(lab->cpu, 0x1b, 0xfee00d00) && msr_write(lab->cpu, 0x80f, 0x1ff);
    assert(good);
    (void)good;
}

void step_interrupt(struct step_lab *lab, uint8_t vector)
{
    apic_message(&lab->vm, 0, false, APIC_FIXED, vector, false);
}
