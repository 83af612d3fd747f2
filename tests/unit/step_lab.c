/* The machine that the tests of single-stepping enter. */
#include "tests/unit/step_lab.h"

#include <assert.h>
#include <stdlib.h>

#include "runtime/interrupts.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"

void step_gate(struct step_lab *lab, int vector, unsigned flags)
{
    uint64_t gate = STEP_HANDLER(vector) | ONE_INSN_CS64 << 16 | (uint64_t)flags << 32;
    one_insn_put(lab->cpu, ONE_INSN_IDT + 16u * (unsigned)vector, 8, gate);
    one_insn_put(lab->cpu, ONE_INSN_IDT + 16u * (unsigned)vector + 8, 8, 0);
}

int step_lab_open(void **state)
{
    static const uint8_t handler[16] = {0x90, 0x48, 0xcf}; /* nop; iretq */
    struct step_lab *lab = calloc(1, sizeof *lab);
    struct error err = {0};
    assert(lab);
    lab->vm.config = (struct vm_config){.memory = ONE_INSN_RAM, .smp = 1, .deterministic = true};
    lab->vm.engine = &soft_engine;
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
    return 0;
}

int step_lab_close(void **state)
{
    struct step_lab *lab = *state;
    vmcs_destroy(lab->vmcs);
    vm_destroy(&lab->vm);
    free(lab);
    return 0;
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
