/* SPDX-License-Identifier: MIT */
/* Puts a guest kernel into memory and the boot vCPU at its entry. */
#ifndef RUNTIME_LOADER_H
#define RUNTIME_LOADER_H

#include "image/image.h"

struct vm;

/* Kernel command line where the user gives no --append: a serial console, and the TSC frequency so that
 * the kernel need not measure it. --append is added to it, later words win. */
extern const char loader_default_command_line[];

/* Loads by the protocol that the image speaks: a 64-bit Linux kernel (vmlinux, or unpacked from a bzImage) by
 * the Linux 64-bit boot protocol, else a kernel with a multiboot 1 header in its first 8 KiB by that, else one
 * with a PVH note (type 18) by that; any other is refused. `image` is the ELF; its bytes are what is loaded.
 * Initrd, command line and modules come from vm->config. Also writes the ACPI tables (acpi_tables.h) and sets
 * the boot processor's state. 0, or -1 with *err set: HVRUN_IMAGE, or HVRUN_HOST when memory runs out. */
int loader_load(struct vm *vm, const struct image *image, struct error *err);

#endif
