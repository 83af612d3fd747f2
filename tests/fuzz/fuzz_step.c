/* SPDX-License-Identifier: MIT */
/* VM entries with random controls into random guests: whatever guest and VMM do, the host process must neither crash nor
 * hang; a step is one step, and what exits before it is executed leaves the guest as it was (S1, S2).
 *
 * The input is a header that says what the guest is like, an octet of controls for each entry in turn, and code. */
#include <stdlib.h>
#include <string.h>

#include "runtime/vmcs.h"
#include "tests/fuzz/guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define ENTRIES  300u
#define CONTROLS 32u

struct header {
    uint8_t mode; /* enum guest_mode */
    uint8_t vcpus, gates, flags;
    uint32_t seed;
    uint8_t controls[CONTROLS];
};

static void time_is_up(void *context, uint64_t now)
{
    (void)now;
    vm_stop(context, SHUTDOWN_TIMEOUT, HVRUN_TIMEOUT);
}

static enum smm_result manage(struct vmcs *vmcs, struct smm_save *save, void *context)
{
    uint64_t *state = context;
    save->rip += guest_draw(state) & 1;
    vmcs->pending_step_exit ^= guest_draw(state) & 1;
    if (guest_draw(state) & 3)
        return SMM_RESUME;
    smm_deliver_exit(vmcs);
    return SMM_EXIT;
}

/* ---- controls ---- */
static void raise_event(struct vmcs *vmcs, uint64_t which)
{
    switch (which & 7) {
    case 0:
        vmcs_raise_nmi(vmcs);
        break;
    case 1:
        vmcs_raise_smi(vmcs);
        break;
    case 2:
        vmcs_raise_machine_check(vmcs);
        break;
    case 3:
        if (which & 0x70)
            break;
        vmcs_raise_init(vmcs);
        break;
    default:
        vmcs->entry_event = (struct vmcs_event){.valid = true,
                                                .type = which >> 3 & 7,
                                                .vector = (uint8_t)(which >> 8),
                                                .has_error = which >> 6 & 1,
                                                .error = (uint16_t)(which >> 16)};
        vmcs->entry_length = which >> 32 & 15;
    }
}

static void set_controls(struct vmcs *vmcs, uint8_t control, uint64_t *state)
{
    uint64_t random = guest_draw(state);
    vmcs->single_step = control & 1 || random & 1;
    vmcs->limit = vmcs->single_step ? 0 : 1 + (random >> 8 & 63);
    vmcs->exception_bitmap = control & 2 ? (uint32_t)(random >> 32) : 0;
    vmcs->exiting = control & 4 ? (uint32_t)guest_draw(state) : 0;
    vmcs->interrupt_exiting = control & 8;
    vmcs->acknowledge_interrupt = random >> 2 & 1;
    vmcs->nmi_exiting = control & 16 && random & 8;
    vmcs->smi_exiting = control & 16 && random & 16;
    vmcs->init_exiting = control & 16 && random & 32;
    vmcs->save_activity = !(control & 32 && random & 64);
    vmcs->smm = random & 128 ? manage : NULL;
    vmcs->smm_context = state;
    vmcs->held = control & 64 && random >> 20 & 1;
    if (control & 128 && !(random >> 16 & 15))
        raise_event(vmcs, guest_draw(state));
    if (!(random >> 24 & 0xff)) { /* fields that may be wrong */
        vmcs->interruptibility = random >> 40 & 15;
        vmcs->activity = random >> 44 & 7;
        vmcs->pending_step_exit = random >> 47 & 1;
    }
}

static void set_points(struct vm *vm, uint64_t *state)
{
    struct error err;
    uint64_t at = GUEST_CODE + (guest_draw(state) & 127);
    if (guest_draw(state) & 1)
        vmcs_break(vm, at, &err);
    else
        vmcs_unbreak(vm, at);
    at = GUEST_STACK - 64 + (guest_draw(state) & 127);
    if (guest_draw(state) & 1)
        vmcs_watch(vm, at, 1 + (guest_draw(state) & 7), 1 + (unsigned)guest_draw(state) % 3, &err);
    else
        vmcs_unwatch(vm, at, 4, VMCS_WATCH_WRITE);
}

