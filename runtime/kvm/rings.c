/* SPDX-License-Identifier: MIT */
/* Routines of a patched guest on this engine: which are linked, and what happens when one rings.
 *
 * The rule of profit, kind by kind. An exit that KVM hands to user space costs one KVM_RUN, whatever the instruction; one
 * that it answers in the host kernel costs less than that. So a routine is linked if the guest has the answer itself; a
 * routine that only rings is linked with --link-all, to show that it works, and never where the native exit is a
 * doorbell already. */
#include "hvstub/hvstub.h"
#include "runtime/kvm/kvm.h"
#include "runtime/stub.h"

static void serve_nothing(struct kvm_cpu *cpu)
{
    (void)cpu;
}

static const struct kind {
    bool answers;     /* linked if the guest has the answer */
    bool native_only; /* its doorbell is not linked even with --link-all */
    /* what its doorbell asks for, where that needs no register; NULL: they are pulled, and the soft
     * processor executes the instruction */
    void (*serve)(struct kvm_cpu *cpu);
} kinds[PV_KINDS] = {
    /* Most leaves are in the table. The host kernel answers the others sooner than registers are pulled: a
     * routine that rings for them is not worth it. */
    [PV_KIND_CPUID] = {.answers = true},
    /* Constant MSRs are in the table. */
    [PV_KIND_RDMSR] = {.answers = true},
    /* A deadline that is far enough is left in the state page. */
    [PV_KIND_WRMSR] = {.answers = true},
    /* What the state page answers. The native exit is a doorbell already: port, size and up to 32 bits of operand are in
     * the run page, and KVM puts an input where it belongs. */
    [PV_KIND_IN] = {.answers = true, .native_only = true},
    [PV_KIND_OUT] = {.answers = true, .native_only = true},
    [PV_KIND_INS] = {.native_only = true},
    [PV_KIND_OUTS] = {.native_only = true},
    /* An exit without operands either way. The interrupt comes in behind the OUT, where only the guest's RAX is restored:
     * as good as behind HLT. */
    [PV_KIND_HLT] = {.serve = kvm_halt},
    /* Memory is as coherent as the host's: answered in the host kernel. */
    [PV_KIND_WBINVD] = {.serve = serve_nothing},
    [PV_KIND_INVD] = {.serve = serve_nothing},
};

bool kvm_links(const struct vm *vm, const struct stub_routine *r)
{
    const struct kind *kind = &kinds[r->kind];
    bool in_guest = r->flags & (PV_ROUTINE_TABLE | PV_ROUTINE_STATE);
    bool rings = r->flags & PV_ROUTINE_DOORBELL;
    if (in_guest && !rings)
        return kind->answers;
    return vm->config.link_all && !kind->native_only;
}

/* Served without a register: HLT whose STI is not the routine's, too. */
static bool needs_registers(const struct stub_routine *r)
{
    return !kinds[r->kind].serve ||
           r->flags & (PV_ROUTINE_STI | PV_ROUTINE_TABLE | PV_ROUTINE_STATE);
}

/* The OUT of a doorbell is two bytes. It is executed again, by the soft processor, which knows what it rings for. */
static int pull_and_ring(struct kvm_cpu *cpu, struct error *err)
{
    if (kvm_complete(cpu, err) < 0 || kvm_pull(cpu, err) < 0)
        return -1;
    cpu->kvm->rings_pulled++;
    cpu->vcpu->rip -= 2;
    return kvm_soft_step(cpu, err);
}

/* Where the ring came from is not looked at, which would take registers: code at privilege level 0, or code that was given
 * the port, may ring from elsewhere, and halts itself, or nothing happens. */
static void ring(struct kvm_cpu *cpu, const struct stub_routine *r)
{
    struct stub *stub = cpu->kvm->vm->stub;
    struct stats *stats = &cpu->kvm->vm->stats;
    stats->routine_calls++;
    stats->host_calls++;
    stats->by_form[r->form]++;
    stats_exit(stats, EXIT_KIND_DOORBELL, stub->header_linear + (uint64_t)r->emulation_offset);
    kinds[r->kind].serve(cpu);
}

bool kvm_rings(const struct kvm_cpu *cpu, uint32_t index)
{
    const struct stub *stub = cpu->kvm->vm->stub;
    if (!stub || index >= stub->routine_count)
        return false;
    const struct stub_routine *r = &stub->routines[index];
    return r->linked && r->flags & PV_ROUTINE_DOORBELL && !(r->flags & PV_ROUTINE_BARE);
}

int kvm_ring(struct kvm_cpu *cpu, uint32_t index, struct error *err)
{
    const struct stub_routine *r = &cpu->kvm->vm->stub->routines[index];
    cpu->kvm->rings++;
    if (needs_registers(r))
        return pull_and_ring(cpu, err);
    ring(cpu, r);
    return 0;
}
