/* SPDX-License-Identifier: MIT */
/* image/image.c, image/elf.c, image/symbols.c: reading an ELF kernel. */
#include "tests/unit/tiny_elf.h" /* before cmocka.h, which has a macro fail() */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

static void open_tiny(const struct tiny *t, struct image *image)
{
    struct error err = {0};
    if (image_from_memory("tiny", t->bytes, t->size, image, &err))
        fail_msg("%s", err.text);
    check_image(image);
}

static void elf_is_read(int elf_class)
{
    struct tiny t;
    struct image image;
    tiny_build(&(struct tiny_options){.elf_class = elf_class}, &t);
    open_tiny(&t, &image);
    assert_string_equal(image.name, "tiny");
    assert_string_equal(image_format_name(image.format), elf_class == 64 ? "elf64" : "elf32");
    assert_int_equal(image.input_size, t.size);
    assert_true(image.input_xxh3 == XXH3_64bits(t.bytes, t.size));
    assert_int_equal(image.elf_end, t.end);
    assert_int_equal(image.elf_class, elf_class);
    assert_int_equal(image.machine, elf_class == 64 ? EM_X86_64 : EM_386);
    assert_true(image.entry == t.base + t.text);
    assert_int_equal(image.segment_count, 2);
    assert_int_equal(image.segments[0].type, PT_LOAD);
    assert_int_equal(image.segments[0].flags, PF_R | PF_X);
    assert_true(image.segments[0].vaddr == t.base + t.text);
    assert_true(image.segments[0].paddr == (elf_class == 64 ? TINY_PHYSICAL : t.base) + t.text);
    assert_int_equal(image.segments[1].offset, t.data);
    assert_int_equal(image.segments[1].file_size, t.data_size);
    assert_int_equal(image.segments[1].mem_size, t.data_size + t.bss_size);
    assert_int_equal(image.section_count, t.section_count);
    const struct image_section *text = image_section_named(&image, ".text");
    assert_non_null(text);
    assert_int_equal(text->type, SHT_PROGBITS);
    assert_int_equal(text->flags, SHF_ALLOC | SHF_EXECINSTR);
    assert_int_equal(text->offset, t.text);
    assert_int_equal(text->size, t.text_size);
    assert_true(text->address == t.base + t.text);
    assert_int_equal(image_section_named(&image, ".shstrtab")->address, 0);
    assert_null(image_section_named(&image, ".nothing"));
    assert_false(image.symbols_from_kallsyms);
    image_close(&image);
    tiny_free(&t);
}

static void test_elf64_is_read(void **state)
{
    (void)state;
    elf_is_read(64);
}

static void test_elf32_is_read(void **state)
{
    (void)state;
    elf_is_read(32);
}

static void test_addresses_and_offsets_translate(void **state)
{
    (void)state;
    struct tiny t;
    struct image image;
    uint64_t offset, address;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    open_tiny(&t, &image);
    uint64_t end = t.rodata + t.rodata_size; /* of segment 0 */
    assert_true(image_offset(&image, t.base + t.text, 1, &offset));
    assert_int_equal(offset, t.text);
    assert_true(image_offset(&image, t.base + t.text, end - t.text, &offset));
    assert_false(image_offset(&image, t.base + t.text, end - t.text + 1, &offset));
    assert_false(image_offset(&image, t.base + t.text - 1, 1, &offset));
    assert_false(image_offset(&image, t.base + end, 1, &offset));
    assert_false(image_offset(&image, t.base + t.text + 1, UINT64_MAX, &offset));
    assert_false(image_offset(&image, 0, 1, &offset));
    assert_false(image_offset(&image, UINT64_MAX, 1, &offset));
    /* .bss is memory, but not in the file */
    assert_true(image_offset(&image, t.data_address + t.data_size - 1, 1, &offset));
    assert_false(image_offset(&image, t.data_address + t.data_size - 1, 2, &offset));
    assert_false(image_offset(&image, t.data_address + t.data_size, 1, &offset));
    assert_true(image_address(&image, t.data, &address));
    assert_true(address == t.data_address);
    assert_false(image_address(&image, t.data + t.data_size, &address));
    assert_false(image_address(&image, 0, &address));
    assert_ptr_equal(image_at(&image, t.data_address + 5, 1), t.bytes + t.data + 5);
    assert_null(image_at(&image, t.data_address + 5, t.data_size));
    image_close(&image);
    tiny_free(&t);
}

