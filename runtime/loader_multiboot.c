/* SPDX-License-Identifier: MIT */
/* Multiboot 1 (Multiboot Specification 0.6.96): 32-bit protected mode, EAX the magic, EBX at the
 * information structure. As other loaders of such kernels do, the structure is filled whether or not
 * the header asks for it, the command line begins with the kernel's name, and modules follow
 * the kernel. */
#include "runtime/bios_remains.h"
#include "runtime/boot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/vcpu.h"

#define LOADER_MAGIC 0x2badb002u

enum { /* header flags: the low half are demands that a loader must know */
       HEADER_PAGE_ALIGN = 1,
       HEADER_MEMORY = 2,
       HEADER_VIDEO =
           4, /* a wish for a screen, which there is none of: the kernel is told nothing */
       HEADER_KNOWN = HEADER_PAGE_ALIGN | HEADER_MEMORY | HEADER_VIDEO,
       HEADER_DEMANDS = 0xffff,
};

enum { /* information flags: which fields are valid */
       INFO_MEMORY = 1 << 0,
       INFO_BOOT_DEVICE = 1 << 1,
       INFO_COMMAND_LINE = 1 << 2,
       INFO_MODULES = 1 << 3,
       INFO_MAP = 1 << 6,
       INFO_LOADER_NAME = 1 << 9,
};

struct info {
    uint32_t flags, memory_lower, memory_upper; /* KB from 0, KB from 1 MB */
    uint32_t boot_device, command_line, modules, module_list;
    uint32_t symbols[4];
    uint32_t map_size, map, drives_size, drives, config_table, loader_name, apm_table, vbe[4];
};

struct module {
    uint32_t start, end, command_line, reserved;
};

struct map_entry {
    uint32_t size; /* of what follows */
    uint64_t start, length;
    uint32_t type;
} __attribute__((packed));

enum { MODULES_MAX = 64, NO_BOOT_DEVICE = -1 };

/* Where the kernel is entered. With addresses in the header the file is a flat one, whatever its
 * own headers say ("a.out kludge", 3.1.3). */
static int load_flat(struct boot *boot, const struct multiboot_header *h)
{
    uint64_t before = (uint64_t)h->header_address - h->load_address, size;
    uint64_t offset = h->offset - before, end;
    if (h->load_address > h->header_address || before > h->offset ||
        (h->load_end && h->load_end < h->load_address))
        return fail(boot->err, HVRUN_IMAGE,
                    "%s: offset 0x%jx: the multiboot header's addresses (header 0x%x, load 0x%x to "
                    "0x%x) contradict each other or the file; correct them",
                    boot->image->name, (uintmax_t)h->offset, h->header_address, h->load_address,
                    h->load_end);
    size = h->load_end ? (uint64_t)h->load_end - h->load_address : boot->image->size - offset;
    end = h->load_address + size;
    if (size > boot->image->size - offset)
        return fail(
            boot->err, HVRUN_IMAGE,
            "%s: offset 0x%jx: the multiboot header loads 0x%jx bytes from offset 0x%jx, past "
            "the end of the file; get the file again",
            boot->image->name, (uintmax_t)h->offset, (uintmax_t)size, (uintmax_t)offset);
    if (h->entry < h->load_address || h->entry >= end)
        return fail(boot->err, HVRUN_IMAGE,
                    "%s: offset 0x%jx: the multiboot header's entry 0x%x is not in what it loads; "
                    "correct it",
                    boot->image->name, (uintmax_t)h->offset + 28, h->entry);
    if (h->bss_end > end)
        end = h->bss_end;
    return boot_load_range(boot, "the kernel", h->load_address, end, offset, size);
}

static int load_kernel(struct boot *boot, const struct multiboot_header *header, uint64_t *entry)
{
    uint32_t unknown = header->flags & HEADER_DEMANDS & ~HEADER_KNOWN;
    if (unknown)
        return fail(boot->err, HVRUN_IMAGE,
                    "%s: offset 0x%jx: the multiboot header demands what hvrun does not know "
                    "(flags 0x%x); clear those bits",
                    boot->image->name, (uintmax_t)header->offset + 4, unknown);
    if (!header->has_addresses)
        return boot_load_segments(boot, 0) || boot_entry(boot, boot->image->entry, entry) ? -1 : 0;
    *entry = header->entry;
    return load_flat(boot, header);
}

/* Takes room for `size` bytes that the kernel reads and then has no more use for. */
static int place(struct boot *boot, const char *what, const void *bytes, uint64_t size,
                 uint32_t *at)
{
    uint64_t place;
    if (boot_place(boot, what, size, 16, BOOT_FIRST, BOOT_LOW_END, BOOT_HIGHEST, &place))
        return -1;
    boot_write(boot, place, bytes, size);
    *at = place;
    return 0;
}

static int place_string(struct boot *boot, const char *what, const char *text, uint32_t *at)
{
    return place(boot, what, text, strlen(text) + 1, at);
}

