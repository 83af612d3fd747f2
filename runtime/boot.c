/* SPDX-License-Identifier: MIT */
/* Guest memory during a boot: loading a kernel's segments, finding room for what goes with it, and
 * the processor state that 32-bit and 64-bit protocols begin with.
 *
 * All that is taken is kept in one array of disjoint ranges sorted by address, so that a place is
 * found, or an overlap seen, in one pass; an image may have tens of thousands of segments. */
#include "runtime/boot.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/acpi_tables.h"
#include "runtime/vcpu.h"

#define MB ((uint64_t)1 << 20)

unsigned boot_memory_map(const struct memory *memory, struct boot_map_entry *map)
{
    unsigned count = 0;
    map[count++] = (struct boot_map_entry){0, BOOT_LOW_END, BOOT_MAP_RAM};
    map[count++] = (struct boot_map_entry){BOOT_LOW_END, 0xa0000 - BOOT_LOW_END, BOOT_MAP_RESERVED};
    map[count++] = (struct boot_map_entry){ACPI_TABLES_START, ACPI_TABLES_END - ACPI_TABLES_START,
                                           BOOT_MAP_RESERVED};
    map[count++] =
        (struct boot_map_entry){BOOT_HIGH_BASE, memory->low_size - BOOT_HIGH_BASE, BOOT_MAP_RAM};
    if (memory->size > memory->low_size)
        map[count++] =
            (struct boot_map_entry){MEMORY_HIGH, memory->size - memory->low_size, BOOT_MAP_RAM};
    return count;
}

/* ---- what is taken ---------------------------------------------------------------------------- */

static int no_memory(struct boot *boot)
{
    return fail(boot->err, HVRUN_HOST, "%s: out of memory", boot->image->name);
}

/* Inserts [start, end) before used[index]. */
static int take(struct boot *boot, size_t index, uint64_t start, uint64_t end)
{
    if (boot->used_count == boot->used_room) {
        size_t room = boot->used_room ? boot->used_room * 2 : 64;
        struct boot_range *used = realloc(boot->used, room * sizeof *used);
        if (!used)
            return no_memory(boot);
        boot->used = used;
        boot->used_room = room;
    }
    memmove(boot->used + index + 1, boot->used + index,
            (boot->used_count++ - index) * sizeof *boot->used);
    boot->used[index] = (struct boot_range){start, end};
    return 0;
}

int boot_begin(struct boot *boot)
{
    return take(boot, 0, BOOT_LOW_END, BOOT_HIGH_BASE);
}

