/* SPDX-License-Identifier: MIT */
/* A program that embeds the hypervisor: it puts a small guest into memory and steps it, instruction by instruction.
 *
 *     cc step_guest.c $(pkg-config --cflags --libs hvrun) -o step_guest
 *
 * The guest computes 5! in 16-bit code, calls the VMM with OUT, divides by zero (its handler repairs that), and halts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/vmcs.h"

#define CODE 0x7c00u

static const uint8_t guest[] = {
    0xb8, 0x01, 0x00, /* 7c00      mov $1, %ax */
    0xb9, 0x05, 0x00, /* 7c03      mov $5, %cx */
    0xf7, 0xe1,       /* 7c06 1:   mul %cx */
    0xe2, 0xfc,       /* 7c08      loop 1b */
    0xe7, 0x99,       /* 7c0a      out %ax, $0x99 */
    0xf7, 0xf1,       /* 7c0c      div %cx */
    0xf4,             /* 7c0e      hlt */
    /* 7c0f: the handler of #DE makes the divisor 1 and goes back */
    0xb9, 0x01, 0x00, /* 7c0f      mov $1, %cx */
    0xcf,             /* 7c12      iret */
};
static const uint8_t vector0[] = {0x0f, 0x7c, 0, 0}; /* the interrupt table's first entry: 0:7c0f */

static int die(const struct error *err)
{
    fprintf(stderr, "step_guest: %s\n", err->text);
    return 1;
}

/* Real mode at 0:7c00. */
static void set_up(struct vmcs *vmcs)
{
    struct vcpu *cpu = vmcs->cpu;
    for (int n = SEG_ES; n <= SEG_GS; n++)
        cpu->segment[n].selector = 0, cpu->segment[n].base = 0;
    cpu->rip = CODE;
    cpu->r[RSP] = CODE;
    cpu->idt_limit = 0x3ff;
    vmcs_state_changed(vmcs);
}

/* Steps until the guest halts. */
static int step(struct vmcs *vmcs)
{
    while (vmcs->activity != ACTIVITY_HLT) {
        uint64_t rip = vmcs->cpu->rip;
        switch (vm_enter(vmcs)) {
        case VMCS_EXIT_STEP:
            printf("%04" PRIx64 ": ax=%04" PRIx64 " cx=%04" PRIx64, rip, vmcs->cpu->r[RAX] & 0xffff,
                   vmcs->cpu->r[RCX] & 0xffff);
            if (vmcs->delivered.valid)
                printf("  exception %u", vmcs->delivered.vector);
            putchar('\n');
            break;
        case VMCS_EXIT_IO:
            printf("%04" PRIx64 ": the guest says %" PRIu64 "\n", rip, vmcs->cpu->r[RAX] & 0xffff);
            vmcs->cpu->rip += vmcs->instruction_length;
            break;
        default:
            printf("exit: %s\n", vmcs_exit_names[vmcs->exit_reason]);
            return 1;
        }
    }
    printf("%" PRIu64 " steps\n", vmcs->steps);
    return 0;
}

int main(void)
{
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return 1;
    vm->config = (struct vm_config){.memory = 1 << 20, .smp = 1, .deterministic = true};
    vm->engine = &soft_engine;
    if (vm_create(vm, &err) < 0)
        return die(&err);
    memory_write(&vm->memory, CODE, guest, sizeof guest);
    memory_write(&vm->memory, 0, vector0, sizeof vector0);
    struct vmcs *vmcs = vmcs_create(vm->vcpus[0], &err);
    if (!vmcs)
        return die(&err);
    vmcs->single_step = true;
    vmcs->exiting = VMCS_IO_EXITING;
    set_up(vmcs);
    int result = step(vmcs);
    vmcs_destroy(vmcs);
    vm_destroy(vm);
    free(vm);
    return result;
}
