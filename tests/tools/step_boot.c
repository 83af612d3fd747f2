/* SPDX-License-Identifier: MIT */
/* Steps the boot of a kernel and runs it: both must come to the same state (S0, S1).
 *
 *     step_boot INSTRUCTIONS SMP KERNEL [CHECKPOINTS]
 *
 * Two machines in one process, deterministic: one runs, the other is stepped, each up to the same guest time at every
 * checkpoint. Prints a line each; the exit code is 1 if their states differ, or what their consoles have printed. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "image/image.h"
#include "runtime/console.h"
#include "runtime/loader.h"
#include "runtime/soft/engine.h"
#include "runtime/state_hash.h"
#include "runtime/vmcs.h"

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* A file for what a console prints; its name is to be freed. */
static char *console_file(void)
{
    char *path = strdup("/tmp/step_boot.XXXXXX");
    int fd = path ? mkstemp(path) : -1;
    if (fd < 0) {
        perror("step_boot: /tmp");
        exit(1);
    }
    close(fd);
    return path;
}

static struct image image; /* of both */

static struct vm *make(const char *kernel, unsigned smp, bool step)
{
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    vm->config = (struct vm_config){.kernel = kernel,
                                    .engine = "soft",
                                    .memory = 256ull << 20,
                                    .smp = smp,
                                    .serial = console_file(),
                                    .append = "console=ttyS0 earlyprintk=serial",
                                    .deterministic = true};
    vm->engine = &soft_engine;
    if ((!image.name && image_open(kernel, &image, &err) < 0) || vm_create(vm, &err) < 0 ||
        loader_load(vm, &image, &err) < 0) {
        fprintf(stderr, "step_boot: %s\n", err.text);
        exit(1);
    }
    vm->image = &image;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        struct vmcs *vmcs = vmcs_create(vm->vcpus[k], &err);
        if (!vmcs)
            exit(1);
        vmcs->single_step = step;
    }
    return vm;
}

static bool come_to(struct vm *vm, uint64_t instructions)
{
    while (soft_instructions(vm) < instructions) {
        struct vmcs *vmcs = vm->vcpus[0]->vmcs;
        if (!vmcs->single_step)
            vmcs->limit = instructions - soft_instructions(vm);
        if (vm->vcpu_count == 1)
            vm_enter(vmcs);
        else
            vmcs = vm_enter_any(vm);
        if (vmcs->exit_reason != VMCS_EXIT_STEP && vmcs->exit_reason != VMCS_EXIT_LIMIT) {
            printf("exit: %s\n", vmcs_exit_names[vmcs->exit_reason]);
            return false;
        }
    }
    return true;
}

/* All of what the console has printed; its length is in *length. To be freed. */
static char *printed(struct vm *vm, size_t *length)
{
    char *text = NULL;
    console_flush(vm);
    FILE *file = fopen(vm->config.serial, "r");
    FILE *all = open_memstream(&text, length);
    for (int c; file && all && (c = getc(file)) != EOF;)
        putc(c, all);
    if (!file || !all || fclose(all) || fclose(file)) {
        perror("step_boot: console");
        exit(1);
    }
    return text;
}

static bool same_console(struct vm *runs, struct vm *steps, size_t *length)
{
    size_t other;
    char *a = printed(runs, length), *b = printed(steps, &other);
    bool same = *length == other && memcmp(a, b, other) == 0;
    free(a);
    free(b);
    return same;
}

/* What is not the same. */
static void show_difference(const struct vm *runs, const struct vm *steps)
{
    unsigned shown = 0;
    printf("instructions %" PRIu64 " and %" PRIu64 "\n", soft_instructions(runs),
           soft_instructions(steps));
    for (unsigned k = 0; k < runs->vcpu_count; k++)
        if (vcpu_state_hash(runs->vcpus[k]) != vcpu_state_hash(steps->vcpus[k]))
            printf("vCPU %u: RIP 0x%" PRIx64 " and 0x%" PRIx64 "\n", k, runs->vcpus[k]->rip,
                   steps->vcpus[k]->rip);
    for (uint64_t at = 0; at < runs->memory.size && shown < 8; at += 8) {
        uint64_t a, b;
        memcpy(&a, runs->memory.host + at, 8);
        memcpy(&b, steps->memory.host + at, 8);
        if (a != b)
            printf("memory at 0x%" PRIx64 ": %016" PRIx64 " %016" PRIx64 "\n", at, a, b), shown++;
    }
}

static void unmake(struct vm *vm)
{
    char *console = (char *)(uintptr_t)vm->config.serial;
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        vmcs_destroy(vm->vcpus[k]->vmcs);
    vm_destroy(vm);
    unlink(console);
    free(console);
    free(vm);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    uint64_t total = strtoull(argv[1], NULL, 0), points = argc > 4 ? strtoull(argv[4], NULL, 0) : 1;
    unsigned smp = (unsigned)atoi(argv[2]);
    struct vm *runs = make(argv[3], smp, false), *steps = make(argv[3], smp, true);
    double run_time = 0, step_time = 0;
    int result = 0;
    for (uint64_t n = 1; n <= points && result == 0; n++) {
        double start = now();
        bool good = come_to(runs, total / points * n);
        double middle = now();
        good = good && come_to(steps, soft_instructions(runs)); /* with several, that may be more */
        step_time += now() - middle;
        run_time += middle - start;
        uint64_t a = vm_state_hash(runs), b = vm_state_hash(steps);
        size_t length;
        bool same = same_console(runs, steps, &length);
        printf("%" PRIu64 " instructions: run %016" PRIx64 ", stepped %016" PRIx64 " at 0x%" PRIx64
               ", %zu bytes printed%s\n",
               soft_instructions(steps), a, b, steps->vcpus[0]->rip, length,
               same ? "" : ", not the same");
        if (!good || a != b || !same) {
            if (a != b)
                show_difference(runs, steps);
            result = 1;
        }
    }
    printf("%" PRIu64 " steps in %.2f s; run in %.2f s (of the processor)\n", steps->stats.steps,
           step_time, run_time);
    unmake(runs);
    unmake(steps);
    image_close(&image);
    return result;
}
