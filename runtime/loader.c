/* SPDX-License-Identifier: MIT */
/* Which boot protocol a kernel speaks. */
#include "runtime/loader.h"

#include <stdlib.h>

#include "runtime/acpi_tables.h"
#include "runtime/boot.h"

enum { LEAST_MEMORY = 2 << 20 }; /* the first MB is the firmware's and the loader's own */

static int choose(struct boot *boot)
{
    const struct image *image = boot->image;
    struct multiboot_header header;
    uint64_t entry;
    if (image->elf_class == 64 && image_is_linux(image))
        return boot_linux(boot);
    if (image_multiboot(image, &header))
        return boot_multiboot(boot, &header);
    if (image_pvh_entry(image, &entry))
        return boot_pvh(boot, entry);
    return fail(boot->err, HVRUN_IMAGE,
                "%s: %s; give a 64-bit Linux kernel, or one with a multiboot 1 header in its first "
                "8 KB or a PVH note",
                image->name,
                image_multiboot2(image) ? "hvrun does not speak Multiboot2"
                                        : "the file does not say how to start it");
}

int loader_load(struct vm *vm, const struct image *image, struct error *err)
{
    struct error local = {0};
    struct boot boot = {.vm = vm, .image = image, .err = err ? err : &local};
    if (vm->memory.low_size < LEAST_MEMORY)
        return fail(err, HVRUN_IMAGE,
                    "%s: no kernel runs in so little memory; give --memory 2M or more",
                    image->name);
    boot.rsdp = acpi_tables_write(vm);
    int result = boot_begin(&boot) || choose(&boot) ? -1 : 0;
    free(boot.used);
    return result;
}
