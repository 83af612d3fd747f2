/* SPDX-License-Identifier: MIT */
/* The processor state that the boot protocols begin with. */
#include "runtime/boot.h"

#include <string.h>

#include "runtime/vcpu.h"

enum { TSS_LIMIT = 0x67, PAGE_TABLES = 6 };

/* Flat descriptors (SDM 3A 3.4.5): base 0, limit 4 GB, accessed. */
#define CODE32 0x00cf9b000000ffffull
#define CODE64 0x00af9b000000ffffull
#define DATA32 0x00cf93000000ffffull
#define TSS(t) (0x0000800000000000ull | (uint64_t)(t) << 40 | TSS_LIMIT)

static void set_segment(struct vcpu *cpu, unsigned index, uint16_t selector, uint32_t rights,
                        uint32_t limit)
{
    cpu->segment[index] =
        (struct segment){.selector = selector, .rights = rights, .limit = limit, .base = 0};
}

/* Everything but mode and entry: flat segments on the GDT, no IDT, interrupts off, running. */
static void flat(struct vcpu *cpu, uint64_t gdt, uint16_t gdt_limit, uint32_t code_rights)
{
    uint32_t data = RIGHTS_P | RIGHTS_S | RIGHTS_WRITABLE | RIGHTS_ACCESSED | RIGHTS_DB | RIGHTS_G;
    set_segment(cpu, SEG_CS, BOOT_CS, code_rights, UINT32_MAX);
    for (unsigned i = 0; i < 6; i++)
        if (i != SEG_CS)
            set_segment(cpu, i, BOOT_DS, data, UINT32_MAX);
    set_segment(cpu, SEG_LDTR, 0, RIGHTS_UNUSABLE, 0);
    set_segment(cpu, SEG_TR, BOOT_TSS, RIGHTS_P | 0xb, TSS_LIMIT);
    cpu->gdt_base = gdt;
    cpu->gdt_limit = gdt_limit;
    cpu->idt_base = 0;
    cpu->idt_limit = 0;
    memset(cpu->r, 0, sizeof cpu->r);
    vcpu_set_rflags(cpu, RFLAGS_ONE);
    cpu->cpl = 0;
    cpu->shadow = 0;
    cpu->activity = ACTIVITY_ACTIVE;
}

#define CODE_RIGHTS                                                                                \
    (RIGHTS_P | RIGHTS_S | RIGHTS_CODE | RIGHTS_WRITABLE | RIGHTS_ACCESSED | RIGHTS_G)

int boot_protected_mode(struct boot *boot, uint64_t entry)
{
    static const uint64_t gdt[] = {0, 0, CODE32, DATA32, TSS(0xb)};
    struct vcpu *cpu = boot->vm->vcpus[0];
    uint64_t at;
    if (boot_place(boot, "the boot GDT", sizeof gdt, 8, BOOT_FIRST, BOOT_BELOW_4G, BOOT_LOWEST,
                   &at))
        return -1;
    boot_write(boot, at, gdt, sizeof gdt);
    flat(cpu, at, sizeof gdt - 1, CODE_RIGHTS | RIGHTS_DB);
    cpu->cr0 = CR0_PE | CR0_ET;
    cpu->cr3 = cpu->cr4 = cpu->efer = 0;
    cpu->rip = entry;
    vcpu_mode_changed(cpu);
    return 0;
}

/* Identity map of the first 4 GB in 2 MB pages: PML4, PDPT, four page directories. */
static void write_page_tables(struct boot *boot, uint64_t at)
{
    enum { PRESENT = 1, WRITABLE = 2, LARGE = 0x80, DIRECTORIES = 4, ENTRIES = 512 };
    uint64_t table[ENTRIES] = {(at + PAGE_SIZE) | PRESENT | WRITABLE};
    boot_write(boot, at, table, sizeof table);
    for (unsigned i = 0; i < DIRECTORIES; i++)
        table[i] = (at + (2 + i) * PAGE_SIZE) | PRESENT | WRITABLE;
    boot_write(boot, at + PAGE_SIZE, table, sizeof table);
    for (uint64_t i = 0; i < DIRECTORIES; i++) {
        for (uint64_t j = 0; j < ENTRIES; j++)
            table[j] = (i * ENTRIES + j) << 21 | PRESENT | WRITABLE | LARGE;
        boot_write(boot, at + (2 + i) * PAGE_SIZE, table, sizeof table);
    }
}

int boot_long_mode(struct boot *boot, uint64_t entry)
{
    static const uint64_t gdt[] = {0, 0, CODE64, DATA32, TSS(0xb), 0};
    struct vcpu *cpu = boot->vm->vcpus[0];
    uint64_t at, tables;
    if (boot_place(boot, "the boot GDT", sizeof gdt, 8, BOOT_FIRST, BOOT_LOW_END, BOOT_LOWEST,
                   &at) ||
        boot_place(boot, "the boot page tables", PAGE_TABLES * PAGE_SIZE, PAGE_SIZE, BOOT_FIRST,
                   BOOT_LOW_END, BOOT_LOWEST, &tables))
        return -1;
    boot_write(boot, at, gdt, sizeof gdt);
    write_page_tables(boot, tables);
    flat(cpu, at, sizeof gdt - 1, CODE_RIGHTS | RIGHTS_L);
    cpu->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    cpu->cr3 = tables;
    cpu->cr4 = CR4_PAE;
    cpu->efer = EFER_LME | EFER_LMA;
    cpu->rip = entry;
    vcpu_mode_changed(cpu);
    return 0;
}