static int by_start(const void *a, const void *b)
{
    const struct boot_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Sorts all ranges and refuses any two that overlap. */
static int check_disjoint(struct boot *boot)
{
    qsort(boot->used, boot->used_count, sizeof *boot->used, by_start);
    for (size_t i = 1; i < boot->used_count; i++)
        if (boot->used[i].start < boot->used[i - 1].end)
            return fail(boot->err, HVRUN_IMAGE,
                        "%s: what is loaded at physical 0x%" PRIx64
                        " overlaps what is at 0x%" PRIx64 "..0x%" PRIx64
                        " (another segment, or the firmware's 0x%llx..0x%llx); "
                        "link the kernel elsewhere",
                        boot->image->name, boot->used[i].start, boot->used[i - 1].start,
                        boot->used[i - 1].end, BOOT_LOW_END, BOOT_HIGH_BASE);
    return 0;
}

int boot_place(struct boot *boot, const char *what, uint64_t size, uint64_t align, uint64_t from,
               uint64_t to, enum boot_side side, uint64_t *at)
{
    uint64_t low = from, best = 0;
    size_t best_index = 0;
    bool found = false;
    if (to > boot->vm->memory.low_size)
        to = boot->vm->memory.low_size;
    for (size_t i = 0; i <= boot->used_count && low < to; i++) {
        bool last = i == boot->used_count;
        uint64_t high = last || boot->used[i].start > to ? to : boot->used[i].start;
        if (high > low && high - low >= size) {
            uint64_t place =
                side == BOOT_HIGHEST ? (high - size) & -align : (low + align - 1) & -align;
            if (place >= low && place <= high - size) {
                best = place;
                best_index = i;
                found = true;
                if (side == BOOT_LOWEST)
                    break;
            }
        }
        if (!last && boot->used[i].end > low)
            low = boot->used[i].end;
    }
    if (!found)
        return fail(boot->err, HVRUN_IMAGE,
                    "%s: %" PRIu64 " bytes do not fit into the %" PRIu64
                    " MB of guest memory beside %s; %s",
                    what, size, boot->vm->memory.size / MB, boot->image->name,
                    to <= BOOT_LOW_END ? "below 640 KB there is no more room: make it shorter"
                                       : "give more with --memory");
    *at = best;
    return take(boot, best_index, best, best + (size ? size : 1));
}

void boot_write(struct boot *boot, uint64_t at, const void *bytes, uint64_t size)
{
    memory_write(&boot->vm->memory, at, bytes, size);
}

/* ---- the kernel ------------------------------------------------------------------------------- */

/* Memory is zero at power-on, and a page that is only read costs the host nothing. */
static void clear(uint8_t *host, uint64_t size)
{
    static const uint8_t zeros[PAGE_SIZE];
    while (size) {
        uint64_t part = size < PAGE_SIZE ? size : PAGE_SIZE;
        if (memcmp(host, zeros, part))
            memset(host, 0, part);
        host += part;
        size -= part;
    }
}

static int copy(struct boot *boot, const char *what, uint64_t start, uint64_t end, uint64_t offset,
                uint64_t size)
{
    struct memory *memory = &boot->vm->memory;
    uint8_t *host = memory_at(memory, start, end - start);
    if (!host) {
        bool hole = end > MEMORY_HOLE && start < MEMORY_HIGH;
        uint64_t top = boot->used[boot->used_count - 1].end; /* of all segments */
        uint64_t needed = top < MEMORY_HIGH ? top : top - MEMORY_HIGH + MEMORY_HOLE;
        char advice[80];
        snprintf(advice, sizeof advice, "give at least --memory %" PRIu64 "M",
                 (needed - 1) / MB + 1);
        return fail(boot->err, HVRUN_IMAGE,
                    "%s: offset 0x%" PRIx64 ": %s at physical 0x%" PRIx64 " (0x%" PRIx64
                    " bytes) is not in the guest's %" PRIu64 " MB of memory; %s",
                    boot->image->name, offset, what, start, end - start, memory->size / MB,
                    hole ? "0xc0000000 to 4 GB is no memory: link the kernel elsewhere" : advice);
    }
    memcpy(host, boot->image->bytes + offset, size);
    clear(host + size, end - start - size);
    memory_written(memory, start, end - start);
    return 0;
}

int boot_load_range(struct boot *boot, const char *what, uint64_t start, uint64_t end,
                    uint64_t offset, uint64_t size)
{
    return take(boot, boot->used_count, start, end) || check_disjoint(boot) ||
                   copy(boot, what, start, end, offset, size)
               ? -1
               : 0;
}

int boot_load_segments(struct boot *boot, uint64_t lowest)
{
    const struct image *image = boot->image;
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *s = &image->segments[i];
        if (s->type != PT_LOAD || !s->mem_size)
            continue;
        if (s->paddr < lowest)
            return fail(boot->err, HVRUN_IMAGE,
                        "%s: offset 0x%" PRIx64 ": segment %zu at physical 0x%" PRIx64
                        " overlaps the boot structures below 0x%" PRIx64
                        "; link the kernel above that",
                        image->name, s->offset, i, s->paddr, lowest);
        /* the reader made sure that the last byte does not wrap; the end may */
        uint64_t end = s->paddr + s->mem_size < s->paddr ? UINT64_MAX : s->paddr + s->mem_size;
        if (take(boot, boot->used_count, s->paddr, end))
            return -1;
    }
    if (check_disjoint(boot))
        return -1;
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *s = &image->segments[i];
        if (s->type == PT_LOAD && s->mem_size &&
            copy(boot, "a segment", s->paddr, s->paddr + s->mem_size, s->offset, s->file_size))
            return -1;
    }
    return 0;
}

int boot_entry(struct boot *boot, uint64_t address, uint64_t *entry)
{
    const struct image *image = boot->image;
    bool found = false;
    for (size_t i = 0; i < image->segment_count && !found; i++) {
        const struct image_segment *s = &image->segments[i];
        *entry = address;
        found = s->type == PT_LOAD && address - s->paddr < s->file_size;
    }
    for (size_t i = 0; i < image->segment_count && !found; i++) {
        const struct image_segment *s = &image->segments[i];
        *entry = address - s->vaddr + s->paddr;
        found = s->type == PT_LOAD && address - s->vaddr < s->file_size;
    }
    if (found && *entry < BOOT_BELOW_4G)
        return 0;
    return fail(boot->err, HVRUN_IMAGE,
                "%s: the entry point 0x%" PRIx64 " is %s; give a linked kernel", image->name,
                address, found ? "loaded above 4 GB" : "in no segment");
}

/* ---- files beside the kernel ------------------------------------------------------------------ */

int boot_file_open(const char *name, struct boot_file *file, struct error *err)
{
    struct stat st;
    /* without O_NONBLOCK, opening a FIFO waits for a writer */
    *file = (struct boot_file){open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), 0, name};
    if (file->fd < 0 || fstat(file->fd, &st)) {
        fail(err, HVRUN_IMAGE, "%s: cannot open it: %s; check --initrd", name, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        fail(err, HVRUN_IMAGE, "%s: this is not a regular file; check --initrd", name);
    } else {
        file->size = st.st_size;
        return 0;
    }
    boot_file_close(file);
    return -1;
}

int boot_file_load(struct boot *boot, struct boot_file *file, uint64_t at)
{
    uint8_t *host = memory_at(&boot->vm->memory, at, file->size);
    uint64_t done = 0;
    ssize_t got = 1;
    while (host && done < file->size && got > 0) {
        got = pread(file->fd, host + done, file->size - done, done);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            done += got;
    }
    memory_written(&boot->vm->memory, at, file->size);
    bool whole = done == file->size;
    if (!whole)
        fail(boot->err, HVRUN_IMAGE, "%s: offset 0x%" PRIx64 ": cannot read it: %s; check --initrd",
             file->name, done, got < 0 ? strerror(errno) : "it became shorter");
    boot_file_close(file);
    return whole ? 0 : -1;
}

void boot_file_close(struct boot_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}
