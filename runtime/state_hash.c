/* SPDX-License-Identifier: MIT */
/* The hash of the guest's state: field by field, for padding and the engine's own do not count. */
#include "runtime/state_hash.h"

#define XXH_STATIC_LINKING_ONLY /* for a state that is no allocation */
#include <xxhash.h>

#include "runtime/vcpu.h"
#include "runtime/vm.h"

static void add(XXH3_state_t *hash, const void *bytes, size_t size)
{
    XXH3_64bits_update(hash, bytes, size);
}

static void add_number(XXH3_state_t *hash, uint64_t number)
{
    add(hash, &number, sizeof number);
}

#define ADD(field) add(hash, &cpu->field, sizeof cpu->field)

static void add_vcpu(XXH3_state_t *hash, const struct vcpu *cpu)
{
    add(hash, cpu->r, 16 * sizeof cpu->r[0]);
    add_number(hash, vcpu_rflags(cpu));
    ADD(rip);
    ADD(cpl);
    for (unsigned n = 0; n < SEGS; n++) {
        ADD(segment[n].selector);
        ADD(segment[n].rights);
        ADD(segment[n].limit);
        ADD(segment[n].base);
    }
    ADD(gdt_base);
    ADD(gdt_limit);
    ADD(idt_base);
    ADD(idt_limit);
    ADD(cr0);
    ADD(cr2);
    ADD(cr3);
    ADD(cr4);
    ADD(dr);
    ADD(efer);
    ADD(star);
    ADD(lstar);
    ADD(cstar);
    ADD(fmask);
    ADD(kernel_gs_base);
    ADD(sysenter_cs);
    ADD(sysenter_esp);
    ADD(sysenter_eip);
    ADD(tsc_offset);
    ADD(tsc_aux);
    ADD(pat);
    ADD(misc_enable);
    ADD(debugctl);
    ADD(mtrr);
    ADD(msr_kept);
    ADD(random);
    ADD(xcr0);
    ADD(xss);
    ADD(pkru);
    ADD(fpu);
    add_number(hash, (uint64_t)cpu->activity);
    ADD(shadow);
    ADD(nmi_blocked);
    ADD(events);
    ADD(pending_db);
}

uint64_t vcpu_state_hash(const struct vcpu *cpu)
{
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    add_vcpu(&hash, cpu);
    return XXH3_64bits_digest(&hash);
}

uint64_t vm_state_hash(const struct vm *vm)
{
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        add_vcpu(&hash, vm->vcpus[k]);
    add(&hash, vm->memory.host, vm->memory.size);
    add_number(&hash, clock_now(&vm->clock));
    return XXH3_64bits_digest(&hash);
}
