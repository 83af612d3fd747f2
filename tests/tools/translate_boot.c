/* SPDX-License-Identifier: MIT */
/* Boots a kernel translated and interpreted: both must come to the same state, all the way.
 *
 *     translate_boot INSTRUCTIONS SMP KERNEL [INITRD [SEED]]
 *
 * With another SEED RDRAND gives other numbers: addresses are others, too. Two machines in one process, deterministic, go on by turns: after some thousand instructions, another number
 * each time, the vCPUs' registers must agree, and now and then all of memory. The exit code is 1 if they do not. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image/image.h"
#include "runtime/loader.h"
#include "runtime/soft/engine.h"
#include "runtime/state_hash.h"
#include "runtime/translator/translator.h"
#include "runtime/vmcs.h"

#define MEMORY_EVERY 50000000u /* instructions between two looks at all of memory */
#define STRIDE       4000u     /* at most so many between two looks at the registers */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static struct image image; /* of both */

static struct vm *make(char **argv, const char *seed, bool translator)
{
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    vm->config = (struct vm_config){.kernel = argv[3],
                                    .engine = "soft",
                                    .memory = 256ull << 20,
                                    .smp = (unsigned)atoi(argv[2]),
                                    .initrd = argv[4],
                                    .append = "console=ttyS0 earlyprintk=serial",
                                    .translator = translator,
                                    .deterministic = true};
    vm->engine = &soft_engine;
    if ((!image.name && image_open(argv[3], &image, &err) < 0) || vm_create(vm, &err) < 0 ||
        loader_load(vm, &image, &err) < 0) {
        fprintf(stderr, "translate_boot: %s\n", err.text);
        exit(1);
    }
    vm->image = &image;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        if (!vmcs_create(vm->vcpus[k], &err))
            exit(1);
        if (seed)
            vm->vcpus[k]->random = strtoull(seed, NULL, 0);
    }
    return vm;
}

static void unmake(struct vm *vm)
{
    for (unsigned k = 0; k < vm->vcpu_count; k++)
        vmcs_destroy(vm->vcpus[k]->vmcs);
    vm_destroy(vm);
    free(vm);
}

/* False: the machine has stopped. */
static bool come_to(struct vm *vm, uint64_t instructions)
{
    while (soft_instructions(vm) < instructions) {
        struct vmcs *vmcs = vm->vcpus[0]->vmcs;
        vmcs->limit = instructions - soft_instructions(vm);
        if (vm->vcpu_count == 1)
            vm_enter(vmcs);
        else
            vmcs = vm_enter_any(vm);
        if (vmcs->exit_reason != VMCS_EXIT_LIMIT)
            return false;
    }
    return true;
}

static bool registers_agree(const struct vm *a, const struct vm *b)
{
    if (soft_instructions(a) != soft_instructions(b))
        return false;
    for (unsigned k = 0; k < a->vcpu_count; k++)
        if (vcpu_state_hash(a->vcpus[k]) != vcpu_state_hash(b->vcpus[k]))
            return false;
    return true;
}

static void show_difference(const struct vm *a, const struct vm *b)
{
    unsigned shown = 0;
    printf("instructions %" PRIu64 " translated, %" PRIu64 " interpreted\n", soft_instructions(a),
           soft_instructions(b));
    for (unsigned k = 0; k < a->vcpu_count; k++) {
        const struct vcpu *x = a->vcpus[k], *y = b->vcpus[k];
        printf("vCPU %u: RIP 0x%" PRIx64 " and 0x%" PRIx64 ", RFLAGS %" PRIx64 " and %" PRIx64 "\n",
               k, x->rip, y->rip, vcpu_rflags(x), vcpu_rflags(y));
        for (unsigned n = 0; n < 16; n++)
            if (x->r[n] != y->r[n])
                printf("  r%u: %" PRIx64 " and %" PRIx64 "\n", n, x->r[n], y->r[n]);
    }
    for (uint64_t at = 0; at < a->memory.size && shown < 8; at += 8) {
        uint64_t p, q;
        memcpy(&p, a->memory.host + at, 8);
        memcpy(&q, b->memory.host + at, 8);
        if (p != q)
            printf("memory at 0x%" PRIx64 ": %016" PRIx64 " %016" PRIx64 "\n", at, p, q), shown++;
    }
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    uint64_t total = strtoull(argv[1], NULL, 0), at = 0, memory_at_next = MEMORY_EVERY, random = 1;
    const char *seed = argc > 5 ? argv[5] : NULL;
    struct vm *a = make(argv, seed, true), *b = make(argv, seed, false);
    double translated = 0, interpreted = 0;
    bool running = true;
    if (!a->soft->translator) {
        printf("skip: %s\n", translator_missing());
        return 0;
    }
    while (running && at < total) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        at += 1 + (random >> 40) % STRIDE;
        double start = now();
        running = come_to(a, at);
        double middle = now();
        bool too = come_to(b, at);
        interpreted += now() - middle;
        translated += middle - start;
        bool agree = running == too && registers_agree(a, b);
        if (agree && (!running || at >= memory_at_next)) {
            memory_at_next = at + MEMORY_EVERY;
            agree = vm_state_hash(a) == vm_state_hash(b);
        }
        if (!agree) {
            show_difference(a, b);
            return 1;
        }
    }
    const struct translator_stats *stats = translator_stats(a->soft->translator);
    printf("%" PRIu64 " instructions agree%s; %" PRIu64 " blocks translated; %.2f s translated, "
           "%.2f s interpreted\n",
           soft_instructions(a), running ? "" : ", to the end", stats->blocks, translated,
           interpreted);
    unmake(a);
    unmake(b);
    image_close(&image);
    return 0;
}