static void test_sections_are_found_by_address(void **state)
{
    (void)state;
    struct tiny t;
    struct image image;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    open_tiny(&t, &image);
    uint64_t bss = t.data_address + t.data_size;
    assert_string_equal(image_section_at(&image, t.base + t.text)->name, ".text");
    assert_string_equal(image_section_at(&image, t.base + t.text + t.text_size - 1)->name, ".text");
    assert_string_equal(image_section_at(&image, t.base + t.rodata)->name, ".rodata");
    assert_string_equal(image_section_at(&image, bss - 1)->name, ".data");
    assert_string_equal(image_section_at(&image, bss)->name, ".bss");
    assert_string_equal(image_section_at(&image, bss + t.bss_size - 1)->name, ".bss");
    assert_null(image_section_at(&image, bss + t.bss_size));
    assert_null(image_section_at(&image, t.base + t.text - 1));
    assert_null(image_section_at(&image, 0));
    assert_null(image_section_at(&image, UINT64_MAX));
    image_close(&image);
    tiny_free(&t);
}

static void symbol_is(const struct image *image, uint64_t address, const char *name,
                      uint64_t expected)
{
    uint64_t offset = 99;
    const struct image_symbol *symbol = image_symbol_at(image, address, &offset);
    assert_non_null(symbol);
    assert_string_equal(symbol->name, name);
    assert_int_equal(offset, expected);
}

static void symbols_are_found(int elf_class)
{
    struct tiny t;
    struct image image;
    tiny_build(&(struct tiny_options){.elf_class = elf_class}, &t);
    open_tiny(&t, &image);
    uint64_t text = t.base + t.text, bss = t.data_address + t.data_size;
    assert_int_equal(image.symbol_count, 9); /* neither the file nor the undefined one */
    symbol_is(&image, text, "_start", 0);    /* the function, not its alias */
    symbol_is(&image, text + 15, "_start", 15);
    symbol_is(&image, text + 16, "second", 0);
    symbol_is(&image, text + t.text_size - 1, "second", 15);
    symbol_is(&image, t.base + t.rodata, "text_end", 0);
    symbol_is(&image, bss, "room", 0); /* not "twice" of .data */
    assert_null(image_symbol_at(&image, text - 1, NULL));
    assert_null(image_symbol_at(&image, bss + t.bss_size, NULL));
    assert_non_null(image_symbol_at(&image, text, NULL));
    const struct image_symbol *twice = image_symbol_named(&image, "twice");
    assert_true(twice->address == t.data_address + 8);
    assert_int_equal(twice->type, 'd');
    assert_int_equal(image_symbol_named(&image, "_start")->type, 'T');
    assert_true(image_symbol_named(&image, "_start")->function);
    assert_int_equal(image_symbol_named(&image, "_start")->size, 16);
    assert_int_equal(image_symbol_named(&image, "start_alias")->type, 'W');
    assert_false(image_symbol_named(&image, "start_alias")->function);
    assert_int_equal(image_symbol_named(&image, "second")->type, 't');
    assert_int_equal(image_symbol_named(&image, "room")->type, 'B');
    assert_int_equal(image_symbol_named(&image, "constant")->type, 'A');
    assert_null(image_symbol_named(&image, "missing"));
    assert_null(image_symbol_named(&image, ""));
    image_close(&image);
    tiny_free(&t);
}

static void test_symbols_of_elf64_are_found(void **state)
{
    (void)state;
    symbols_are_found(64);
}

static void test_symbols_of_elf32_are_found(void **state)
{
    (void)state;
    symbols_are_found(32);
}

static void test_symbol_of_another_section_is_not_taken(void **state)
{
    (void)state;
    static const uint8_t text[33] = {0x90};
    struct tiny t;
    struct image image;
    tiny_build(&(struct tiny_options){.elf_class = 64, .text = text, .text_size = sizeof text}, &t);
    open_tiny(&t, &image);
    assert_null(image_symbol_at(&image, t.base + t.rodata, NULL)); /* text_end is before it */
    assert_null(image_symbol_at(&image, t.base + t.text + sizeof text, NULL)); /* in no section */
    symbol_is(&image, t.base + t.text + sizeof text - 1, "second", 16);
    image_close(&image);
    tiny_free(&t);
}

