/* SPDX-License-Identifier: MIT */
/* A vCPU with memory, a bus with one device and page tables to build. */
#include "tests/unit/mmu_lab.h"

#include <assert.h>
#include <stdlib.h>

static uint64_t device_read(void *device, uint64_t offset, unsigned width)
{
    struct mmu_lab *lab = device;
    uint64_t value = 0;
    memcpy(&value, lab->registers + offset, width);
    if (lab->seen_count < 32)
        lab->seen[lab->seen_count++] = (struct mmu_lab_access){false, offset, value, width};
    return value;
}

static void device_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct mmu_lab *lab = device;
    memcpy(lab->registers + offset, &value, width);
    if (lab->seen_count < 32)
        lab->seen[lab->seen_count++] = (struct mmu_lab_access){true, offset, value, width};
}

static void changed(void *context, uint64_t physical, uint64_t length)
{
    struct mmu_lab *lab = context;
    lab->changed_at = physical;
    lab->changed_length = length;
    lab->changes++;
}

static void set_mode(struct mmu_lab *lab)
{
    struct vcpu *cpu = lab->cpu;
    bool wide = lab->paging == MMU_LAB_LONG;
    cpu->cr0 = CR0_PE | CR0_ET | CR0_WP | (lab->paging == MMU_LAB_OFF ? 0 : CR0_PG);
    cpu->cr3 = MMU_LAB_ROOT;
    cpu->cr4 = lab->paging >= MMU_LAB_PAE ? CR4_PAE : CR4_PSE;
    cpu->efer = EFER_NXE | (wide ? EFER_LME | EFER_LMA : 0);
    for (unsigned n = SEG_ES; n <= SEG_GS; n++)
        cpu->segment[n] = (struct segment){.limit = UINT32_MAX, .rights = 0xc093, .selector = 0x10};
    cpu->segment[SEG_CS].rights = wide ? 0xa09b : 0xc09b;
    cpu->segment[SEG_CS].selector = 8;
    vcpu_mode_changed(cpu);
}

struct mmu_lab *mmu_lab_create(enum mmu_lab_paging paging)
{
    struct mmu_lab *lab = calloc(1, sizeof *lab);
    struct error err = {0};
    assert(lab);
    lab->paging = paging;
    lab->next_table = MMU_LAB_TABLES + PAGE_SIZE;
    if (memory_create(&lab->vm.memory, MMU_LAB_RAM, &err))
        abort();
    lab->vm.memory.code_changed = changed;
    lab->vm.memory.code_context = lab;
    struct bus_window window = {.name = "lab",
                                .first = MMU_LAB_DEVICE,
                                .count = sizeof lab->registers,
                                .read = device_read,
                                .write = device_write,
                                .device = lab};
    if (bus_add_mmio(&lab->vm.bus, &window, &err))
        abort();
    lab->cpu = vcpu_create(&lab->vm, 0);
    assert(lab->cpu);
    lab->vm.vcpus[0] = lab->vm.running = lab->cpu;
    lab->vm.vcpu_count = 1;
    set_mode(lab);

    lab->block = calloc(1, sizeof *lab->block + 3 * sizeof lab->block->insns[0]);
    assert(lab->block);
    lab->block->count = 3;
    for (uint8_t n = 0; n < 3; n++)
        lab->block->insns[n] = (struct insn){.position = n,
                                             .offset = n * 4,
                                             .length = 4,
                                             .base = offsetof(struct vcpu, r[REG_ZERO]),
                                             .index = offsetof(struct vcpu, r[REG_ZERO]),
                                             .segment = SEG_DS};
    lab->cpu->block = lab->block;
    return lab;
}

void mmu_lab_free(struct mmu_lab *lab)
{
    vcpu_destroy(lab->cpu);
    memory_destroy(&lab->vm.memory);
    free(lab->block);
    free(lab);
}

void mmu_lab_user(struct mmu_lab *lab, bool user)
{
    struct segment *cs = &lab->cpu->segment[SEG_CS];
    cs->rights = (cs->rights & ~0x60u) | (user ? 0x60u : 0);
    cs->selector = user ? 0x1b : 8;
    vcpu_mode_changed(lab->cpu);
}

void *mmu_lab_at(struct mmu_lab *lab, uint64_t physical)
{
    return lab->vm.memory.host + physical;
}

/* Shape of the structures: number of levels, bytes of an entry. */
static unsigned top(const struct mmu_lab *lab)
{
    return lab->paging == MMU_LAB_LONG ? 4 : lab->paging == MMU_LAB_PAE ? 3 : 2;
}

static uint8_t *entry_in(struct mmu_lab *lab, uint64_t table, uint64_t linear, unsigned level)
{
    if (lab->paging == MMU_LAB_32)
        return (uint8_t *)mmu_lab_at(lab, table) + (linear >> (2 + 10 * level) & 0x3ff) * 4;
    return (uint8_t *)mmu_lab_at(lab, table) + (linear >> (3 + 9 * level) & 0x1ff) * 8;
}

static uint64_t get(const struct mmu_lab *lab, const uint8_t *entry)
{
    uint64_t value = 0;
    memcpy(&value, entry, lab->paging == MMU_LAB_32 ? 4 : 8);
    return value;
}

static void put(const struct mmu_lab *lab, uint8_t *entry, uint64_t value)
{
    memcpy(entry, &value, lab->paging == MMU_LAB_32 ? 4 : 8);
}

static unsigned shift_of(const struct mmu_lab *lab, unsigned level)
{
    return lab->paging == MMU_LAB_32 ? 2 + 10 * level : 3 + 9 * level;
}

void *mmu_lab_map(struct mmu_lab *lab, uint64_t linear, uint64_t physical, unsigned shift,
                  uint64_t leaf, uint64_t upper)
{
    uint64_t table = MMU_LAB_ROOT;
    for (unsigned level = top(lab);; level--) {
        uint8_t *entry = entry_in(lab, table, linear, level);
        if (shift_of(lab, level) == shift) {
            put(lab, entry, physical | leaf | (level > 1 ? PTE_PS : 0));
            return entry;
        }
        uint64_t next = get(lab, entry) & 0xfffff000;
        if (!next) {
            next = lab->next_table;
            lab->next_table += PAGE_SIZE;
        }
        /* PDPTEs of PAE paging have no mode bits */
        put(lab, entry, next | (lab->paging == MMU_LAB_PAE && level == 3 ? PTE_P : upper));
        table = next;
    }
}

void *mmu_lab_entry(struct mmu_lab *lab, uint64_t linear, unsigned level)
{
    uint64_t table = MMU_LAB_ROOT;
    for (unsigned at = top(lab);; at--) {
        uint8_t *entry = entry_in(lab, table, linear, at);
        if (at == level)
            return entry;
        table = get(lab, entry) & 0xfffff000;
        if (!table)
            return NULL;
    }
}
