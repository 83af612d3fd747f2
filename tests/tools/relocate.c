/* SPDX-License-Identifier: MIT */
/* Moves a vmlinux as the decompressor does for KASLR: relocate IN OUT DELTA
 *
 * The table that the kernel's build appends to vmlinux is walked backwards from the end of the
 * file: 32-bit places, zero, inverse 32-bit places, zero, 64-bit places, zero. Places are kernel
 * addresses; the decompressor finds them by physical address (address - __START_KERNEL_map), and so
 * does this, which gets the per-CPU segment right. DELTA is added to (inverse: subtracted from)
 * each place.
 *
 * A boot loader that loads the ELF file itself follows the program headers: their physical
 * addresses, the entry point and the PVH entry note move too. Virtual and physical offset are the
 * same, because the PVH entry code is linked with physical addresses.
 *
 * This reader shares nothing with image/relocs.c: it is the other party of a test. */
#include <elf.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define START_KERNEL_MAP   0xffffffff80000000u
#define PHYSICAL_ALIGN     0x200000u /* CONFIG_PHYSICAL_ALIGN */
#define XEN_ELFNOTE_PHYS32 18        /* xen/include/public/elfnote.h */

static uint8_t *file;
static size_t size;

static void read_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    struct stat st;

    if (!in || fstat(fileno(in), &st) != 0)
        err(1, "%s", path);
    size = (size_t)st.st_size;
    file = malloc(size ? size : 1);
    if (!file || fread(file, 1, size, in) != size)
        err(1, "%s", path);
    fclose(in);
}

static void write_file(const char *path)
{
    FILE *out = fopen(path, "wb");

    if (!out || fwrite(file, 1, size, out) != size || fclose(out) != 0)
        err(1, "%s", path);
}

/* The program headers, checked to lie in the file. */
static Elf64_Phdr *program_headers(size_t *count)
{
    Elf64_Ehdr *header = (Elf64_Ehdr *)file;

    if (size < sizeof *header || memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
        header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_phentsize != sizeof(Elf64_Phdr))
        errx(1, "not a 64-bit ELF file");
    if (header->e_phoff % 8 || header->e_phoff > size ||
        header->e_phnum > (size - header->e_phoff) / sizeof(Elf64_Phdr))
        errx(1, "program headers outside the file");
    *count = header->e_phnum;
    return (Elf64_Phdr *)(file + header->e_phoff);
}

/* The bytes that are loaded at a physical address. */
static uint8_t *at_physical(uint64_t address, size_t length)
{
    size_t count;
    const Elf64_Phdr *segment = program_headers(&count);

    for (size_t i = 0; i < count; i++) {
        uint64_t offset = address - segment[i].p_paddr;

        if (segment[i].p_type != PT_LOAD || address < segment[i].p_paddr ||
            segment[i].p_filesz < length || offset > segment[i].p_filesz - length)
            continue;
        if (segment[i].p_offset > size || size - segment[i].p_offset < offset + length)
            break;
        return file + segment[i].p_offset + offset;
    }
    errx(1, "relocation of 0x%llx: no segment holds it", (unsigned long long)address);
}

static uint32_t word_before(size_t *position)
{
    uint32_t word;

    if (*position < sizeof word)
        errx(1, "the relocation table has no beginning");
    *position -= sizeof word;
    memcpy(&word, file + *position, sizeof word);
    return word;
}

/* Applies one list, whose last word ends at *position. Returns how many places it named. */
static size_t apply_list(size_t *position, size_t width, uint64_t delta)
{
    size_t places = 0;
    uint32_t word;

    while ((word = word_before(position)) != 0) {
        uint64_t address = (uint64_t)(int64_t)(int32_t)word;
        uint8_t *place = at_physical(address - START_KERNEL_MAP, width);
        uint64_t value = 0;

        memcpy(&value, place, width); /* little-endian, like the kernel */
        value += delta;
        memcpy(place, &value, width);
        places++;
    }
    return places;
}

/* The PVH entry: the value of the Xen note of type 18. NULL if there is none. */
static uint8_t *pvh_entry(size_t *width)
{
    size_t count;
    const Elf64_Phdr *segment = program_headers(&count);

    for (size_t i = 0; i < count; i++) {
        size_t at = segment[i].p_offset, end;

        if (segment[i].p_type != PT_NOTE || at > size || size - at < segment[i].p_filesz)
            continue;
        end = at + segment[i].p_filesz;
        while (end - at >= sizeof(Elf64_Nhdr)) {
            const Elf64_Nhdr *note = (const Elf64_Nhdr *)(file + at);
            size_t name = (note->n_namesz + (size_t)3) & ~(size_t)3;
            size_t value = (note->n_descsz + (size_t)3) & ~(size_t)3;

            at += sizeof *note;
            if (end - at < name || end - at - name < value)
                break;
            if (note->n_type == XEN_ELFNOTE_PHYS32 && note->n_namesz == 4 &&
                memcmp(file + at, "Xen", 4) == 0 && (note->n_descsz == 4 || note->n_descsz == 8)) {
                *width = note->n_descsz;
                return file + at + name;
            }
            at += name + value;
        }
    }
    return NULL;
}

/* Moves what a loader of the ELF file looks at. */
static void move_headers(uint64_t delta, uint64_t old_entry, uint8_t *pvh, size_t width)
{
    size_t count;
    Elf64_Phdr *segment = program_headers(&count);

    ((Elf64_Ehdr *)file)->e_entry += delta;
    for (size_t i = 0; i < count; i++)
        if (segment[i].p_type == PT_LOAD)
            segment[i].p_paddr += delta;
    if (pvh) {
        uint64_t now = 0;

        memcpy(&now, pvh, width);
        if (now == old_entry) /* unless the table named the note too */
            now += delta;
        memcpy(pvh, &now, width);
    }
}

int main(int argc, char **argv)
{
    uint64_t delta, old_entry = 0;
    size_t position, width = 0, wide, inverse, narrow;
    uint8_t *pvh;

    if (argc != 4)
        errx(2, "usage: relocate IN OUT DELTA");
    delta = strtoull(argv[3], NULL, 0);
    if (delta == 0 || delta % PHYSICAL_ALIGN)
        errx(2, "%s: not a multiple of 0x%x", argv[3], PHYSICAL_ALIGN);
    read_file(argv[1]);
    pvh = pvh_entry(&width);
    if (pvh)
        memcpy(&old_entry, pvh, width);

    position = size;
    narrow = apply_list(&position, 4, delta);
    inverse = apply_list(&position, 4, -delta);
    wide = apply_list(&position, 8, delta);
    if (wide == 0)
        errx(1, "%s: no relocation table at its end", argv[1]);
    move_headers(delta, old_entry, pvh, width);
    write_file(argv[2]);
    printf("%zu 64-bit, %zu inverse 32-bit, %zu 32-bit places moved by 0x%llx\n", wide, inverse,
           narrow, (unsigned long long)delta);
    return 0;
}