static void test_image_without_sections_is_read(void **state)
{
    (void)state;
    struct tiny t;
    struct image image;
    tiny_build(&(struct tiny_options){.elf_class = 64, .no_sections = true}, &t);
    open_tiny(&t, &image);
    assert_int_equal(image.section_count, 0);
    assert_int_equal(image.symbol_count, 0);
    assert_null(image_symbol_at(&image, t.base + t.text, NULL));
    assert_null(image_symbol_named(&image, "_start"));
    assert_non_null(image_at(&image, t.base + t.text, t.text_size));
    image_close(&image);
    tiny_free(&t);
}

static void test_trailing_data_are_seen(void **state)
{
    (void)state;
    struct tiny t;
    struct image image;
    tiny_build(&(struct tiny_options){.elf_class = 64, .tail = "tail", .tail_size = 4}, &t);
    open_tiny(&t, &image);
    assert_int_equal(image.elf_end, t.end);
    assert_int_equal(image.size, t.end + 4);
    image_close(&image);
    tiny_free(&t);
}

static bool with_rodata_is_linux(const char *text)
{
    struct tiny t;
    struct image image;
    tiny_build(&(struct tiny_options){.elf_class = 64, .rodata = text, .rodata_size = strlen(text)},
               &t);
    open_tiny(&t, &image);
    bool result = image_is_linux(&image);
    assert_int_equal(image_is_linux(&image), result);
    image_close(&image);
    tiny_free(&t);
    return result;
}

static void test_linux_is_recognised_by_its_banner(void **state)
{
    (void)state;
    assert_true(with_rodata_is_linux("xx Linux version 6.1.0-56-cloud-amd64 (a@b) #1 SMP"));
    assert_true(with_rodata_is_linux("Linux version %s Linux version 12.0"));
    assert_false(with_rodata_is_linux("Linux version %s"));
    assert_false(with_rodata_is_linux("Linux version 6"));
    assert_false(with_rodata_is_linux("Linux version 6."));
    assert_false(with_rodata_is_linux("a kernel of another kind"));
}

/* A change to the image, the text that the message must hold. */
struct refusal {
    const char *what;
    unsigned offset, size;
    uint64_t value;
};

enum { PH64 = 64, PH64_SIZE = 56 };

static void refused(const struct tiny *original, struct refusal r)
{
    struct image image;
    struct error err = {0};
    uint8_t *bytes = malloc(original->size);
    memcpy(bytes, original->bytes, original->size);
    tiny_put(bytes, r.offset, r.size, r.value);
    assert_int_equal(image_from_memory("tiny", bytes, original->size, &image, &err), -1);
    assert_int_equal(err.code, EXIT_INPUT);
    assert_true(is_one_line(&err));
    if (!strstr(err.text, r.what) || strncmp(err.text, "tiny: offset 0x", 15))
        fail_msg("%s: does not say: %s", err.text, r.what);
    free(bytes);
}

