/* SPDX-License-Identifier: MIT */
/* Mutation test of `patchc verify`: changes single bytes of every kind in a patched image; verify
 * must refuse each of them with exit code 1.
 *
 *   mutate ORIGINAL PATCHED WORK FLIPS
 *
 * WORK is a scratch file; FLIPS bytes are changed of each kind, half of them with the checksum left
 * wrong and the others with the checksum made right again, so that what the bytes mean must give
 * the change away. Prints TAP without a plan, numbered from 1, and at the end "# N kinds, N flips".
 */
#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "hvstub/hvstub.h"
#include "image/image.h"
#include "image/relocs.h"
#include "patchc/linux_tables.h"
#include "patchc/restore.h"
#include "patchc/verify.h"

struct mutation {
    const char *original, *work;
    struct image image; /* the patched image as it is on disk */
    struct patched_record record;
    struct pv_header header;
    uint8_t *bytes; /* the scratch copy, mapped */
    unsigned flips; /* of each kind */
    uint64_t random;
    unsigned tests, failed, total;
};

/* xorshift64: the same flips in each run. */
static uint64_t next_random(struct mutation *m, uint64_t limit)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random % limit;
}

static void seal(struct mutation *m)
{
    uint8_t *field = m->bytes + m->record.descriptor_file + offsetof(struct pv_note, output_xxh3);
    uint64_t hash = 0;
    memcpy(field, &hash, sizeof hash);
    hash = XXH3_64bits(m->bytes, m->image.size);
    memcpy(field, &hash, sizeof hash);
}

/* Without a change verify must be content, or it would refuse everything. */
static void check_unchanged(struct mutation *m)
{
    struct error err = {0};
    if (verify_run(m->original, m->work, stderr, &err)) {
        printf("Bail out! the image is refused before it is changed: %s\n", err.text);
        exit(EXIT_CHECK);
    }
}

/* Is the change of this byte found? */
static bool flip(struct mutation *m, uint64_t offset, bool sealed, char *text, size_t size)
{
    uint64_t checksum = m->record.descriptor_file + offsetof(struct pv_note, output_xxh3);
    uint8_t saved = m->bytes[offset], saved_sum[8];
    memcpy(saved_sum, m->bytes + checksum, 8);
    m->bytes[offset] ^= 1 + next_random(m, 255);
    if (sealed && offset - checksum >= 8)
        seal(m);
    FILE *null = fopen("/dev/null", "w");
    struct error err = {0};
    int result = verify_run(m->original, m->work, null, &err);
    fclose(null);
    snprintf(text, size, "0x%02x -> 0x%02x, exit code %d: %s", saved, m->bytes[offset], err.code,
             err.text);
    memcpy(m->bytes + checksum, saved_sum, 8);
    m->bytes[offset] = saved;
    m->total++;
    return result == -1 && err.code == EXIT_CHECK;
}

/* A kind of byte: the places are given one after the other by pick(), each a file offset. */
static void test_places(struct mutation *m, const char *kind, const uint64_t *places,
                        unsigned count)
{
    char text[600], line[700] = "";
    unsigned missed = 0;
    for (unsigned i = 0; i < count; i++)
        if (!flip(m, places[i], i % 2, text, sizeof text) && missed++ == 0)
            snprintf(line, sizeof line, "# offset 0x%" PRIx64 ": %s, checksum %s\n", places[i],
                     text, i % 2 ? "right" : "wrong");
    m->failed += missed != 0;
    printf("%sok %u - a changed byte is found: %s (%u flips)\n%s", missed ? "not " : "", ++m->tests,
           kind, count, line);
    fflush(stdout);
}

enum { PLACES_MAX = 4096 };

/* Random places in one range of the file. */
static void test_file(struct mutation *m, const char *kind, uint64_t offset, uint64_t size)
{
    uint64_t places[PLACES_MAX];
    if (!size)
        return;
    for (unsigned i = 0; i < m->flips; i++)
        places[i] = offset + next_random(m, size);
    test_places(m, kind, places, m->flips);
}

static void test_memory(struct mutation *m, const char *kind, uint64_t address, uint64_t size)
{
    uint64_t offset;
    if (size && image_offset(&m->image, address, size, &offset))
        test_file(m, kind, offset, size);
}

static uint64_t address_of(const struct mutation *m, int64_t offset)
{
    return m->record.note.header_address + (uint64_t)offset;
}

static struct pv_patch patch_at(const struct mutation *m, uint32_t index)
{
    struct pv_patch patch;
    uint64_t at = address_of(m, m->header.patch_info_offset) + index * sizeof patch;
    memcpy(&patch, image_at(&m->image, at, sizeof patch), sizeof patch);
    return patch;
}

