/* SPDX-License-Identifier: MIT */
/* Single steps a second through vm_enter(): of small loops, and of a kernel's boot if one is given. The processor's
 * time counts, not the clock's. Prints a JSON object.
 *
 *   steps [KERNEL] */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image/image.h"
#include "runtime/loader.h"
#include "runtime/soft/engine.h"
#include "runtime/vmcs.h"

#define LOOP_STEPS 20000000u
#define BOOT_FIRST 60000000u /* instructions that run before the boot is stepped */
#define BOOT_STEPS 20000000u

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void need(bool good, const struct error *err)
{
    if (good)
        return;
    fprintf(stderr, "steps: %s\n", err->text);
    exit(1);
}

static struct vmcs *machine(struct vm *vm, uint64_t memory)
{
    struct error err = {0};
    vm->config = (struct vm_config){.memory = memory,
                                    .smp = 1,
                                    .deterministic = true,
                                    .append = "console=ttyS0 earlyprintk=serial"};
    vm->engine = &soft_engine;
    need(vm_create(vm, &err) == 0, &err);
    struct vmcs *vmcs = vmcs_create(vm->vcpus[0], &err);
    need(vmcs != NULL, &err);
    return vmcs;
}

static double steps_a_second(struct vmcs *vmcs, uint64_t count)
{
    double start = now();
    vmcs->single_step = true;
    for (uint64_t n = 0; n < count; n++)
        if (vm_enter(vmcs) != VMCS_EXIT_STEP) {
            fprintf(stderr, "steps: exit: %s\n", vmcs_exit_names[vmcs->exit_reason]);
            exit(1);
        }
    return (double)count / (now() - start);
}

/* Flat 64-bit code at 0x8000: arithmetic, loads and stores, calls. The first 2 MiB are mapped. */
static double loop(void)
{
    static const uint8_t code[] = {
        0x48, 0xff, 0xc0,                    /* 1: inc %rax */
        0x48, 0x01, 0xc3,                    /* add %rax, %rbx */
        0x48, 0x89, 0x03 + 0x1c,             /* mov %rbx, (%rdi) */
        0x48, 0x8b, 0x0f,                    /* mov (%rdi), %rcx */
        0xe8, 0x02, 0x00,        0x00, 0x00, /* call 2f */
        0xeb, 0xed,                          /* jmp 1b */
        0x48, 0x31, 0xca,                    /* 2: xor %rcx, %rdx */
        0xc3,                                /* ret */
    };
    struct vm *vm = calloc(1, sizeof *vm);
    struct vmcs *vmcs = machine(vm, 2 << 20);
    struct vcpu *cpu = vmcs->cpu;
    const uint64_t pml4 = 0x2000 | 3, pdpt = 0x3000 | 3, large = 0x83;
    memory_write(&vm->memory, 0x8000, code, sizeof code);
    memory_write(&vm->memory, 0x1000, &pml4, 8);
    memory_write(&vm->memory, 0x2000, &pdpt, 8);
    memory_write(&vm->memory, 0x3000, &large, 8);
    cpu->cr0 = CR0_PE | CR0_PG | CR0_ET;
    cpu->cr3 = 0x1000;
    cpu->cr4 = CR4_PAE;
    cpu->efer = EFER_LME | EFER_LMA;
    for (int n = SEG_ES; n <= SEG_GS; n++)
        cpu->segment[n] = (struct segment){
            .selector = 8, .limit = UINT32_MAX, .rights = n == SEG_CS ? 0xa09b : 0xc093};
    cpu->rip = 0x8000;
    cpu->r[RSP] = 0x20000;
    cpu->r[RDI] = 0x10000;
    vmcs_state_changed(vmcs);
    double rate = steps_a_second(vmcs, LOOP_STEPS);
    vmcs_destroy(vmcs);
    vm_destroy(vm);
    free(vm);
    return rate;
}

static double boot(const char *kernel)
{
    struct error err = {0};
    struct image image;
    struct vm *vm = calloc(1, sizeof *vm);
    struct vmcs *vmcs = machine(vm, 256 << 20);
    need(image_open(kernel, &image, &err) == 0 && loader_load(vm, &image, &err) == 0, &err);
    vmcs->activity = vmcs->cpu->activity;
    vmcs->limit = BOOT_FIRST;
    vm_enter(vmcs);
    vmcs->limit = 0;
    double rate = steps_a_second(vmcs, BOOT_STEPS);
    vmcs_destroy(vmcs);
    vm_destroy(vm);
    image_close(&image);
    free(vm);
    return rate;
}

int main(int argc, char **argv)
{
    printf("{\"loop_steps_a_second\": %.0f", loop());
    if (argc > 1)
        printf(", \"boot_steps_a_second\": %.0f", boot(argv[1]));
    puts("}");
    return 0;
}
