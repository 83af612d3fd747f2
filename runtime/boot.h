/* SPDX-License-Identifier: MIT */
/* What the boot protocols share: a plan of guest memory, and the ways to put things into it. */
#ifndef RUNTIME_BOOT_H
#define RUNTIME_BOOT_H

#include "image/boot.h"
#include "image/image.h"
#include "runtime/vm.h"

/* Guest-physical layout below 1 MB that the loader itself uses. */
#define BOOT_FIRST     0x1000ull  /* page 0 is left to guests: interrupt vectors, BIOS data */
#define BOOT_LOW_END   0x9fc00ull /* conventional memory; the rest of its last page is the EBDA */
#define BOOT_HIGH_BASE 0x100000ull
#define BOOT_BELOW_4G  0x100000000ull

/* The memory map that guests are told (E820 types). */
enum { BOOT_MAP_RAM = 1, BOOT_MAP_RESERVED = 2 };
struct boot_map_entry {
    uint64_t start, size;
    uint32_t type;
};
#define BOOT_MAP_ENTRIES 5
unsigned boot_memory_map(const struct memory *memory, struct boot_map_entry *map);

/* A taken range of guest-physical memory: [start, end). */
struct boot_range {
    uint64_t start, end;
};

/* One boot, under way. */
struct boot {
    struct vm *vm;
    const struct image *image;
    uint64_t rsdp;           /* guest-physical */
    struct boot_range *used; /* sorted by start, disjoint: the kernel, then what boot_place added */
    size_t used_count, used_room;
    struct error *err;
};

/* Takes what no kernel may: from the EBDA to 1 MB. */
int boot_begin(struct boot *boot);

/* Copies the ELF's loadable segments to their physical addresses and clears what lies behind their
 * file bytes. Refuses segments outside RAM, below `lowest`, in the ACPI tables or in one another. */
int boot_load_segments(struct boot *boot, uint64_t lowest);

/* Takes [start, end) and loads it: `size` bytes from file offset `offset`, then zeros. */
int boot_load_range(struct boot *boot, const char *what, uint64_t start, uint64_t end,
                    uint64_t offset, uint64_t size);

/* The physical address of an entry point, which may be given as a linear one. Refuses one that no
 * segment's bytes hold, or above 4 GB. */
int boot_entry(struct boot *boot, uint64_t address, uint64_t *entry);

enum boot_side { BOOT_LOWEST, BOOT_HIGHEST };
/* Takes `size` bytes of free RAM between `from` and `to`, aligned to `align` (a power of two), as
 * low or as high as possible. `what` is for the message if there is no room. */
int boot_place(struct boot *boot, const char *what, uint64_t size, uint64_t align, uint64_t from,
               uint64_t to, enum boot_side side, uint64_t *at);

/* Writes to guest memory that boot_place gave. */
void boot_write(struct boot *boot, uint64_t at, const void *bytes, uint64_t size);

/* An initrd or module, opened. */
struct boot_file {
    int fd;
    uint64_t size;    /* bytes */
    const char *name; /* as given; borrowed */
};
int boot_file_open(const char *name, struct boot_file *file, struct error *err);
/* Reads the whole file to guest memory that boot_place gave, and closes it. */
int boot_file_load(struct boot *boot, struct boot_file *file, uint64_t at);
void boot_file_close(struct boot_file *file);

/* The boot processor's state: flat segments on a GDT of ours, interrupts off, registers zero, at
 * `entry`. In protected mode (32-bit, paging off), or in 64-bit mode with the first 4 GB mapped to
 * themselves. Places GDT and page tables. */
int boot_protected_mode(struct boot *boot, uint64_t entry);
int boot_long_mode(struct boot *boot, uint64_t entry);

/* Segment selectors of the boot GDT: Linux' __BOOT_CS and __BOOT_DS. */
enum { BOOT_CS = 0x10, BOOT_DS = 0x18, BOOT_TSS = 0x20 };

/* The protocols (loader_linux.c, loader_multiboot.c, loader_pvh.c). */
int boot_linux(struct boot *boot);
int boot_multiboot(struct boot *boot, const struct multiboot_header *header);
int boot_pvh(struct boot *boot, uint64_t entry);

#endif