static void test_unusable_headers_are_refused(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {"neither an ELF", 0, 1, 'X'},
        {"class", EI_CLASS, 1, 3},
        {"big-endian", EI_DATA, 1, ELFDATA2MSB},
        {"byte order", EI_DATA, 1, 0},
        {"version", EI_VERSION, 1, 2},
        {"relocatable object", offsetof(Elf64_Ehdr, e_type), 2, ET_REL},
        {"position-independent", offsetof(Elf64_Ehdr, e_type), 2, ET_DYN},
        {"core dump", offsetof(Elf64_Ehdr, e_type), 2, ET_CORE},
        {"no executable", offsetof(Elf64_Ehdr, e_type), 2, 77},
        {"another machine", offsetof(Elf64_Ehdr, e_machine), 2, EM_AARCH64},
        {"another machine", offsetof(Elf64_Ehdr, e_machine), 2, EM_386},
        {"entries are 57 bytes", offsetof(Elf64_Ehdr, e_phentsize), 2, 57},
        {"past the end", offsetof(Elf64_Ehdr, e_phoff), 8, UINT64_MAX - 100},
        {"past the end", offsetof(Elf64_Ehdr, e_phnum), 2, 0x7000},
        {"no program headers", offsetof(Elf64_Ehdr, e_phoff), 8, 0},
        {"no program headers", offsetof(Elf64_Ehdr, e_phnum), 2, 0},
        {"entries are 1 bytes", offsetof(Elf64_Ehdr, e_shentsize), 2, 1},
        {"past the end", offsetof(Elf64_Ehdr, e_shoff), 8, UINT64_MAX},
        {"past the end", offsetof(Elf64_Ehdr, e_shnum), 2, 0xfe00},
        {"section names does not exist", offsetof(Elf64_Ehdr, e_shstrndx), 2, 8},
        {"no string table", offsetof(Elf64_Ehdr, e_shstrndx), 2, 1},
    };
    struct tiny t;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        refused(&t, refusals[i]);
    tiny_free(&t);
}

static void test_absurd_segments_are_refused(void **state)
{
    (void)state;
#define SEGMENT(index, field) PH64 + (index)*PH64_SIZE + offsetof(Elf64_Phdr, field), 8
    static const struct refusal refusals[] = {
        {"past the end", SEGMENT(0, p_offset), 1 << 30},
        {"past the end", SEGMENT(0, p_offset), UINT64_MAX - 8},
        {"past the end", SEGMENT(0, p_filesz), UINT64_MAX},
        {"more bytes in the file than in memory", SEGMENT(1, p_memsz), 3},
        {"wraps", SEGMENT(1, p_vaddr), UINT64_MAX - 8},
        {"wraps", SEGMENT(1, p_memsz), UINT64_MAX},
        {"wraps around the end of the physical", SEGMENT(1, p_paddr), UINT64_MAX - 8},
        {"overlap in memory", SEGMENT(1, p_vaddr), TINY_BASE_64 + 0x210},
        {"overlap in the file", SEGMENT(1, p_offset), 0x210},
    };
#undef SEGMENT
    struct tiny t;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        refused(&t, refusals[i]);
    tiny_put(t.bytes, PH64, 4, PT_NOTE);
    refused(&t, (struct refusal){"no loadable segment", PH64 + PH64_SIZE, 4, PT_NULL});
    tiny_free(&t);
}

static void test_absurd_sections_are_refused(void **state)
{
    (void)state;
    struct tiny t;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
#define SECTION(index, field)                                                                      \
    t.section_headers + (index) * sizeof(Elf64_Shdr) + offsetof(Elf64_Shdr, field),                \
        sizeof(((Elf64_Shdr *)0)->field)
    const struct refusal refusals[] = {
        {"past the end", SECTION(1, sh_size), 1 << 30},
        {"past the end", SECTION(6, sh_offset), UINT64_MAX},
        {"wraps", SECTION(4, sh_size), UINT64_MAX},
        {"not wholly in one", SECTION(1, sh_addr), 0x1000},
        {"disagree about where", SECTION(1, sh_offset), 0x201},
        {"overlap at address", SECTION(1, sh_size), t.rodata + 4 - t.text},
        {"outside the string table", SECTION(3, sh_name), 1000},
        {"no string table", SECTION(5, sh_size), 0},
        {"no string table", SECTION(5, sh_size), 4},
        {"symbol table's entries", SECTION(6, sh_entsize), 8},
        {"symbol table's entries", SECTION(6, sh_size), 25},
        {"has no string table", SECTION(6, sh_link), 1},
        {"has no string table", SECTION(6, sh_link), 1000},
        {"has no string table", SECTION(7, sh_size), 3},
        {"symbol's name is outside", SECTION(7, sh_size), 1},
    };
#undef SECTION
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        refused(&t, refusals[i]);
    tiny_free(&t);
}

/* Reads hostile bytes: an image that keeps all promises, or one error line. */
static bool survives(const uint8_t *bytes, size_t size)
{
    struct image image;
    struct error err = {0};
    if (!image_from_memory("hostile", bytes, size, &image, &err)) {
        assert_int_equal(err.code, 0);
        check_image(&image);
        image_close(&image);
        return true;
    }
    if (err.code != EXIT_INPUT || !is_one_line(&err))
        fail_msg("size %zu: code %d: %s", size, err.code, err.text);
    return false;
}

