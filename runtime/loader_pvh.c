/* SPDX-License-Identifier: MIT */
/* PVH: the entry that Xen's note of type 18 names, in 32-bit protected mode with EBX at a start info
 * (Xen, docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h). */
#include "runtime/boot.h"

#include <string.h>

#include "runtime/vcpu.h"

#define START_INFO_MAGIC 0x336ec578u

struct start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line, rsdp, memory_map;
    uint32_t memory_map_entries, reserved;
};

struct module {
    uint64_t start, size, command_line, reserved;
};

struct map_entry {
    uint64_t start, size;
    uint32_t type, reserved;
};

static int place_low(struct boot *boot, const char *what, const void *bytes, uint64_t size,
                     uint64_t *at)
{
    if (boot_place(boot, what, size, 16, BOOT_FIRST, BOOT_LOW_END, BOOT_LOWEST, at))
        return -1;
    boot_write(boot, *at, bytes, size);
    return 0;
}

static int initrd(struct boot *boot, struct start_info *info)
{
    const char *name = boot->vm->config.initrd;
    struct module module = {0};
    struct boot_file file;
    if (!name)
        return 0;
    if (boot_file_open(name, &file, boot->err))
        return -1;
    module.size = file.size;
    if (boot_place(boot, name, file.size, PAGE_SIZE, BOOT_HIGH_BASE, BOOT_BELOW_4G, BOOT_HIGHEST,
                   &module.start)) {
        boot_file_close(&file);
        return -1;
    }
    if (boot_file_load(boot, &file, module.start))
        return -1;
    info->modules = 1;
    return place_low(boot, "the module list", &module, sizeof module, &info->module_list);
}

static int memory_map(struct boot *boot, struct start_info *info)
{
    struct boot_map_entry map[BOOT_MAP_ENTRIES];
    struct map_entry entries[BOOT_MAP_ENTRIES] = {0};
    info->memory_map_entries = boot_memory_map(&boot->vm->memory, map);
    for (unsigned i = 0; i < info->memory_map_entries; i++)
        entries[i] = (struct map_entry){map[i].start, map[i].size, map[i].type, 0};
    return place_low(boot, "the memory map", entries, info->memory_map_entries * sizeof *entries,
                     &info->memory_map);
}

int boot_pvh(struct boot *boot, uint64_t entry)
{
    struct start_info info = {.magic = START_INFO_MAGIC, .version = 1, .rsdp = boot->rsdp};
    const char *append = boot->vm->config.append ? boot->vm->config.append : "";
    uint64_t at;
    if (boot_load_segments(boot, 0) || boot_entry(boot, entry, &entry) || memory_map(boot, &info) ||
        place_low(boot, "the command line", append, strlen(append) + 1, &info.command_line) ||
        initrd(boot, &info) || place_low(boot, "the start info", &info, sizeof info, &at) ||
        boot_protected_mode(boot, entry))
        return -1;
    boot->vm->vcpus[0]->r[RBX] = at;
    return 0;
}
