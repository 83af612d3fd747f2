/* SPDX-License-Identifier: MIT */
/* Fuzzes patchc/linux_tables.c, linux_search.c and linux_targets.c with a small image assembled
 * from the input: records of a kind (1 byte), a size (2 bytes) and that many bytes. 0 to 10   a
 * section, by number in `names` 11 to 13  a table in a section of its own, with the two symbols
 * that bound it 14        a symbol: its name by number (first byte), its address as u32 offset from
 * the text 15        the relocation table 16        code in front of the fixed code The text holds
 * the instructions that tables name, at the offsets of `code`. */
#include "tests/linux_image.h"

#include <stdio.h>

#include "patchc/linux_tables.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {
    "__ex_table",       "__bug_table",   ".altinstructions", ".parainstructions",
    ".retpoline_sites", ".return_sites", ".smp_locks",       ".data",
    ".init.data",       ".call_sites",   ".never_seen"};
static const char *const bounds[][2] = {{"__start___jump_table", "__stop___jump_table"},
                                        {"__start_static_call_sites", "__stop_static_call_sites"},
                                        {"__start_mcount_loc", "__stop_mcount_loc"}};
static const char banner[] = "Linux version 6.1.0-fuzz (fuzz@fuzz)";

/* UD2 at 0; CALL at 8 and JMP at 16, to 64; LOCK at 24; NOPs at 32 and 40; trampoline at 64. */
static const uint8_t code[96] = {
    [0] = 0x0f,  [1] = 0x0b,  [8] = 0xe8,  [9] = 51,    [16] = 0xe9, [17] = 43,
    [24] = 0xf0, [25] = 0xff, [26] = 0x00, [32] = 0x66, [33] = 0x90, [40] = 0x0f,
    [41] = 0x1f, [42] = 0x44, [64] = 0xe9, [69] = 0x0f, [70] = 0xb9, [71] = 0xcc};

enum { KIND_BOUNDED = 11, KIND_SYMBOL = 14, KIND_RELOCS, KIND_CODE };

static void record(struct linux_image *li, unsigned kind, const uint8_t *bytes, size_t size)
{
    if (li->section_count == LINUX_IMAGE_SECTIONS || li->symbol_count + 2 > LINUX_IMAGE_SYMBOLS)
        return;
    if (kind < KIND_BOUNDED) {
        linux_image_add(li, names[kind], 0, bytes, size);
    } else if (kind < KIND_SYMBOL) {
        uint64_t start = linux_image_add(li, ".rodata1", 0, bytes, size);
        linux_image_symbol(li, bounds[kind - KIND_BOUNDED][0], start);
        linux_image_symbol(li, bounds[kind - KIND_BOUNDED][1], start + size);
    } else if (kind == KIND_SYMBOL && size >= 5) {
        uint32_t offset;
        memcpy(&offset, bytes + 1, sizeof offset);
        linux_image_symbol(li, bounds[bytes[0] / 2 % 3][bytes[0] % 2], LINUX_IMAGE_TEXT + offset);
    } else if (kind == KIND_RELOCS) {
        li->trailer = bytes;
        li->trailer_size = size;
    } else if (kind == KIND_CODE) {
        linux_image_add(li, ".init.text", SHF_EXECINSTR, bytes, size);
    }
}

static void count(void *context, uint64_t address)
{
    (void)address;
    ++*(size_t *)context;
}

static void use(const struct image *image)
{
    struct linux_tables tables;
    struct relocs relocs;
    struct error err = {0};
    if (linux_tables_read(image, &tables, &err)) {
        if (!err.code || !err.text[0])
            abort();
        return;
    }
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
        const struct linux_table *table = &tables.table[kind];
        size_t first, all = linux_table_range(table, 0, UINT64_MAX, &first);
        if (all != table->count)
            abort();
        for (size_t i = 1; i < table->count; i++)
            if (table->entries[table->by_address[i - 1]].address >
                table->entries[table->by_address[i]].address)
                abort();
    }
    size_t targets = 0;
    if (relocs_read(image, &relocs, &err))
        relocs.present = false;
    if (linux_tables_targets(&tables, image, &relocs, count, &targets))
        abort();
    linux_tables_close(&tables);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct linux_image li = {0};
    if (!size)
        return 0;
    li.headerless = data[0] & 1;
    linux_image_add(&li, ".text", SHF_EXECINSTR, code, sizeof code);
    linux_image_add(&li, ".rodata", 0, banner, sizeof banner);
    for (size_t at = 1; at + 3 <= size;) {
        size_t length = (size_t)(data[at + 1] | data[at + 2] << 8);
        unsigned kind = data[at];
        at += 3;
        if (length > size - at)
            length = size - at;
        record(&li, kind, data + at, length);
        at += length;
    }
    struct image image;
    struct error err = {0};
    size_t bytes_size;
    uint8_t *bytes = linux_image_build(&li, &bytes_size);
    if (!image_from_memory("fuzz", bytes, bytes_size, &image, &err)) {
        use(&image);
        image_close(&image);
    }
    free(bytes);
    return 0;
}
