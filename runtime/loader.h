/* Puts a guest kernel into memory and the boot vCPU at its entry. */
#ifndef RUNTIME_LOADER_H
#define RUNTIME_LOADER_H

#include "image/image.h"

struct vm;

/* Kernel command line where the user gives no --append: a serial console, and the TSC frequency so that
 * the kernel need not measure it. --append is added to it, later words win. */
extern const char loader_default_command_line[];

/* Loads by the protocol that the image speaks: multiboot 1 (a header in the first 8 KiB), Linux 64-bit boot protocol
 * (vmlinux or bzImage), else PVH (note type 18), else an ELF64 entered at e_entry is refused. `image` is the ELF; its
 * bytes are what is loaded. config->initrd, command line, modules come from vm->config. ACPI tables are written too
 * (acpi_tables.h). 0, or -1 with *err set (code HVRUN_IMAGE). */
int loader_load(struct vm *vm, const struct image *image, struct error *err);

#endif