static void test_every_cut_gives_an_image_or_one_error_line(void **state)
{
    (void)state;
    for (int elf_class = 32; elf_class <= 64; elf_class += 32) {
        struct tiny t;
        tiny_build(&(struct tiny_options){.elf_class = elf_class, .tail = "tail", .tail_size = 4},
                   &t);
        for (size_t size = 0; size <= t.size; size++) {
            uint8_t *cut = malloc(size ? size : 1); /* a block of its own: overreads show */
            memcpy(cut, t.bytes, size);
            assert_int_equal(survives(cut, size), size >= t.end);
            free(cut);
        }
        tiny_free(&t);
    }
}

static void test_every_damaged_byte_gives_an_image_or_one_error_line(void **state)
{
    (void)state;
    static const uint8_t changes[] = {0x01, 0x80, 0xff, 0x7f, 0x10};
    for (int elf_class = 32; elf_class <= 64; elf_class += 32) {
        struct tiny t;
        tiny_build(&(struct tiny_options){.elf_class = elf_class}, &t);
        for (size_t at = 0; at < t.size; at++)
            for (size_t i = 0; i < sizeof changes; i++) {
                t.bytes[at] ^= changes[i];
                survives(t.bytes, t.size);
                t.bytes[at] ^= changes[i];
            }
        tiny_free(&t);
    }
}

static void test_message_with_a_hostile_name_is_one_line(void **state)
{
    (void)state;
    struct tiny t;
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    uint8_t *name = memmem(t.bytes, t.size, ".rodata", 7);
    memcpy(name, "a\nb\033[1m", 7);
    refused(&t, (struct refusal){"a?b?[1m",
                                 t.section_headers + 2 * sizeof(Elf64_Shdr) +
                                     offsetof(Elf64_Shdr, sh_size),
                                 8, 1 << 30});
    tiny_free(&t);
}

