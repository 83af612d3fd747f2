/* SPDX-License-Identifier: MIT */
/* Two machines that must agree. */
#include "tests/unit/translator_lab.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/soft/engine.h"
#include "runtime/soft/tlb.h"
#include "runtime/state_hash.h"
#include "runtime/translator/translator.h"

static bool old_host;

void translator_lab_old_host(bool old)
{
    old_host = old;
}

static struct vm *machine(bool translator, uint64_t code_cache)
{
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    assert(vm);
    vm->config = (struct vm_config){.memory = ONE_INSN_RAM,
                                    .smp = 1,
                                    .deterministic = true,
                                    .translator = translator,
                                    .translator_warm = 2,
                                    .translator_hot = 1,
                                    .translator_old_host = old_host,
                                    .code_cache = code_cache};
    vm->engine = &soft_engine;
    if (vm_create(vm, &err))
        abort();
    one_insn_set_up(vm->vcpus[0]);
    return vm;
}

bool translator_lab_open(struct translator_lab *lab, uint64_t code_cache)
{
    if (translator_missing())
        return false;
    lab->translates = machine(true, code_cache);
    lab->interprets = machine(false, code_cache);
    return true;
}

void translator_lab_close(struct translator_lab *lab)
{
    vm_destroy(lab->translates);
    vm_destroy(lab->interprets);
    free(lab->translates);
    free(lab->interprets);
}

static struct vm *nth(const struct translator_lab *lab, unsigned n)
{
    return n ? lab->interprets : lab->translates;
}

void translator_lab_put(struct translator_lab *lab, uint64_t at, const void *bytes, size_t size)
{
    for (unsigned n = 0; n < 2; n++)
        memory_write(&nth(lab, n)->memory, at, bytes, size);
}

void translator_lab_register(struct translator_lab *lab, unsigned r, uint64_t value)
{
    for (unsigned n = 0; n < 2; n++)
        nth(lab, n)->vcpus[0]->r[r] = value;
}

static void gates(struct translator_lab *lab)
{
    for (unsigned vector = 0; vector < 32; vector++) {
        uint64_t gate[2] = {(LAB_HANDLER & 0xffff) | (uint64_t)ONE_INSN_CS64 << 16 | 0x8eull << 40,
                            0};
        translator_lab_put(lab, ONE_INSN_IDT + 16 * vector, gate, sizeof gate);
    }
    translator_lab_put(lab, LAB_HANDLER, "\xf4\xeb\xfd", 3); /* hlt; jmp back */
}

void translator_lab_start(struct translator_lab *lab, uint64_t rip, bool user)
{
    gates(lab);
    for (unsigned n = 0; n < 2; n++) {
        struct vcpu *cpu = nth(lab, n)->vcpus[0];
        nth(lab, n)->shutdown = SHUTDOWN_NONE;
        cpu->activity = ACTIVITY_ACTIVE;
        cpu->shadow = 0;
        cpu->cr2 = 0;
        memset(cpu->dr, 0, sizeof cpu->dr);
        cpu->dr[6] = 0xffff0ff0;
        cpu->dr[7] = 0x400;
        memset(cpu->r, 0, sizeof cpu->r);
        one_insn_mode(cpu, ONE_INSN_64, user);
        vcpu_set_rflags(cpu, RFLAGS_ONE);
        cpu->cr0 |= CR0_WP;
        *one_insn_pte(cpu, LAB_READONLY) &= ~2ull;
        *one_insn_pte(cpu, LAB_MISSING) &= ~1ull;
        one_insn_flush(cpu);
        tlb_flush(cpu);
        cpu->rip = rip;
        cpu->r[RSP] = ONE_INSN_STACK;
        vcpu_mode_changed(cpu);
    }
}

bool translator_lab_halted(const struct translator_lab *lab)
{
    return lab->translates->vcpus[0]->activity != ACTIVITY_ACTIVE;
}

static bool show(const struct translator_lab *lab)
{
    const struct vcpu *a = lab->translates->vcpus[0], *b = lab->interprets->vcpus[0];
    printf("# RIP %" PRIx64 " translated, %" PRIx64 " interpreted; RFLAGS %" PRIx64 ", %" PRIx64
           "; instructions %" PRIu64 ", %" PRIu64 "\n",
           a->rip, b->rip, vcpu_rflags(a), vcpu_rflags(b), soft_instructions(lab->translates),
           soft_instructions(lab->interprets));
    for (unsigned n = 0; n < 16; n++)
        if (a->r[n] != b->r[n])
            printf("# r%u %" PRIx64 ", %" PRIx64 "\n", n, a->r[n], b->r[n]);
    for (uint64_t at = 0; at < ONE_INSN_RAM; at += 8)
        if (memcmp(lab->translates->memory.host + at, lab->interprets->memory.host + at, 8))
            printf("# memory differs at %" PRIx64 "\n", at);
    return false;
}

bool translator_lab_run(struct translator_lab *lab, int64_t instructions)
{
    soft_run(lab->translates->vcpus[0], instructions);
    soft_run(lab->interprets->vcpus[0], instructions);
    const size_t compared = translator_lab_halted(lab) ? 0x40000 : 0; /* all that programs reach */
    if (soft_instructions(lab->translates) == soft_instructions(lab->interprets) &&
        vcpu_state_hash(lab->translates->vcpus[0]) == vcpu_state_hash(lab->interprets->vcpus[0]) &&
        !memcmp(lab->translates->memory.host, lab->interprets->memory.host, compared))
        return true;
    return show(lab);
}
