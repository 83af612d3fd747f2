/* SPDX-License-Identifier: MIT */
/* Finds tables of a Linux image by name of their section or by their content.
 *
 * A kernel built with CONFIG_KALLSYMS_ALL=n has no symbols for data, so nothing says where the
 * tables are that the linker script merges into larger sections. Their entries are peculiar enough
 * to be found: a run of entries of which each names the right kind of code is the table, if there
 * is only one long run. */
#include "patchc/linux_search.h"

#include <elf.h>
#include <string.h>

/* Sections of an x86-64 vmlinux without tables of code addresses of unknown meaning: plain code and
 * data, tables that are read elsewhere, and lists of functions (which are symbols, hence known). */
static const char *const known_sections[] = {
    ".text",
    ".rodata",
    ".pci_fixup",
    "__ksymtab",
    "__ksymtab_gpl",
    "__kcrctab",
    "__kcrctab_gpl",
    "__ksymtab_strings",
    "__param",
    "__modver",
    "__ex_table",
    ".notes",
    ".BTF",
    ".BTF_ids",
    ".BTF.base",
    ".data",
    "__bug_table",
    ".orc_unwind_ip",
    ".orc_unwind",
    ".orc_header",
    ".orc_lookup",
    ".vvar",
    ".data..percpu",
    ".init.text",
    ".altinstr_aux",
    ".init.data",
    ".x86_cpu_dev.init",
    ".x86_intel_mid_dev.init",
    ".iommu_table",
    ".parainstructions",
    ".retpoline_sites",
    ".return_sites",
    ".altinstructions",
    ".altinstr_replacement",
    ".apicdrivers",
    ".exit.text",
    ".exit.data",
    ".smp_locks",
    ".data_nosave",
    ".bss",
    ".brk",
    ".init.scratch",
    ".init.rodata",
    ".builtin_fw",
    ".tracedata",
    ".rodata1",
    ".data.rel.ro",
    ".data..init_irqstack",
    ".eh_frame",
    ".head.text",
    ".static_call.text",
    ".data..ro_after_init",
    ".bss..decrypted",
    ".data..decrypted",
    ".hyperv_hypercall",
    ".runtime_const",
    ".printk_index",
};

static const char *const pinned_sections[] = {
    ".call_sites",     /* calls that call-depth tracking rewrites */
    ".cfi_sites",      /* FineIBT preambles */
    ".ibt_endbr_seal", /* ENDBRs that are erased at boot */
    ".kcfi_traps",     /* UD2s of kCFI checks */
};