/* ---- what must hold ---- */
static bool was_not_executed(const struct vmcs *vmcs, uint16_t task)
{
    if (vmcs->cpu->segment[SEG_TR].selector != task) /* the fault is that of the task switched to */
        return false;
    bool fault = vmcs->exit_reason == VMCS_EXIT_EXCEPTION && vmcs->event.vector != EXC_MC;
    return (fault ||
            (vmcs->exit_reason >= VMCS_EXIT_HLT && vmcs->exit_reason <= VMCS_EXIT_LISTED)) &&
           !vmcs->delivered.valid && !vmcs->vectoring.valid;
}

static void enter(struct vm *vm, struct vmcs *vmcs, bool all)
{
    uint64_t before[17], steps;
    memcpy(before, vmcs->cpu->r, 16 * sizeof before[0]);
    before[16] = vmcs->cpu->rip;
    uint16_t task = vmcs->cpu->segment[SEG_TR].selector;
    steps = vm->stats.steps;
    struct vmcs *left = vmcs;
    if (all)
        left = vm_enter_any(vm);
    else
        vm_enter(vmcs);
    if (!left)
        return;
    must(left->exit_reason < VMCS_EXITS);
    must((left->exit_reason == VMCS_EXIT_INVALID) == (left->invalid != NULL));
    must(vm->stats.steps == steps + (left->exit_reason == VMCS_EXIT_STEP));
    must(!left->entered && !left->cpu->exiting && !left->cpu->block && !left->cpu->r[REG_ZERO]);
    must(left->exit_reason == VMCS_EXIT_INVALID || !left->pending_step_exit);
    if (!all && vmcs->single_step && !vmcs->smm && was_not_executed(vmcs, task)) {
        must(memcmp(before, vmcs->cpu->r, 16 * sizeof before[0]) == 0);
        must(before[16] == vmcs->cpu->rip);
    }
    if (left->exit_reason == VMCS_EXIT_INVALID) {
        left->activity = ACTIVITY_ACTIVE;
        left->interruptibility = 0;
        left->entry_event.valid = false;
    }
}

static void run(struct vm *vm, const struct header *h, uint64_t *state)
{
    struct timer end = {.fire = time_is_up, .context = vm};
    clock_arm(&vm->clock, &end, 20000);
    for (unsigned n = 0; n < ENTRIES && !vm->shutdown; n++) {
        for (unsigned k = 0; k < vm->vcpu_count; k++)
            set_controls(vm->vcpus[k]->vmcs, h->controls[n % CONTROLS], state);
        if (h->flags & 64 && guest_draw(state) % 16 == 0)
            set_points(vm, state);
        unsigned which = (unsigned)guest_draw(state) & (vm->vcpu_count - 1); /* one or two */
        enter(vm, vm->vcpus[which]->vmcs, guest_draw(state) & 1);
    }
    clock_cancel(&vm->clock, &end);
}

/* ---- the guest ---- */
static void set_up(struct vm *vm, const struct header *h, const uint8_t *code, size_t size,
                   uint64_t *state)
{
    enum guest_mode mode = h->mode % GUEST_MODES;
    struct error err = {0};
    guest_fill_code(vm, state);
    guest_fill_tables(vm, mode, h->gates, state);
    if (size > GUEST_SPACING)
        size = GUEST_SPACING;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        struct vcpu *cpu = vm->vcpus[k];
        memcpy(vm->memory.host + GUEST_CODE + GUEST_SPACING * k, code, size);
        guest_enter(cpu, mode);
        for (unsigned n = 0; n < 16; n++)
            cpu->r[n] = guest_draw(state) % GUEST_RAM;
        cpu->r[RSP] = GUEST_STACK - 0x400 * k;
        cpu->rip += GUEST_SPACING * k;
        cpu->cr4 |= CR4_OSFXSR | (h->flags & 16 ? CR4_MCE : 0);
        vcpu_set_rflags(cpu, vcpu_rflags(cpu) | (h->flags & 1 ? RFLAGS_IF : 0) |
                                 (h->flags & 2 ? RFLAGS_TF : 0) | (h->flags & 4 ? RFLAGS_DF : 0));
        vcpu_mode_changed(cpu);
        cpu->activity = ACTIVITY_ACTIVE;
        must(vmcs_create(cpu, &err) != NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct header h = {0};
    size_t head = size < sizeof h ? size : sizeof h;
    memcpy(&h, bytes, head);
    uint64_t state = (uint64_t)h.seed << 1 | 1;
    struct vm *vm = guest_vm(1 + (h.vcpus & 1), false);
    set_up(vm, &h, bytes + head, size - head, &state);
    run(vm, &h, &state);
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        vmcs_destroy(vm->vcpus[k]->vmcs);
    vm_destroy(vm);
    free(vm);
    return 0;
}
