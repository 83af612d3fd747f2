/* SPDX-License-Identifier: MIT */
/* The Linux 64-bit boot protocol (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol", and
 * zero-page.rst): the unpacked kernel, entered at startup_64 with RSI at the boot parameters.
 *
 * A vmlinux has no setup header, and of a bzImage's the kernel proper reads only what a boot loader
 * writes there: so the header is made here, for both. */
#include "runtime/boot.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "runtime/loader.h"
#include "runtime/vcpu.h"

/* Offsets in struct boot_params. */
enum {
    BP_RSDP = 0x070,
    BP_EXT_RAMDISK_IMAGE = 0x0c0,
    BP_EXT_RAMDISK_SIZE = 0x0c4,
    BP_EXT_COMMAND_LINE = 0x0c8,
    BP_E820_ENTRIES = 0x1e8,
    BP_ROOT_FLAGS = 0x1f2,
    BP_VIDEO_MODE = 0x1fa,
    BP_BOOT_FLAG = 0x1fe,
    BP_MAGIC = 0x202,
    BP_VERSION = 0x206,
    BP_LOADER = 0x210,
    BP_LOAD_FLAGS = 0x211,
    BP_RAMDISK_IMAGE = 0x218,
    BP_RAMDISK_SIZE = 0x21c,
    BP_COMMAND_LINE = 0x228,
    BP_INITRD_MAX = 0x22c,
    BP_ALIGNMENT = 0x230,
    BP_RELOCATABLE = 0x234,
    BP_XLOAD_FLAGS = 0x236,
    BP_COMMAND_LINE_SIZE = 0x238,
    BP_SETUP_DATA = 0x250,
    BP_PREFERRED_ADDRESS = 0x258,
    BP_E820_TABLE = 0x2d0,
    BP_SIZE = 0x1000,
};

enum {
    PROTOCOL = 0x020f,
    ROOT_READ_ONLY = 1, /* as bzImages have it: `rw` on the command line changes it */
    VIDEO_NORMAL = 0xffff,
    LOADER_UNDEFINED = 0xff, /* no id assigned to this loader */
    LOADED_HIGH = 1,         /* at 1 MB or above */
    XLF_KERNEL_64 = 1,
    XLF_CAN_BE_LOADED_ABOVE_4G = 2,
    KERNEL_ALIGNMENT = 0x200000,
    COMMAND_LINE_MAX = 2047, /* COMMAND_LINE_SIZE on x86, less its NUL */
    E820_ENTRY = 20,         /* bytes */
    SETUP_RNG_SEED = 9,
    SEED_SIZE = 32,
};
#define INITRD_END 0x80000000ull /* initrd_addr_max of every x86-64 kernel, plus 1 */

/* Each word is there for something that this machine makes so; a user's --append follows, and of
 * contradicting words the kernel takes the later.
 *   console=ttyS0       the machine has no screen
 *   earlyprintk=        what the kernel says before its console driver starts, most of all why it
 *                       dies there; each line is printed once, by this or by the console
 *   tsc_early_khz=      (CLOCK_TSC_KHZ) the same as kvmclock.h says, for kernels built without it: spares
 *                       measuring the TSC against the PIT, tens of thousands of port reads
 *   tsc=reliable        the vCPUs' TSCs are one clock: no watchdog that compares it with the PM timer
 *   no_timer_check      the timer interrupt arrives: no 16 ms of polling to see whether it does
 *   pci=off             there is no PCI bus: no probing of the 32 slots that might hold quirks
 *   nox2apic            the local APIC stays memory-mapped: it costs no more here, and each x2APIC access is
 *                       an MSR access, which a patched kernel cannot answer by itself
 *   panic=-1            a kernel that panics resets, which ends hvrun, instead of looping for ever
 * Not needed: nokaslr (the decompressor, which would move the kernel, does not run), i8042 words (the
 * FADT says that there is no keyboard), reboot= (the FADT names the reset register). */
const char loader_default_command_line[] =
    "console=ttyS0 earlyprintk=ttyS0,115200 tsc_early_khz=1000000 tsc=reliable no_timer_check "
    "pci=off nox2apic panic=-1";
_Static_assert(CLOCK_TSC_KHZ == 1000000, "the default command line names the TSC frequency");

static void put(uint8_t *bytes, unsigned offset, unsigned size, uint64_t value)
{
    memcpy(bytes + offset, &value, size); /* little-endian, as the host */
}

static void setup_header(uint8_t *params)
{
    put(params, BP_ROOT_FLAGS, 2, ROOT_READ_ONLY);
    put(params, BP_VIDEO_MODE, 2, VIDEO_NORMAL);
    put(params, BP_BOOT_FLAG, 2, 0xaa55);
    memcpy(params + BP_MAGIC, "HdrS", 4);
    put(params, BP_VERSION, 2, PROTOCOL);
    put(params, BP_LOADER, 1, LOADER_UNDEFINED);
    put(params, BP_LOAD_FLAGS, 1, LOADED_HIGH);
    put(params, BP_INITRD_MAX, 4, INITRD_END - 1);
    put(params, BP_ALIGNMENT, 4, KERNEL_ALIGNMENT);
    put(params, BP_RELOCATABLE, 1, 1);
    put(params, BP_XLOAD_FLAGS, 2, XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G);
    put(params, BP_COMMAND_LINE_SIZE, 4, COMMAND_LINE_MAX);
}

