/* SPDX-License-Identifier: MIT */
/* Addresses that control may reach other than by falling through or by a direct branch, as Linux'
 * tables, its symbols and its relocations tell. */
#include "patchc/linux_tables.h"

#include <string.h>

#include "patchc/linux_text.h"

struct teller {
    const struct linux_text *text;
    void (*target)(void *context, uint64_t address);
    void *context;
};

static void tell(const struct teller *teller, uint64_t address)
{
    if (linux_text_holds(teller->text, address))
        teller->target(teller->context, address);
}

static void tell_tables(const struct teller *teller, const struct linux_tables *tables)
{
    const struct linux_table *ex = &tables->table[LINUX_EX_TABLE];
    for (size_t i = 0; i < ex->count; i++)
        tell(teller, ex->entries[i].second);
    const struct linux_table *jump = &tables->table[LINUX_JUMP_TABLE];
    for (size_t i = 0; i < jump->count; i++) {
        tell(teller, jump->entries[i].second);
        /* The label may be a no-operation by then. */
        tell(teller, jump->entries[i].address + jump->entries[i].length);
    }
    /* A warning returns behind its UD2. */
    const struct linux_table *bug = &tables->table[LINUX_BUG_TABLE];
    for (size_t i = 0; i < bug->count; i++)
        tell(teller, bug->entries[i].address + 2);
}

static bool within(const struct linux_table *table, uint64_t address)
{
    return address >= table->start && address < table->end;
}

/* Text addresses stored in the image: function pointers, switch tables, immediates. The kernel uses
 * those in .parainstructions and __mcount_loc to patch, never to branch. */
static void tell_relocs(const struct teller *teller, const struct linux_tables *tables,
                        const struct image *image, const struct relocs *relocs,
                        enum reloc_kind kind)
{
    const uint64_t size = kind == RELOC_64 ? 8 : 4;
    for (size_t i = 0; i < relocs->count[kind]; i++) {
        uint32_t word = relocs_word(relocs, kind, i);
        uint64_t offset, value = 0;
        uint64_t place = relocs_address(word);
        if (within(&tables->table[LINUX_PARAVIRT], place) ||
            within(&tables->table[LINUX_MCOUNT], place) || !relocs_offset(image, word, &offset) ||
            image->size < size || offset > image->size - size)
            continue;
        memcpy(&value, image->bytes + offset, size);
        tell(teller, kind == RELOC_64 ? value : (uint64_t)(int64_t)(int32_t)value);
    }
}

int linux_tables_targets(const struct linux_tables *tables, const struct image *image,
                         const struct relocs *relocs,
                         void (*target)(void *context, uint64_t address), void *context)
{
    struct linux_text text;
    if (linux_text_open(image, &text, NULL))
        return -1;
    struct teller teller = {&text, target, context};
    tell_tables(&teller, tables);
    for (size_t i = 0; i < image->symbol_count; i++)
        tell(&teller, image->symbols[i].address);
    if (relocs && relocs->present) {
        tell_relocs(&teller, tables, image, relocs, RELOC_64);
        tell_relocs(&teller, tables, image, relocs, RELOC_32);
    }
    linux_text_close(&text);
    return 0;
}