static struct pv_routine routine_at(const struct mutation *m, uint32_t index)
{
    struct pv_routine routine;
    uint64_t at = address_of(m, m->header.routine_info_offset) + index * sizeof routine;
    memcpy(&routine, image_at(&m->image, at, sizeof routine), sizeof routine);
    return routine;
}

/* ---- places in code: a range of each of some random patches or routines ---- */

struct code_range {
    uint64_t address, size; /* size 0: this patch or routine has no such thing */
};

static struct code_range window_head(const struct pv_patch *p)
{
    bool copied = p->flags & PV_PATCH_REPLACEMENT;
    uint64_t size = p->form == PV_FORM_BRANCH ? 2 : p->form == PV_FORM_BREAK ? 4 : 5;
    return (struct code_range){p->window_offset, copied ? 0 : size};
}

static struct code_range window_rest(const struct pv_patch *p)
{
    struct code_range head = window_head(p);
    return (struct code_range){p->window_offset + head.size,
                               head.size ? p->window_size - head.size : 0};
}

static struct code_range island(const struct pv_patch *p)
{
    return (struct code_range){p->island_offset, p->island_offset ? 5 : 0};
}

static struct code_range trampoline(const struct pv_patch *p)
{
    return (struct code_range){p->trampoline_offset, p->trampoline_size};
}

static struct code_range trampoline_end(const struct pv_patch *p)
{
    return (struct code_range){p->trampoline_offset + p->trampoline_size - 5, 5};
}

static struct code_range link_slot(const struct pv_routine *r)
{
    return (struct code_range){r->link_offset, 5};
}

static struct code_range native_path(const struct pv_routine *r)
{
    return (struct code_range){r->native_offset, r->tail_offset - r->native_offset};
}

static struct code_range emulation(const struct pv_routine *r)
{
    return (struct code_range){r->emulation_offset, r->emulation_offset ? r->emulation_size : 0};
}

static struct code_range emulation_end(const struct pv_routine *r)
{
    return (struct code_range){r->emulation_offset + r->emulation_size,
                               r->emulation_offset ? 5 : 0};
}

static unsigned add_place(struct mutation *m, uint64_t *places, unsigned count,
                          struct code_range range)
{
    uint64_t offset;
    if (range.size && image_offset(&m->image, address_of(m, range.address), range.size, &offset))
        places[count++] = offset + next_random(m, range.size);
    return count;
}

static void test_patches(struct mutation *m, const char *kind,
                         struct code_range (*range)(const struct pv_patch *))
{
    uint64_t places[PLACES_MAX];
    unsigned count = 0;
    for (unsigned tries = 0; count < m->flips && tries < 20 * m->flips; tries++) {
        struct pv_patch p = patch_at(m, next_random(m, m->header.patch_count));
        count = add_place(m, places, count, range(&p));
    }
    if (count)
        test_places(m, kind, places, count);
}

static void test_routines(struct mutation *m, const char *kind,
                          struct code_range (*range)(const struct pv_routine *))
{
    uint64_t places[PLACES_MAX];
    unsigned count = 0;
    for (unsigned tries = 0; count < m->flips && tries < 20 * m->flips; tries++) {
        struct pv_routine r = routine_at(m, next_random(m, m->header.routine_count));
        count = add_place(m, places, count, range(&r));
    }
    if (count)
        test_places(m, kind, places, count);
}

/* ---- the kinds ---- */

static void test_stub(struct mutation *m)
{
    const struct pv_header *h = &m->header;
    const struct pv_note *n = &m->record.note;
    uint64_t record = n->original_file + sizeof(struct pv_original);
    uint64_t list = m->record.original.run_count * sizeof(struct pv_original_run);
    test_file(m, "note", m->record.descriptor_file, offsetof(struct pv_note, output_xxh3));
    test_file(m, "checksum in the note",
              m->record.descriptor_file + offsetof(struct pv_note, output_xxh3), 1);
    test_file(m, "record of the original", n->original_file, sizeof(struct pv_original));
    test_file(m, "list of runs", record, list);
    test_file(m, "original bytes", record + list, m->record.run_bytes_size);
    test_file(m, "IO-block table", n->io_table_file, n->io_table_size);
    test_memory(m, "header", n->header_address, sizeof *h);
    test_memory(m, "patch table", address_of(m, h->patch_info_offset),
                h->patch_count * sizeof(struct pv_patch));
    test_memory(m, "routine information", address_of(m, h->routine_info_offset),
                h->routine_count * sizeof(struct pv_routine));
    test_memory(m, "routine table", address_of(m, h->routine_table_offset),
                h->routine_count * sizeof(uint64_t));
    if (h->cpuid_table_offset)
        test_memory(m, "CPUID table", address_of(m, h->cpuid_table_offset),
                    sizeof(struct pv_cpuid_table));
    if (h->msr_table_offset)
        test_memory(m, "MSR table", address_of(m, h->msr_table_offset),
                    sizeof(struct pv_msr_table));
}