static int load_module(struct boot *boot, const char *words, uint64_t after, struct module *module)
{
    size_t length = strcspn(words, " ");
    struct boot_file file;
    uint64_t at;
    if (!length)
        return fail(boot->err, HVRUN_IMAGE,
                    "%s: --initrd names no file in one of its parts; write FILE [ARGS],FILE [ARGS]",
                    boot->vm->config.initrd);
    char *name = strndup(words, length);
    if (!name)
        return fail(boot->err, HVRUN_HOST, "%s: out of memory", boot->image->name);
    int result = boot_file_open(name, &file, boot->err);
    if (!result) {
        result =
            boot_place(boot, name, file.size, PAGE_SIZE, after, BOOT_BELOW_4G, BOOT_LOWEST, &at);
        if (result)
            boot_file_close(&file);
        else
            result = boot_file_load(boot, &file, at);
    }
    if (!result) {
        module->start = at;
        module->end = at + file.size;
        result = place_string(boot, name, words, &module->command_line);
    }
    free(name);
    return result;
}

/* Modules are separated by commas; two commas stand for one that belongs to a name or argument. */
static char *next_module(const char **list, char *words)
{
    char *end = words;
    const char *from = *list;
    while (*from && (*from != ',' || from[1] == ',')) {
        from += *from == ',';
        *end++ = *from++;
    }
    *end = 0;
    *list = *from ? from + 1 : NULL;
    return words;
}

static int load_modules(struct boot *boot, struct info *info)
{
    struct module modules[MODULES_MAX];
    const char *list = boot->vm->config.initrd;
    uint64_t after = BOOT_HIGH_BASE; /* modules stand behind the whole kernel, in order */
    for (size_t i = 0; i < boot->used_count; i++)
        if (boot->used[i].end > after && boot->used[i].end <= boot->vm->memory.low_size)
            after = boot->used[i].end;
    if (!list)
        return 0;
    char *words = malloc(strlen(list) + 1);
    if (!words)
        return fail(boot->err, HVRUN_HOST, "%s: out of memory", boot->image->name);
    int result = 0;
    while (!result && list) {
        struct module *module = &modules[info->modules];
        if (info->modules++ == MODULES_MAX) {
            result =
                fail(boot->err, HVRUN_IMAGE, "%s: more than %d modules; give fewer to --initrd",
                     boot->image->name, MODULES_MAX);
            break;
        }
        *module = (struct module){0};
        result = load_module(boot, next_module(&list, words), after, module);
        after = module->end;
    }
    free(words);
    return result ? result
                  : place(boot, "the module list", modules, info->modules * sizeof *modules,
                          &info->module_list);
}

static int command_line(struct boot *boot, struct info *info)
{
    const struct vm_config *config = &boot->vm->config;
    const char *kernel = config->kernel ? config->kernel : boot->image->name;
    const char *append = config->append ? config->append : "";
    char *line;
    if (asprintf(&line, "%s%s%s", kernel, *append ? " " : "", append) < 0)
        return fail(boot->err, HVRUN_HOST, "%s: out of memory", boot->image->name);
    int result = place_string(boot, "the command line", line, &info->command_line);
    free(line);
    return result;
}

static int memory_map(struct boot *boot, struct info *info)
{
    struct boot_map_entry map[BOOT_MAP_ENTRIES];
    struct map_entry entries[BOOT_MAP_ENTRIES];
    unsigned count = boot_memory_map(&boot->vm->memory, map);
    for (unsigned i = 0; i < count; i++)
        entries[i] = (struct map_entry){sizeof *entries - sizeof entries->size, map[i].start,
                                        map[i].size, map[i].type};
    info->map_size = count * sizeof *entries;
    info->memory_lower = BOOT_LOW_END / 1024;
    info->memory_upper = (boot->vm->memory.low_size - BOOT_HIGH_BASE) / 1024;
    return place(boot, "the memory map", entries, info->map_size, &info->map);
}

int boot_multiboot(struct boot *boot, const struct multiboot_header *header)
{
    struct info info = {.flags = INFO_MEMORY | INFO_BOOT_DEVICE | INFO_COMMAND_LINE | INFO_MODULES |
                                 INFO_MAP | INFO_LOADER_NAME,
                        .boot_device = NO_BOOT_DEVICE};
    struct vcpu *cpu = boot->vm->vcpus[0];
    uint64_t entry = 0;
    uint32_t at;
    if (load_kernel(boot, header, &entry) || load_modules(boot, &info) ||
        command_line(boot, &info) || memory_map(boot, &info) ||
        place_string(boot, "the loader's name", "hvrun", &info.loader_name) ||
        place(boot, "the boot information", &info, sizeof info, &at) ||
        boot_protected_mode(boot, entry))
        return -1;
    bios_remains(boot->vm);
    cpu->r[RAX] = LOADER_MAGIC;
    cpu->r[RBX] = at;
    return 0;
}
