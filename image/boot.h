/* SPDX-License-Identifier: MIT */
/* How a kernel image wants to be booted: its multiboot header and its PVH entry. */
#ifndef IMAGE_BOOT_H
#define IMAGE_BOOT_H

#include "image/image.h"

/* A multiboot header (Multiboot Specification 0.6.96, 3.1). The addresses are physical; they say
 * something only if `has_addresses`. */
struct multiboot_header {
    uint64_t offset; /* of the header in image->bytes */
    uint32_t flags;
    bool has_addresses;
    uint32_t header_address; /* where the header's first byte is loaded */
    uint32_t load_address;   /* where loading begins */
    uint32_t load_end;       /* where it ends; 0 = with the file */
    uint32_t bss_end;        /* end of zeroed memory; 0 = none */
    uint32_t entry;
};

#define MULTIBOOT_ADDRESSES 0x10000u /* flags: the addresses are there */

/* Finds the multiboot 1 header. False if there is none. */
bool image_multiboot(const struct image *image, struct multiboot_header *header);

/* True if the image has a Multiboot2 header (which says nothing that anybody here needs). */
bool image_multiboot2(const struct image *image);

/* Finds the PVH entry point: the physical address of 32-bit code. False if there is none. */
bool image_pvh_entry(const struct image *image, uint64_t *entry);

#endif