static void test_code(struct mutation *m)
{
    test_patches(m, "patch", window_head);
    test_patches(m, "rest of a window", window_rest);
    test_patches(m, "island or call entry", island);
    test_patches(m, "trampoline", trampoline);
    test_patches(m, "end of a trampoline", trampoline_end);
    test_routines(m, "link slot", link_slot);
    test_routines(m, "native path", native_path);
    test_routines(m, "emulation code", emulation);
    test_routines(m, "jump to the tail", emulation_end);
}

static void test_kernel_tables(struct mutation *m)
{
    struct linux_tables tables;
    struct relocs relocs;
    struct error err = {0};
    static const char *const reloc_names[] = {[RELOC_64] = "64-bit relocations",
                                              [RELOC_INVERSE_32] = "inverse 32-bit relocations",
                                              [RELOC_32] = "32-bit relocations"};
    if (linux_tables_read(&m->image, &tables, &err) || relocs_read(&m->image, &relocs, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(err.code);
    }
    for (int kind = 0; kind < LINUX_TABLES; kind++)
        if (tables.table[kind].count)
            test_memory(m, linux_table_name(kind), tables.table[kind].start,
                        tables.table[kind].end - tables.table[kind].start);
    for (int kind = 0; relocs.present && kind < RELOC_KINDS; kind++)
        test_file(m, reloc_names[kind], relocs.offset[kind], relocs.count[kind] * 4);
    if (tables.orc_ip)
        test_memory(m, "ORC addresses", tables.orc_ip, tables.orc_ip_end - tables.orc_ip);
    linux_tables_close(&tables);
}

/* Text that no patch uses, and padding that no routine uses. */
static void test_untouched(struct mutation *m, bool padding)
{
    uint64_t places[PLACES_MAX];
    unsigned count = 0;
    const struct image_section *text = image_section_named(&m->image, ".text");
    for (unsigned tries = 0; text && count < m->flips && tries < 100000; tries++) {
        uint64_t offset = text->offset + next_random(m, text->size);
        bool is_padding = m->image.bytes[offset] == 0xcc;
        if (is_padding == padding)
            places[count++] = offset;
    }
    if (count)
        test_places(m, padding ? "padding" : "text", places, count);
}

static void test_elf(struct mutation *m)
{
    Elf64_Ehdr h;
    if (m->image.elf_class != 64)
        return;
    memcpy(&h, m->image.bytes, sizeof h);
    test_file(m, "ELF header", 0, sizeof h);
    test_file(m, "program headers", h.e_phoff, h.e_phnum * sizeof(Elf64_Phdr));
    test_file(m, "section headers", h.e_shoff, h.e_shnum * sizeof(Elf64_Shdr));
    if (h.e_shstrndx < m->image.section_count)
        test_file(m, "section names", m->image.sections[h.e_shstrndx].offset,
                  m->image.sections[h.e_shstrndx].size);
    static const char *const names[] = {".rodata", ".data", ".init.text", ".altinstr_replacement",
                                        ".BTF"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct image_section *s = image_section_named(&m->image, names[i]);
        if (s && s->type != SHT_NOBITS)
            test_file(m, names[i], s->offset, s->size);
    }
}

/* Copies the patched image to the scratch file and maps that. */
static void map_copy(struct mutation *m)
{
    int fd = open(m->work, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, m->image.size) ||
        (m->bytes = mmap(NULL, m->image.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) ==
            MAP_FAILED) {
        perror(m->work);
        exit(EXIT_IO);
    }
    close(fd);
    memcpy(m->bytes, m->image.bytes, m->image.size);
}

int main(int argc, char **argv)
{
    if (argc != 5 || atoi(argv[4]) < 1 || atoi(argv[4]) > PLACES_MAX) {
        fprintf(stderr, "usage: mutate ORIGINAL PATCHED WORK FLIPS\n");
        return EXIT_USAGE;
    }
    struct mutation m = {
        .original = argv[1], .work = argv[3], .flips = atoi(argv[4]), .random = 0x9e3779b97f4a7c15};
    struct error err = {0};
    if (image_open(argv[2], &m.image, &err) || patched_record_read(&m.image, &m.record, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return err.code;
    }
    const uint8_t *header = image_at(&m.image, m.record.note.header_address, sizeof m.header);
    if (!header) {
        fprintf(stderr, "%s: no header\n", argv[2]);
        return EXIT_INPUT;
    }
    memcpy(&m.header, header, sizeof m.header);
    map_copy(&m);
    check_unchanged(&m);
    test_stub(&m);
    test_code(&m);
    test_kernel_tables(&m);
    test_untouched(&m, false);
    test_untouched(&m, true);
    test_elf(&m);
    printf("# %u kinds, %u flips\n", m.tests, m.total);
    munmap(m.bytes, m.image.size);
    image_close(&m.image);
    return m.failed ? EXIT_CHECK : 0;
}
