/* SPDX-License-Identifier: MIT */
/* Reads the tables by which a Linux kernel finds or rewrites its own code.
 *
 * A kind of table is a row of `kinds`: where it is (a section, or two symbols the linker script
 * defines), how long an entry is, and a function that turns an entry into addresses and says what
 * is wrong with it. Entries are believed only after a look at the code they name: a table of return
 * sites names jumps, a bug table UD2s. Lengths of entries that changed between kernel versions are
 * told apart the same way. */
#include "patchc/linux_tables.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/linux_search.h"
#include "patchc/linux_text.h"

struct reader {
    const struct image *image;
    struct linux_tables *tables;
    struct linux_text text;
    struct error *err;
};

/* Fills entry (its slot is set) from its `size` bytes; returns NULL, or what is wrong. */
typedef const char *parse_function(const struct reader *reader, const uint8_t *bytes, unsigned size,
                                   struct linux_entry *entry);

static int32_t get_s32(const uint8_t *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static uint64_t get_u64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* The address that the s32 at offset `field` of the entry names, relative to itself. */
static uint64_t relative(const struct linux_entry *entry, const uint8_t *bytes, unsigned field)
{
    return entry->slot + field + (uint64_t)(int64_t)get_s32(bytes + field);
}

static const char *parse_ex(const struct reader *reader, const uint8_t *bytes, unsigned size,
                            struct linux_entry *entry)
{
    (void)size;
    entry->address = relative(entry, bytes, 0);
    entry->second = relative(entry, bytes, 4);
    entry->data = (uint32_t)get_s32(bytes + 8);
    entry->length = 1;
    if (!linux_text_holds(&reader->text, entry->address))
        return "the instruction is not in an executable section";
    if (!linux_text_holds(&reader->text, entry->second))
        return "the fixup is not in an executable section";
    return NULL;
}

static const char *parse_bug(const struct reader *reader, const uint8_t *bytes, unsigned size,
                             struct linux_entry *entry)
{
    entry->address = relative(entry, bytes, 0);
    entry->length = 1;
    entry->data = get_u16(bytes + (size == 8 ? 4 : size - 2));
    uint64_t available;
    const uint8_t *code = linux_text_span(&reader->text, entry->address, &available);
    return code && available >= 2 && code[0] == 0x0f && code[1] == 0x0b ? NULL : "there is no UD2";
}

/* struct alt_instr: 12 bytes; 14 with 32 bits of feature and flags (from 6.3 on); 13 with the
 * length of padding (before 5.14). */
static const char *parse_alternative(const struct reader *reader, const uint8_t *bytes,
                                     unsigned size, struct linux_entry *entry)
{
    unsigned lengths = size == 14 ? 12 : 10;
    entry->address = relative(entry, bytes, 0);
    entry->second = relative(entry, bytes, 4);
    entry->data = size == 14 ? (uint32_t)get_s32(bytes + 8) : get_u16(bytes + 8);
    entry->length = bytes[lengths];
    entry->extra = bytes[lengths + 1];
    uint64_t available;
    if (!linux_text_span(&reader->text, entry->address, &available) || available < entry->length)
        return "the instructions are not in an executable section";
    if (entry->extra > entry->length)
        return "the replacement is longer than what it replaces";
    if (entry->extra &&
        (!linux_text_span(&reader->text, entry->second, &available) || available < entry->extra))
        return "the replacement is not in an executable section";
    return NULL;
}

static const char *parse_paravirt(const struct reader *reader, const uint8_t *bytes, unsigned size,
                                  struct linux_entry *entry)
{
    (void)size;
    entry->address = get_u64(bytes);
    entry->data = bytes[8];
    entry->length = bytes[9];
    uint64_t available;
    if (!linux_text_span(&reader->text, entry->address, &available) || available < entry->length)
        return "the call is not in an executable section";
    return entry->length >= 5 ? NULL : "the call is too short";
}

/* The direct branch at the entry's address. */
static const char *branch_at(const struct reader *reader, struct linux_entry *entry,
                             uint8_t *opcode)
{
    uint64_t available;
    const uint8_t *code = linux_text_span(&reader->text, entry->address, &available);
    if (!code)
        return "the address is not in an executable section";
    entry->length = (uint16_t)linux_branch(code, available);
    *opcode = code[0];
    return entry->length ? NULL : "there is no direct branch";
}

static const char *parse_retpoline(const struct reader *reader, const uint8_t *bytes, unsigned size,
                                   struct linux_entry *entry)
{
    (void)size;
    uint8_t opcode;
    entry->address = relative(entry, bytes, 0);
    return branch_at(reader, entry, &opcode);
}

static const char *parse_return(const struct reader *reader, const uint8_t *bytes, unsigned size,
                                struct linux_entry *entry)
{
    (void)size;
    uint8_t opcode;
    entry->address = relative(entry, bytes, 0);
    const char *wrong = branch_at(reader, entry, &opcode);
    if (wrong)
        return wrong;
    return opcode == 0xe8 || opcode == 0x2e ? "there is no jump" : NULL;
}

static const char *parse_static_call(const struct reader *reader, const uint8_t *bytes,
                                     unsigned size, struct linux_entry *entry)
{
    (void)size;
    uint8_t opcode;
    entry->address = relative(entry, bytes, 0);
    const char *wrong = branch_at(reader, entry, &opcode);
    if (wrong)
        return wrong;
    return opcode == 0x2e ? "there is no call" : NULL;
}

static const char *parse_lock(const struct reader *reader, const uint8_t *bytes, unsigned size,
                              struct linux_entry *entry)
{
    (void)size;
    entry->address = relative(entry, bytes, 0);
    entry->length = 1;
    uint64_t available;
    const uint8_t *code = linux_text_span(&reader->text, entry->address, &available);
    /* LOCK, or DS where the kernel was built for one processor. */
    return code && (*code == 0xf0 || *code == 0x3e) ? NULL : "there is no LOCK prefix";
}

static const char *parse_jump(const struct reader *reader, const uint8_t *bytes, unsigned size,
                              struct linux_entry *entry)
{
    (void)size;
    entry->address = relative(entry, bytes, 0);
    entry->second = relative(entry, bytes, 4);
    uint64_t available;
    const uint8_t *code = linux_text_span(&reader->text, entry->address, &available);
    if (!code)
        return "the address is not in an executable section";
    bool jump;
    int32_t displacement;
    entry->length = (uint16_t)linux_jump_label(code, available, &jump, &displacement);
    if (!entry->length)
        return "there is neither a NOP nor a JMP of 2 or 5 bytes";
    if (!linux_text_holds(&reader->text, entry->second))
        return "the target is not in an executable section";
    if (jump && entry->address + entry->length + (uint64_t)(int64_t)displacement != entry->second)
        return "the jump there leads elsewhere";
    return NULL;
}

static const char *parse_mcount(const struct reader *reader, const uint8_t *bytes, unsigned size,
                                struct linux_entry *entry)
{
    (void)size;
    static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
    entry->address = get_u64(bytes);
    entry->length = 5;
    uint64_t available;
    const uint8_t *code = linux_text_span(&reader->text, entry->address, &available);
    if (!code || available < 5 || (code[0] != 0xe8 && memcmp(code, nop5, sizeof nop5)))
        return "there is neither a CALL nor a NOP of 5 bytes";
    return NULL;
}

static const char *parse_pinned(const struct reader *reader, const uint8_t *bytes, unsigned size,
                                struct linux_entry *entry)
{
    (void)size;
    entry->address = relative(entry, bytes, 0);
    entry->length = 1;
    return linux_text_holds(&reader->text, entry->address)
               ? NULL
               : "the address is not in an executable section";
}

static const struct kind {
    const char *name;        /* in reports and messages */
    const char *section;     /* NULL: merged into another one, found by symbol */
    const char *start, *end; /* symbols */
    uint16_t sizes[3]; /* bytes of an entry, by kernel version; the first that fits all entries */
    bool padded;       /* zero entries at the end fill a page */
    parse_function *parse;
} kinds[LINUX_TABLES] = {
    [LINUX_EX_TABLE] = {"__ex_table",
                        "__ex_table",
                        "__start___ex_table",
                        "__stop___ex_table",
                        {12},
                        false,
                        parse_ex},
    [LINUX_BUG_TABLE] = {"__bug_table",
                         "__bug_table",
                         "__start___bug_table",
                         "__stop___bug_table",
                         {12, 8, 16},
                         false,
                         parse_bug},
    [LINUX_ALTERNATIVES] = {".altinstructions",
                            ".altinstructions",
                            "__alt_instructions",
                            "__alt_instructions_end",
                            {12, 14, 13},
                            false,
                            parse_alternative},
    [LINUX_PARAVIRT] = {".parainstructions",
                        ".parainstructions",
                        "__parainstructions",
                        "__parainstructions_end",
                        {16},
                        false,
                        parse_paravirt},
    [LINUX_RETPOLINE_SITES] = {".retpoline_sites",
                               ".retpoline_sites",
                               "__retpoline_sites",
                               "__retpoline_sites_end",
                               {4},
                               false,
                               parse_retpoline},
    [LINUX_RETURN_SITES] = {".return_sites",
                            ".return_sites",
                            "__return_sites",
                            "__return_sites_end",
                            {4},
                            false,
                            parse_return},
    [LINUX_SMP_LOCKS] =
        {".smp_locks", ".smp_locks", "__smp_locks", "__smp_locks_end", {4}, true, parse_lock},
    [LINUX_JUMP_TABLE] = {"__jump_table",
                          NULL,
                          "__start___jump_table",
                          "__stop___jump_table",
                          {16},
                          false,
                          parse_jump},
    [LINUX_STATIC_CALLS] = {".static_call_sites",
                            NULL,
                            "__start_static_call_sites",
                            "__stop_static_call_sites",
                            {8},
                            false,
                            parse_static_call},
    [LINUX_MCOUNT] =
        {"__mcount_loc", NULL, "__start_mcount_loc", "__stop_mcount_loc", {8}, false, parse_mcount},
    [LINUX_PINNED] = {"pinned", NULL, NULL, NULL, {4}, false, parse_pinned},
};

const char *linux_table_name(enum linux_table_kind kind)
{
    return kinds[kind].name;
}

/* Appends the entries at [start, end), `size` bytes each, to the table. */
static int entries_read(const struct reader *reader, enum linux_table_kind number, const char *name,
                        uint64_t start, uint64_t end, unsigned size, struct error *err)
{
    const struct kind *kind = &kinds[number];
    struct linux_table *table = &reader->tables->table[number];
    const uint8_t *bytes = end > start ? image_at(reader->image, start, end - start) : NULL;
    if (!bytes || (end - start) % size)
        return fail(err, EXIT_INPUT, "%s: %s: 0x%llx to 0x%llx is not a table of %u-byte entries",
                    reader->image->name, name, (unsigned long long)start, (unsigned long long)end,
                    size);
    size_t count = (end - start) / size;
    while (kind->padded && count && !get_s32(bytes + (count - 1) * size))
        count--;
    struct linux_entry *entries =
        realloc(table->entries, (table->count + count + 1) * sizeof *entries);
    if (!entries)
        return fail(err, EXIT_IO, "%s: no memory for %s", reader->image->name, name);
    table->entries = entries;
    for (size_t i = 0; i < count; i++) {
        struct linux_entry *entry = &entries[table->count + i];
        *entry = (struct linux_entry){.slot = start + i * size};
        const char *wrong = kind->parse(reader, bytes + i * size, size, entry);
        if (wrong)
            return fail(err, EXIT_INPUT, "%s: %s: entry %zu at 0x%llx names 0x%llx: %s",
                        reader->image->name, name, i, (unsigned long long)entry->slot,
                        (unsigned long long)entry->address, wrong);
    }
    table->count += count;
    table->entry_size = (uint16_t)size;
    return 0;
}

/* Reads one table whose extent is known, with whichever entry size fits. The first failure is
 * the one reported. */
static int table_read(const struct reader *reader, enum linux_table_kind number, uint64_t start,
                      uint64_t end)
{
    const struct kind *kind = &kinds[number];
    struct linux_table *table = &reader->tables->table[number];
    struct error first = {0};
    if (start == end)
        return 0;
    table->start = start;
    table->end = end;
    for (size_t i = 0; i < sizeof kind->sizes / sizeof *kind->sizes && kind->sizes[i]; i++)
        if (!entries_read(reader, number, kind->name, start, end, kind->sizes[i], &first))
            return 0;
    return fail(reader->err, first.code, "%s", first.text);
}

/* Sections of s32 code addresses whose meaning does not matter here: the kernel rewrites what they
 * name, so that must stay where it is. Known names must be such tables; a section with an unknown
 * name may be one. */
static int pinned_read(const struct reader *reader)
{
    struct linux_table *table = &reader->tables->table[LINUX_PINNED];
    for (size_t i = 0; i < reader->image->section_count; i++) {
        const struct image_section *section = &reader->image->sections[i];
        enum linux_section what = linux_section_kind(section);
        if (what == LINUX_SECTION_OTHER || !section->size)
            continue;
        struct error err = {0};
        uint64_t end = section->address + section->size;
        if (entries_read(reader, LINUX_PINNED, section->name, section->address, end, 4, &err)) {
            if (what == LINUX_SECTION_PINNED)
                return fail(reader->err, err.code, "%s", err.text);
            continue;
        }
        if (table->start == table->end || section->address < table->start)
            table->start = section->address;
        if (end > table->end)
            table->end = end;
    }
    return 0;
}

/* Stable least-significant-digit radix sort: keys are distances from the lowest address. */
static void radix_sort(const struct linux_entry *entries, size_t count, uint64_t low, uint64_t high,
                       uint32_t *order, uint32_t *spare)
{
    enum { BITS = 11, BUCKETS = 1 << BITS };
    uint32_t *from = order, *to = spare;
    for (unsigned shift = 0; shift < 64 && (high - low) >> shift; shift += BITS) {
        size_t place[BUCKETS] = {0}, sum = 0;
        for (size_t i = 0; i < count; i++)
            place[((entries[i].address - low) >> shift) % BUCKETS]++;
        for (size_t i = 0; i < BUCKETS; i++) {
            size_t size = place[i];
            place[i] = sum;
            sum += size;
        }
        for (size_t i = 0; i < count; i++) {
            uint64_t key = (entries[from[i]].address - low) >> shift;
            to[place[key % BUCKETS]++] = from[i];
        }
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != order)
        memcpy(order, from, count * sizeof *order);
}

static int table_sort(const struct reader *reader, struct linux_table *table)
{
    size_t count = table->count;
    if (!count)
        return 0;
    table->by_address = malloc(count * sizeof *table->by_address);
    if (!table->by_address)
        return fail(reader->err, EXIT_IO, "%s: no memory for an index", reader->image->name);
    uint64_t low = UINT64_MAX, high = 0, previous = 0;
    bool sorted = true;
    for (size_t i = 0; i < count; i++) {
        uint64_t address = table->entries[i].address;
        table->by_address[i] = (uint32_t)i;
        sorted = sorted && address >= previous;
        previous = address;
        low = address < low ? address : low;
        high = address > high ? address : high;
    }
    if (sorted)
        return 0;
    uint32_t *spare = malloc(count * sizeof *spare);
    if (!spare)
        return fail(reader->err, EXIT_IO, "%s: no memory for an index", reader->image->name);
    radix_sort(table->entries, count, low, high, table->by_address, spare);
    free(spare);
    return 0;
}

/* Where the linker script's symbols put the tables that are not sections of their own. */
struct bounds {
    uint64_t start[LINUX_TABLES], end[LINUX_TABLES];
    bool has_start[LINUX_TABLES], has_end[LINUX_TABLES];
    bool data_symbols; /* the symbols are not of text only: a table without any is not there */
};

static void bounds_find(const struct reader *reader, struct bounds *bounds)
{
    const struct image *image = reader->image;
    for (size_t i = 0; i < image->symbol_count; i++) {
        const struct image_symbol *symbol = &image->symbols[i];
        const char *name = symbol->name;
        if (name[0] != '_' || name[1] != '_' || name[2] != 's' || name[3] != 't')
            continue;
        if (!strncmp(name, "__start_", 8) && !linux_text_holds(&reader->text, symbol->address))
            bounds->data_symbols = true;
        for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
            if (kinds[kind].section || !kinds[kind].start)
                continue;
            if (!bounds->has_start[kind] && !strcmp(name, kinds[kind].start)) {
                bounds->start[kind] = symbol->address;
                bounds->has_start[kind] = true;
            } else if (!bounds->has_end[kind] && !strcmp(name, kinds[kind].end)) {
                bounds->end[kind] = symbol->address;
                bounds->has_end[kind] = true;
            }
        }
    }
    if (image->section_count)
        return;
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
        const struct image_symbol *start, *end;
        if (!kinds[kind].section || !(start = image_symbol_named(image, kinds[kind].start)) ||
            !(end = image_symbol_named(image, kinds[kind].end)))
            continue;
        bounds->start[kind] = start->address;
        bounds->end[kind] = end->address;
        bounds->has_start[kind] = bounds->has_end[kind] = true;
    }
}