static bool is_among(const char *name, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

enum linux_section linux_section_kind(const struct image_section *section)
{
    if (!(section->flags & SHF_ALLOC) || section->type != SHT_PROGBITS)
        return LINUX_SECTION_OTHER;
    if (is_among(section->name, pinned_sections, sizeof pinned_sections / sizeof *pinned_sections))
        return LINUX_SECTION_PINNED;
    if ((section->flags & SHF_EXECINSTR) || !strncmp(section->name, ".debug", 6) ||
        is_among(section->name, known_sections, sizeof known_sections / sizeof *known_sections))
        return LINUX_SECTION_OTHER;
    return LINUX_SECTION_UNKNOWN;
}

struct hunt {
    const struct linux_text *text;
    uint64_t low, high; /* guest-linear extent of the image */
    uint64_t previous;  /* last entry's code address */
    uint64_t callee;    /* what the run's calls call; 0: first entry */
};

static int32_t get_s32(const uint8_t *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* s32 code, s32 target, s64 key: a jump label with its jump, and a key in the image. */
static bool is_jump(struct hunt *hunt, const uint8_t *bytes, uint64_t slot)
{
    uint64_t address = slot + (uint64_t)(int64_t)get_s32(bytes), available;
    uint64_t target = slot + 4 + (uint64_t)(int64_t)get_s32(bytes + 4), key;
    memcpy(&key, bytes + 8, sizeof key);
    key += slot + 8;
    if (key < hunt->low || key >= hunt->high || linux_text_holds(hunt->text, key) ||
        !linux_text_holds(hunt->text, target))
        return false;
    const uint8_t *code = linux_text_span(hunt->text, address, &available);
    bool jump;
    int32_t displacement;
    unsigned length = code ? linux_jump_label(code, available, &jump, &displacement) : 0;
    return length && (!jump || address + length + (uint64_t)(int64_t)displacement == target);
}

/* s32 address, s32 key: a direct branch to a trampoline, which carries the mark UD1 0xcc. */
static bool is_static_call(struct hunt *hunt, const uint8_t *bytes, uint64_t slot)
{
    static const uint8_t mark[] = {0x0f, 0xb9, 0xcc};
    uint64_t address = slot + (uint64_t)(int64_t)get_s32(bytes), available;
    uint64_t key = slot + 4 + (uint64_t)(int64_t)get_s32(bytes + 4);
    if (key < hunt->low || key >= hunt->high)
        return false;
    const uint8_t *code = linux_text_span(hunt->text, address, &available);
    unsigned length = code ? linux_branch(code, available) : 0;
    if (!length)
        return false;
    address += length + (uint64_t)(int64_t)get_s32(code + length - 4);
    code = linux_text_span(hunt->text, address, &available);
    return code && available >= 8 && !memcmp(code + 5, mark, sizeof mark);
}

/* u64: a call, to the same function as all others; ascending (the build sorts them). */
static bool is_mcount(struct hunt *hunt, const uint8_t *bytes, uint64_t slot)
{
    (void)slot;
    uint64_t address, available;
    memcpy(&address, bytes, sizeof address);
    const uint8_t *code = linux_text_span(hunt->text, address, &available);
    if (!code || available < 5 || code[0] != 0xe8)
        return false;
    uint64_t callee = address + 5 + (uint64_t)(int64_t)get_s32(code + 1);
    if (hunt->callee && (callee != hunt->callee || address <= hunt->previous))
        return false;
    hunt->callee = callee;
    hunt->previous = address;
    return true;
}

static const struct form {
    unsigned size; /* bytes of an entry */
    bool (*matches)(struct hunt *hunt, const uint8_t *bytes, uint64_t slot);
} forms[LINUX_TABLES] = {
    [LINUX_JUMP_TABLE] = {16, is_jump},
    [LINUX_STATIC_CALLS] = {8, is_static_call},
    [LINUX_MCOUNT] = {8, is_mcount},
};

struct candidate {
    uint64_t start;
    size_t count;  /* entries; 0: none yet */
    size_t second; /* entries of the next-longest run */
};

/* Looks for runs of entries in one part of the image; they begin at multiples of 8. */
static void scan(struct hunt *hunt, const struct form *form, const uint8_t *bytes, uint64_t address,
                 uint64_t size, struct candidate *best)
{
    uint64_t at = -address & 7;
    while (at <= size && size - at >= form->size) {
        size_t count = 0;
        uint64_t start = at;
        hunt->callee = 0;
        for (; size - at >= form->size && form->matches(hunt, bytes + at, address + at);
             at += form->size)
            count++;
        if (count > best->count) {
            best->second = best->count;
            best->count = count;
            best->start = address + start;
        } else if (count > best->second) {
            best->second = count;
        }
        if (!count)
            at += 8;
    }
}

bool linux_search(const struct image *image, const struct linux_text *text,
                  enum linux_table_kind kind, uint64_t *start, uint64_t *end)
{
    enum { SHORTEST = 8, STANDS_OUT = 8 }; /* entries; times as long as the next candidate */
    const struct form *form = &forms[kind];
    if (!form->matches)
        return false;
    struct hunt hunt = {.text = text, .low = UINT64_MAX};
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *segment = &image->segments[i];
        if (segment->type != PT_LOAD || !segment->vaddr)
            continue;
        if (segment->vaddr < hunt.low)
            hunt.low = segment->vaddr;
        if (segment->vaddr + segment->mem_size > hunt.high)
            hunt.high = segment->vaddr + segment->mem_size;
    }
    struct candidate best = {0};
    for (size_t i = 0; i < image->section_count; i++) {
        const struct image_section *section = &image->sections[i];
        const uint8_t *bytes;
        if (section->type == SHT_PROGBITS && (section->flags & SHF_ALLOC) &&
            !(section->flags & SHF_EXECINSTR) && section->address &&
            (bytes = image_at(image, section->address, section->size)))
            scan(&hunt, form, bytes, section->address, section->size, &best);
    }
    for (size_t i = 0; i < image->segment_count && !image->section_count; i++) {
        const struct image_segment *segment = &image->segments[i];
        const uint8_t *bytes;
        if (segment->type == PT_LOAD &&
            (bytes = image_at(image, segment->vaddr, segment->file_size)))
            scan(&hunt, form, bytes, segment->vaddr, segment->file_size, &best);
    }
    if (best.count < SHORTEST || best.count / STANDS_OUT < best.second)
        return false;
    *start = best.start;
    *end = best.start + best.count * form->size;
    return true;
}
