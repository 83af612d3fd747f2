/* SPDX-License-Identifier: MIT */
/* Opening a kernel image, and finding things in it by address, offset and name. */
#include "image/reader.h"
#include "image/kallsyms.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

static int read_bytes(struct image *image, const uint8_t *bytes, size_t size, struct error *err)
{
    struct image_private *p = image_private(image);
    const uint8_t *input = bytes;
    image->input_size = size;
    if (!size)
        return fail(err, EXIT_INPUT, "%s: the file is empty; give a kernel image", image->name);
    if (bzimage_detect(bytes, size)) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (bzimage_unpack(image->name, bytes, size, &p->unpacked, &size, err))
            return -1;
        clock_gettime(CLOCK_MONOTONIC, &end);
        image->unpack_seconds = (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1e9;
        image->format = IMAGE_BZIMAGE;
        bytes = p->unpacked;
    }
    if (asprintf(&p->label, "%s%s", image->name,
                 image->format == IMAGE_BZIMAGE ? " (unpacked)" : "") < 0) {
        p->label = NULL;
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    }
    if (!elf_detect(bytes, size))
        return fail(err, EXIT_INPUT,
                    "%s: offset 0x0: neither an ELF file nor a Linux bzImage; give a kernel image",
                    p->label);
    image->bytes = bytes;
    image->size = size;
    if (elf_read(image, err))
        return -1;
    if (image->format != IMAGE_BZIMAGE)
        image->format = image->elf_class == 64 ? IMAGE_ELF64 : IMAGE_ELF32;
    if (!image->symbol_count && image_is_linux(image)) {
        long found = kallsyms_read(image, &p->kallsyms, err);
        if (found < 0)
            return -1;
        image->symbols_from_kallsyms = found > 0;
    }
    image->input_xxh3 = XXH3_64bits(input, image->input_size);
    return symbols_index(image, err);
}

static int image_init(struct image *image, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    *image = (struct image){.mode = 0644};
    image->name = strdup(slash && slash[1] ? slash + 1 : path);
    image->private_data = calloc(1, sizeof(struct image_private));
    if (image->private_data)
        image_private(image)->fd = -1;
    if (image->name && image->private_data)
        return 0;
    image_close(image);
    fail(err, EXIT_IO, "%s: out of memory", path);
    return -1;
}

int image_from_memory(const char *name, const uint8_t *bytes, size_t size, struct image *image,
                      struct error *err)
{
    if (image_init(image, name, err))
        return -1;
    if (!read_bytes(image, bytes, size, err))
        return 0;
    image_close(image);
    return -1;
}