static int table_locate(const struct reader *reader, enum linux_table_kind kind,
                        const struct bounds *bounds)
{
    struct linux_table *table = &reader->tables->table[kind];
    if (kinds[kind].section && reader->image->section_count) {
        const struct image_section *section =
            image_section_named(reader->image, kinds[kind].section);
        if (!section)
            return 0;
        return table_read(reader, kind, section->address, section->address + section->size);
    }
    if (bounds->has_start[kind] && bounds->has_end[kind])
        return table_read(reader, kind, bounds->start[kind], bounds->end[kind]);
    if (bounds->data_symbols && reader->image->section_count)
        return 0;
    uint64_t start, end;
    if (linux_search(reader->image, &reader->text, kind, &start, &end)) {
        table->by_content = true;
        return table_read(reader, kind, start, end);
    }
    table->unknown = true;
    return 0;
}

static int tables_read(struct reader *reader)
{
    struct linux_tables *tables = reader->tables;
    struct bounds bounds = {0};
    bounds_find(reader, &bounds);
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++)
        if (kind == LINUX_PINNED ? pinned_read(reader) : table_locate(reader, kind, &bounds))
            return -1;
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++)
        if (table_sort(reader, &tables->table[kind]))
            return -1;
    const struct linux_table *ex = &tables->table[LINUX_EX_TABLE];
    size_t handlers = 0;
    for (size_t i = 0; i < ex->count; i++)
        handlers +=
            linux_text_holds(&reader->text, ex->entries[i].slot + 8 +
                                                (uint64_t)(int64_t)(int32_t)ex->entries[i].data);
    tables->ex_handlers = handlers && handlers == ex->count;
    const struct image_section *orc = image_section_named(reader->image, ".orc_unwind_ip");
    if (orc) {
        tables->orc_ip = orc->address;
        tables->orc_ip_end = orc->address + orc->size;
    }
    return 0;
}

int linux_tables_read(const struct image *image, struct linux_tables *tables, struct error *err)
{
    *tables = (struct linux_tables){0};
    if (image->elf_class != 64 || image->machine != EM_X86_64 || !image_is_linux(image))
        return 0;
    tables->present = true;
    struct reader reader = {.image = image, .tables = tables, .err = err};
    int result = linux_text_open(image, &reader.text, err);
    if (!result)
        result = tables_read(&reader);
    linux_text_close(&reader.text);
    if (result)
        linux_tables_close(tables);
    return result;
}

void linux_tables_close(struct linux_tables *tables)
{
    for (unsigned kind = 0; kind < LINUX_TABLES; kind++) {
        free(tables->table[kind].entries);
        free(tables->table[kind].by_address);
    }
    *tables = (struct linux_tables){0};
}

/* First position in by_address whose entry's address is not below `address`. */
static size_t position_of(const struct linux_table *table, uint64_t address)
{
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (table->entries[table->by_address[middle]].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t linux_table_range(const struct linux_table *table, uint64_t from, uint64_t to, size_t *first)
{
    *first = position_of(table, from);
    return to > from ? position_of(table, to) - *first : 0;
}