static void memory_map(const struct memory *memory, uint8_t *params)
{
    struct boot_map_entry map[BOOT_MAP_ENTRIES];
    unsigned count = boot_memory_map(memory, map);
    for (unsigned i = 0; i < count; i++) {
        put(params, BP_E820_TABLE + i * E820_ENTRY, 8, map[i].start);
        put(params, BP_E820_TABLE + i * E820_ENTRY + 8, 8, map[i].size);
        put(params, BP_E820_TABLE + i * E820_ENTRY + 16, 4, map[i].type);
    }
    put(params, BP_E820_ENTRIES, 1, count);
}

static int command_line(struct boot *boot, uint8_t *params)
{
    const char *append = boot->vm->config.append;
    char line[COMMAND_LINE_MAX + 1];
    char frequency[40] = ""; /* of contradicting words the kernel takes the later */
    if (clock_tsc_khz(&boot->vm->clock) != CLOCK_TSC_KHZ)
        snprintf(frequency, sizeof frequency, " tsc_early_khz=%u", boot->vm->clock.tsc_khz);
    int length = snprintf(line, sizeof line, "%s%s%s%s", loader_default_command_line, frequency,
                          append && *append ? " " : "", append ? append : "");
    uint64_t at;
    if (length < 0 || (size_t)length >= sizeof line)
        return fail(boot->err, HVRUN_IMAGE,
                    "%s: the command line is %d bytes, of which hvrun's own words are %zu, and the "
                    "kernel takes %d; shorten --append",
                    boot->image->name, length, sizeof loader_default_command_line - 1,
                    COMMAND_LINE_MAX);
    if (boot_place(boot, "the command line", length + 1, 16, BOOT_FIRST, BOOT_LOW_END, BOOT_LOWEST,
                   &at))
        return -1;
    boot_write(boot, at, line, length + 1);
    put(params, BP_COMMAND_LINE, 4, at);
    put(params, BP_EXT_COMMAND_LINE, 4, at >> 32);
    return 0;
}

/* High in memory, where neither the kernel nor its early allocations are. */
static int initrd(struct boot *boot, uint8_t *params)
{
    const char *name = boot->vm->config.initrd;
    struct boot_file file;
    uint64_t at;
    if (!name)
        return 0;
    if (boot_file_open(name, &file, boot->err))
        return -1;
    if (!file.size) {
        boot_file_close(&file);
        return fail(boot->err, HVRUN_IMAGE, "%s: the file is empty; check --initrd", name);
    }
    if (boot_place(boot, name, file.size, PAGE_SIZE, BOOT_HIGH_BASE, INITRD_END, BOOT_HIGHEST,
                   &at)) {
        boot_file_close(&file);
        return -1;
    }
    put(params, BP_RAMDISK_IMAGE, 4, at);
    put(params, BP_EXT_RAMDISK_IMAGE, 4, at >> 32);
    put(params, BP_RAMDISK_SIZE, 4, file.size);
    put(params, BP_EXT_RAMDISK_SIZE, 4, file.size >> 32);
    return boot_file_load(boot, &file, at);
}

/* Entropy from the host, so that programs that ask for random numbers do not wait for interrupts
 * to gather some (kernels from 6.0 on; earlier ones ignore it). */
static int random_seed(struct boot *boot, uint8_t *params)
{
    struct {
        uint64_t next;
        uint32_t type, size;
        uint8_t bytes[SEED_SIZE];
    } seed = {.type = SETUP_RNG_SEED, .size = SEED_SIZE};
    uint64_t at;
    if (boot->vm->config.deterministic)
        memset(seed.bytes, 0x5a, sizeof seed.bytes);
    else if (getrandom(seed.bytes, sizeof seed.bytes, 0) != sizeof seed.bytes)
        return 0;
    if (boot_place(boot, "the random seed", sizeof seed, 16, BOOT_FIRST, BOOT_LOW_END, BOOT_LOWEST,
                   &at))
        return -1;
    boot_write(boot, at, &seed, sizeof seed);
    put(params, BP_SETUP_DATA, 8, at);
    return 0;
}

int boot_linux(struct boot *boot)
{
    uint8_t params[BP_SIZE] = {0};
    uint64_t entry, at;
    if (boot_load_segments(boot, BOOT_HIGH_BASE) || boot_entry(boot, boot->image->entry, &entry))
        return -1;
    setup_header(params);
    put(params, BP_RSDP, 8, boot->rsdp);
    put(params, BP_PREFERRED_ADDRESS, 8, entry);
    memory_map(&boot->vm->memory, params);
    if (boot_place(boot, "the boot parameters", sizeof params, PAGE_SIZE, BOOT_FIRST, BOOT_LOW_END,
                   BOOT_LOWEST, &at) ||
        command_line(boot, params) || random_seed(boot, params) || initrd(boot, params) ||
        boot_long_mode(boot, entry))
        return -1;
    boot_write(boot, at, params, sizeof params);
    boot->vm->vcpus[0]->r[RSI] = at;
    return 0;
}
