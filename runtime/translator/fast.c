/* SPDX-License-Identifier: MIT */
/* The memory of a vCPU with the tables of translated code behind it. */
#include "runtime/translator/fast.h"

#include <string.h>
#include <sys/mman.h>

#include "runtime/translator/layout.h"

/* Translated code runs with the stack pointer below the vCPU. A return address comes here, and a signal's frame. */
#define STACK_BYTES (64u << 10)
#define GUARD_BYTES 4096u /* of it, at the end */

static void prepare(struct fast *fast)
{
    for (unsigned mode = 0; mode < FAST_MODES; mode++) {
        for (unsigned slot = 0; slot < 2; slot++)
            fast->page[mode][FAST_READ][slot] = fast->page[mode][FAST_WRITE][slot] =
                fast_no_page(slot);
        fast->rip[mode][0] = fast_no_rip(0);
    }
}

struct vcpu *fast_allocate(void)
{
    size_t size = STACK_BYTES + FAST_OFFSET + sizeof(struct fast);
    uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (mprotect(memory, GUARD_BYTES, PROT_NONE)) {
        munmap(memory, size);
        return NULL;
    }
    struct vcpu *cpu = (struct vcpu *)(memory + STACK_BYTES);
    cpu->fast = (struct fast *)((uint8_t *)cpu + FAST_OFFSET);
    prepare(cpu->fast);
    return cpu;
}

void fast_release(struct vcpu *cpu)
{
    if (cpu)
        munmap((uint8_t *)cpu - STACK_BYTES, STACK_BYTES + FAST_OFFSET + sizeof(struct fast));
}

void fast_clear(struct vcpu *cpu)
{
    if (!cpu->fast)
        return;
    madvise(cpu->fast, sizeof *cpu->fast, MADV_DONTNEED);
    prepare(cpu->fast);
}
