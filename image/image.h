/* SPDX-License-Identifier: MIT */
/* A guest kernel image, read: its ELF bytes, segments, sections and symbols.
 *
 * The reader accepts ELF64 and ELF32 little-endian x86 executables and Linux bzImages, whose
 * payload it unpacks. What the rest of the program sees is always the ELF. All offsets and sizes
 * in these structures have been checked against the file: a consumer may use them unchecked.
 * The input is mapped read-only and never modified. */
#ifndef IMAGE_IMAGE_H
#define IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "image/error.h"

enum image_format { IMAGE_ELF64, IMAGE_ELF32, IMAGE_BZIMAGE };

struct image_segment { /* a program header */
    uint32_t type;     /* PT_* */
    uint32_t flags;    /* PF_* */
    uint64_t offset;   /* file offset in bytes */
    uint64_t vaddr;    /* guest-linear */
    uint64_t paddr;    /* guest-physical */
    uint64_t file_size;
    uint64_t mem_size;
    uint64_t align;
};

struct image_section { /* a section header */
    const char *name;  /* "" if none; lives as long as the image */
    uint32_t type;     /* SHT_* */
    uint32_t link, info;
    uint64_t flags;   /* SHF_* */
    uint64_t address; /* guest-linear; 0 if not SHF_ALLOC */
    uint64_t offset;  /* file offset; not meaningful for SHT_NOBITS */
    uint64_t size;    /* bytes */
    uint64_t entry_size;
    uint64_t align;
};

struct image_symbol {
    uint64_t address; /* guest-linear */
    uint64_t size;    /* bytes; 0 if unknown (kallsyms) */
    const char *name; /* lives as long as the image */
    char type;        /* as nm prints it: 't', 'T' text, 'd', 'D', 'A', … */
    bool function;    /* STT_FUNC in a symbol table */
};

struct image {
    char *name;               /* base name of the file */
    enum image_format format; /* of the file as given */
    uint64_t input_size;      /* bytes of the file as given */
    uint64_t input_xxh3;      /* XXH3_64bits of the file as given */
    mode_t mode;              /* permission bits of the file as given */

    const uint8_t *bytes; /* the ELF (for a bzImage: its unpacked payload) */
    size_t size;          /* bytes, trailing data included */
    size_t elf_end;       /* end of all that the ELF headers describe; [elf_end, size) is
                           * trailing data (Linux: the appended relocation table) */
    int elf_class;        /* 32 or 64 */
    uint16_t machine;     /* EM_386 or EM_X86_64 */
    uint64_t entry;       /* e_entry */

    struct image_segment *segments;
    size_t segment_count;
    struct image_section *sections; /* index = section index in the file; may be none */
    size_t section_count;
    struct image_symbol *symbols; /* sorted by address, then name; may be none */
    size_t symbol_count;
    bool symbols_from_kallsyms;
    double unpack_seconds; /* time spent unpacking a bzImage; 0 for an ELF */

    void *private_data; /* what the reader must release */
};

/* Opens and reads a file. Returns 0, or -1 with *err set: EXIT_INPUT for an unusable image,
 * EXIT_IO for one that cannot be read. On success the caller owns *image: image_close(). */
int image_open(const char *path, struct image *image, struct error *err);

/* The same for bytes in memory (borrowed: they must outlive the image). For fuzzers and tests. */
int image_from_memory(const char *name, const uint8_t *bytes, size_t size, struct image *image,
                      struct error *err);

void image_close(struct image *image);

/* Gives the memory of the loadable segments' bytes back to the host, when they have been used for
 * the last time: they may read as zeros from then on. Headers, symbols and names stay. */
void image_release_segments(const struct image *image);

/* A writable copy of image->bytes, image->size bytes, for editing: bytes that are not changed cost
 * next to nothing where the file itself is the ELF. NULL with *err set when memory runs out. The
 * caller releases it with image_copy_free before image_close. */
uint8_t *image_copy(const struct image *image, struct error *err);
void image_copy_free(const struct image *image, uint8_t *copy);

/* "elf64", "elf32" or "bzimage". */
const char *image_format_name(enum image_format format);

/* Finds the section named `name`, or NULL. */
const struct image_section *image_section_named(const struct image *image, const char *name);

/* Finds the allocated section that contains the guest-linear address (NOBITS included), or NULL. */
const struct image_section *image_section_at(const struct image *image, uint64_t address);

/* Translates [address, address + length) guest-linear to a file offset. False if it is not wholly
 * backed by one loadable segment's file bytes. */
bool image_offset(const struct image *image, uint64_t address, uint64_t length, uint64_t *offset);

/* Translates a file offset within a loadable segment to its guest-linear address. */
bool image_address(const struct image *image, uint64_t offset, uint64_t *address);

/* The bytes at [address, address + length), or NULL. */
const uint8_t *image_at(const struct image *image, uint64_t address, uint64_t length);

/* The last symbol at or before `address` in the same section (text symbols preferred where
 * several share an address); NULL if none. *offset (may be NULL) gets address - symbol. */
const struct image_symbol *image_symbol_at(const struct image *image, uint64_t address,
                                           uint64_t *offset);

/* The symbol with this name, or NULL. (A name that occurs twice: the lowest address.) */
const struct image_symbol *image_symbol_named(const struct image *image, const char *name);

/* True for a Linux kernel (its version banner is in the image). */
bool image_is_linux(const struct image *image);

#endif