/* Maps a regular file. *map is NULL for an empty one. */
static int map_file(int fd, const char *path, void **map, size_t *size, mode_t *mode,
                    struct error *err)
{
    struct stat st;
    *map = NULL;
    if (fstat(fd, &st))
        return fail(err, EXIT_IO, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return fail(err, EXIT_INPUT, "%s: this is a directory; give a kernel image", path);
    if (!S_ISREG(st.st_mode))
        return fail(err, EXIT_INPUT, "%s: this is not a regular file; give a kernel image", path);
    if ((uint64_t)st.st_size > FILE_LIMIT)
        return fail(err, EXIT_INPUT,
                    "%s: %" PRIu64 " bytes is more than a kernel image can have (%" PRIu64
                    "); give a kernel image",
                    path, (uint64_t)st.st_size, FILE_LIMIT);
    *size = st.st_size;
    *mode = st.st_mode & 0777;
    if (!*size)
        return 0;
    *map = mmap(NULL, *size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (*map == MAP_FAILED) {
        *map = NULL;
        return fail(err, EXIT_IO, "%s: cannot map it: %s", path, strerror(errno));
    }
    return 0;
}

int image_open(const char *path, struct image *image, struct error *err)
{
    if (image_init(image, path, err))
        return -1;
    struct image_private *p = image_private(image);
    int result = -1;
    /* without O_NONBLOCK, opening a FIFO waits for a writer */
    int fd = p->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        bool no_file = errno == ENXIO || errno == ENODEV; /* a socket, a device without driver */
        fail(err, no_file ? EXIT_INPUT : EXIT_IO, "%s: cannot open it: %s", path, strerror(errno));
    } else if (!map_file(fd, path, &p->map, &p->map_size, &image->mode, err)) {
        result = read_bytes(image, p->map, p->map_size, err);
    }
    if (result)
        image_close(image);
    return result;
}

void image_close(struct image *image)
{
    struct image_private *p = image_private(image);
    if (p) {
        if (p->map)
            munmap(p->map, p->map_size);
        if (p->fd >= 0)
            close(p->fd);
        free(p->label);
        free(p->unpacked);
        free(p->kallsyms);
        free(p->loads_by_address);
        free(p->loads_by_offset);
        free(p->loads_by_paddr);
        free(p->sections_by_address);
        free(p->symbol_slots);
        free(p);
    }
    free(image->name);
    free(image->segments);
    free(image->sections);
    free(image->symbols);
    *image = (struct image){0};
}

void image_release_segments(const struct image *image)
{
    const struct image_private *p = image_private(image);
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (p->map) /* what is read again after all comes from the file again */
        madvise(p->map, p->map_size, MADV_DONTNEED);
    for (size_t k = 0; p->unpacked && k < p->file_load_count; k++) {
        const struct image_segment *segment = &image->segments[p->loads_by_offset[k]];
        uintptr_t start = (uintptr_t)image->bytes + segment->offset;
        uintptr_t end = (start + segment->file_size) & -page;
        start = (start + page - 1) & -page;
        if (start < end)
            madvise((void *)start, end - start, MADV_DONTNEED);
    }
}

uint8_t *image_copy(const struct image *image, struct error *err)
{
    const struct image_private *p = image_private(image);
    if (image->bytes == p->map) {
        /* filled while read-only: filling a writable mapping would copy every page */
        void *copy = mmap(NULL, image->size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, p->fd, 0);
        if (copy != MAP_FAILED && !mprotect(copy, image->size, PROT_READ | PROT_WRITE))
            return copy;
        if (copy != MAP_FAILED)
            munmap(copy, image->size);
    } else {
        uint8_t *copy = allocate_large(image->size);
        if (copy)
            return memcpy(copy, image->bytes, image->size);
    }
    fail(err, EXIT_IO, "%s: out of memory", image->name);
    return NULL;
}

void image_copy_free(const struct image *image, uint8_t *copy)
{
    if (copy && image->bytes == image_private(image)->map)
        munmap(copy, image->size);
    else
        free(copy);
}

const char *image_format_name(enum image_format format)
{
    static const char *const names[] = {
        [IMAGE_ELF64] = "elf64", [IMAGE_ELF32] = "elf32", [IMAGE_BZIMAGE] = "bzimage"};
    return names[format];
}

const struct image_section *image_section_named(const struct image *image, const char *name)
{
    for (size_t i = 0; i < image->section_count; i++)
        if (!strcmp(image->sections[i].name, name))
            return &image->sections[i];
    return NULL;
}

const struct image_section *image_section_at(const struct image *image, uint64_t address)
{
    const struct image_private *p = image_private(image);
    size_t low = 0, high = p->allocated_count; /* the last section at or before address */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (image->sections[p->sections_by_address[middle]].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return NULL;
    const struct image_section *section = &image->sections[p->sections_by_address[low - 1]];
    return address - section->address < section->size ? section : NULL;
}

bool image_offset(const struct image *image, uint64_t address, uint64_t length, uint64_t *offset)
{
    const struct image_private *p = image_private(image);
    size_t low = 0, high = p->load_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (image->segments[p->loads_by_address[middle]].vaddr <= address)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return false;
    const struct image_segment *segment = &image->segments[p->loads_by_address[low - 1]];
    uint64_t into = address - segment->vaddr;
    if (into >= segment->file_size || length > segment->file_size - into)
        return false;
    *offset = segment->offset + into;
    return true;
}

bool image_address(const struct image *image, uint64_t offset, uint64_t *address)
{
    const struct image_private *p = image_private(image);
    size_t low = 0, high = p->file_load_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (image->segments[p->loads_by_offset[middle]].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (!low)
        return false;
    const struct image_segment *segment = &image->segments[p->loads_by_offset[low - 1]];
    if (offset - segment->offset >= segment->file_size)
        return false;
    *address = segment->vaddr + (offset - segment->offset);
    return true;
}

const uint8_t *image_at(const struct image *image, uint64_t address, uint64_t length)
{
    uint64_t offset;
    return image_offset(image, address, length, &offset) ? image->bytes + offset : NULL;
}

/* A banner is "Linux version 6.1.0 (builder@host) …": the words alone occur in other programs. */
static bool has_banner(const uint8_t *bytes, size_t size)
{
    static const char words[] = "Linux version ";
    const uint8_t *end = bytes + size, *hit = bytes;
    while ((hit = memmem(hit, end - hit, words, sizeof words - 1))) {
        hit += sizeof words - 1;
        const uint8_t *c = hit;
        while (c < end && *c >= '0' && *c <= '9')
            c++;
        if (c > hit && end - c >= 2 && *c == '.' && c[1] >= '0' && c[1] <= '9')
            return true;
    }
    return false;
}

bool image_is_linux(const struct image *image)
{
    struct image_private *p = image_private(image);
    int known = atomic_load_explicit(&p->is_linux, memory_order_relaxed);
    if (!known) {
        const struct image_section *rodata = image_section_named(image, ".rodata");
        bool found = rodata && rodata->type == SHT_PROGBITS &&
                     has_banner(image->bytes + rodata->offset, rodata->size);
        if (!found)
            found = has_banner(image->bytes, image->elf_end);
        known = found ? 2 : 1;
        atomic_store_explicit(&p->is_linux, known, memory_order_relaxed);
    }
    return known == 2;
}