static char folder[] = "/tmp/test_image.XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void store(const char *name, const void *bytes, size_t size, mode_t mode)
{
    int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void not_opened(const char *path, int code, const char *what)
{
    struct image image;
    struct error err = {0};
    assert_int_equal(image_open(path, &image, &err), -1);
    if (err.code != code || !strstr(err.text, what) || !is_one_line(&err))
        fail_msg("code %d (%s) instead of %d (%s)", err.code, err.text, code, what);
    image_close(&image); /* closing what was not opened is harmless */
}

static void test_file_is_opened_with_name_and_mode(void **state)
{
    (void)state;
    struct tiny t;
    struct image image;
    struct error err = {0};
    tiny_build(&(struct tiny_options){.elf_class = 64}, &t);
    store("vmlinux", t.bytes, t.size, 0640);
    assert_int_equal(image_open(in_folder("vmlinux"), &image, &err), 0);
    check_image(&image);
    assert_string_equal(image.name, "vmlinux");
    assert_int_equal(image.mode, 0640);
    assert_int_equal(image.size, t.size);
    assert_memory_equal(image.bytes, t.bytes, t.size);
    uint8_t *copy = image_copy(&image, &err);
    assert_non_null(copy);
    copy[t.text] ^= 0xff; /* the copy changes, neither the image nor the file does */
    assert_memory_equal(image.bytes, t.bytes, t.size);
    assert_memory_equal(copy, t.bytes, t.text);
    image_copy_free(&image, copy);
    image_close(&image);
    tiny_free(&t);
}

static void test_what_is_no_kernel_file_is_refused(void **state)
{
    (void)state;
    not_opened(in_folder("nothing"), EXIT_IO, "No such file");
    not_opened(folder, EXIT_INPUT, "directory");
    store("empty", "", 0, 0600);
    not_opened(in_folder("empty"), EXIT_INPUT, "empty");
    store("text", "just some text, no kernel at all", 32, 0600);
    not_opened(in_folder("text"), EXIT_INPUT, "neither an ELF file nor");
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    not_opened(in_folder("fifo"), EXIT_INPUT,
               "not a regular file"); /* and no waiting for a writer */
    not_opened("/dev/zero", EXIT_INPUT, "not a regular file");
    assert_int_equal(symlink("loop", in_folder("loop")), 0);
    not_opened(in_folder("loop"), EXIT_IO, "cannot open");
    store("huge", "\177ELF", 4, 0600);
    assert_int_equal(truncate(in_folder("huge"), (off_t)5 << 30), 0);
    not_opened(in_folder("huge"), EXIT_INPUT, "more than a kernel image can have");
}

static void test_unreadable_file_is_an_io_error(void **state)
{
    (void)state;
    bool root = !geteuid();
    store("secret", "\177ELF", 4, 0);
    if (root && (chmod(folder, 0755) || seteuid(65534)))
        skip();
    not_opened(in_folder("secret"), EXIT_IO, "Permission denied");
    if (root)
        assert_int_equal(seteuid(0), 0);
}

static uint64_t xorshift(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Cuts at `offset` and around it. */
static void cut_around(const struct image *image, uint64_t offset)
{
    for (uint64_t at = offset < 3 ? 0 : offset - 3; at < offset + 3 && at < image->size; at++)
        survives(image->bytes, at);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void test_real_kernel_cut_anywhere_gives_an_image_or_one_error_line(void **state)
{
    (void)state;
    const char *path = getenv("PV_KERNEL_CLOUD");
    struct image image;
    struct error err = {0};
    if (!path) {
        print_message("# SKIP PV_KERNEL_CLOUD names no kernel\n");
        skip();
    }
    double start = seconds();
    if (image_open(path, &image, &err))
        fail_msg("%s", err.text);
    check_image(&image);
    assert_true(image.symbol_count > 10000 && image.symbols_from_kallsyms);
    assert_true(image_is_linux(&image));
    for (uint64_t at = 0; at < 1024; at++)
        survives(image.bytes, at);
    for (size_t i = 0; i < image.segment_count; i++) {
        cut_around(&image, image.segments[i].offset);
        cut_around(&image, image.segments[i].offset + image.segments[i].file_size);
    }
    for (size_t i = 0; i < image.section_count; i++) {
        cut_around(&image, image.sections[i].offset);
        cut_around(&image, image.sections[i].offset + image.sections[i].size);
    }
    cut_around(&image, image.elf_end);
    uint64_t random = 42;
    for (int i = 0; i < 4000; i++)
        survives(image.bytes, xorshift(&random) % image.elf_end);
    assert_true(survives(image.bytes, image.elf_end + xorshift(&random) % 4096));
    image_close(&image);
    assert_true(seconds() - start < 60);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"vmlinux", "empty", "text",  "fifo",
                                        "loop",    "huge",  "secret"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elf64_is_read),
        cmocka_unit_test(test_elf32_is_read),
        cmocka_unit_test(test_addresses_and_offsets_translate),
        cmocka_unit_test(test_sections_are_found_by_address),
        cmocka_unit_test(test_symbols_of_elf64_are_found),
        cmocka_unit_test(test_symbols_of_elf32_are_found),
        cmocka_unit_test(test_symbol_of_another_section_is_not_taken),
        cmocka_unit_test(test_image_without_sections_is_read),
        cmocka_unit_test(test_trailing_data_are_seen),
        cmocka_unit_test(test_linux_is_recognised_by_its_banner),
        cmocka_unit_test(test_unusable_headers_are_refused),
        cmocka_unit_test(test_absurd_segments_are_refused),
        cmocka_unit_test(test_absurd_sections_are_refused),
        cmocka_unit_test(test_every_cut_gives_an_image_or_one_error_line),
        cmocka_unit_test(test_every_damaged_byte_gives_an_image_or_one_error_line),
        cmocka_unit_test(test_message_with_a_hostile_name_is_one_line),
        cmocka_unit_test(test_file_is_opened_with_name_and_mode),
        cmocka_unit_test(test_what_is_no_kernel_file_is_refused),
        cmocka_unit_test(test_unreadable_file_is_an_io_error),
        cmocka_unit_test(test_real_kernel_cut_anywhere_gives_an_image_or_one_error_line),
    };
    return cmocka_run_group_tests_name("image", tests, make_folder, remove_folder);
}
