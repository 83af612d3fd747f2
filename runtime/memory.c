/* SPDX-License-Identifier: MIT */
/* Guest RAM: a sealed file of memory, mapped between two inaccessible pages, and the look that a write takes at the
 * marks of decoded code. Sealed: nobody who has the descriptor can take pages away from under the guest. */
#include "runtime/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/vm.h"

#define LINE_SHIFT 6 /* code_lines has a bit for each 64 bytes */

/* A file of `size` bytes that keeps its size. -1 with errno set. */
static int sealed_file(uint64_t size)
{
    int fd = memfd_create("hvrun-guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)size) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

/* `size` bytes of zeros between two pages that nobody may touch; NULL with errno set. */
static uint8_t *map_guarded(uint64_t size)
{
    uint8_t *all = mmap(NULL, size + 2ul * PAGE_SIZE, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED)
        return NULL;
    int fd = sealed_file(size);
    void *inner = MAP_FAILED;
    if (fd >= 0)
        inner = mmap(all + PAGE_SIZE, size, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
    int reason = errno;
    if (fd >= 0)
        close(fd); /* the mapping keeps it */
    if (inner == MAP_FAILED)
        munmap(all, size + 2ul * PAGE_SIZE);
    errno = reason;
    return inner == MAP_FAILED ? NULL : inner;
}

int memory_create(struct memory *memory, uint64_t size, struct error *err)
{
    if (!size || size & PAGE_OFFSET || size > SIZE_MAX / 2)
        return fail(err, HVRUN_USAGE, "%llu bytes of guest memory: not a number of 4 KiB pages",
                    (unsigned long long)size);
    uint8_t *host = map_guarded(size);
    if (!host)
        return fail(err, HVRUN_HOST, "no room for %llu MiB of guest memory: %s",
                    (unsigned long long)(size >> 20), strerror(errno));
    uint64_t *lines = calloc(size >> PAGE_SHIFT, sizeof *lines);
    if (!lines) {
        munmap(host - PAGE_SIZE, size + 2ul * PAGE_SIZE);
        return fail(err, HVRUN_HOST, "no room for %llu MiB of guest memory: %s",
                    (unsigned long long)(size >> 20), strerror(ENOMEM));
    }
    *memory = (struct memory){
        .host = host,
        .size = size,
        .low_size = size < MEMORY_HOLE ? size : MEMORY_HOLE,
        .code_lines = lines,
    };
    return 0;
}

void memory_destroy(struct memory *memory)
{
    if (memory->host)
        munmap(memory->host - PAGE_SIZE, memory->size + 2ul * PAGE_SIZE);
    free(memory->code_lines);
    *memory = (struct memory){0};
}

/* Bits `first` to `last` of a word, both included. */
static uint64_t bits(unsigned first, unsigned last)
{
    return (UINT64_MAX >> (63 - last)) & (UINT64_MAX << first);
}

void memory_written(struct memory *memory, uint64_t physical, uint64_t length)
{
    const uint8_t *host = memory_at(memory, physical, length);
    if (!host || !length || !memory->code_changed)
        return;
    uint64_t first = (uint64_t)(host - memory->host), last = first + length - 1;
    for (uint64_t page = first >> PAGE_SHIFT; page <= last >> PAGE_SHIFT; page++) {
        if (!memory->code_lines[page])
            continue;
        uint64_t begin = page << PAGE_SHIFT, end = begin + PAGE_SIZE - 1;
        unsigned from = first > begin ? (first - begin) >> LINE_SHIFT : 0;
        unsigned to = ((last < end ? last : end) - begin) >> LINE_SHIFT;
        if (memory->code_lines[page] & bits(from, to)) {
            memory->code_changed(memory->code_context, physical, length);
            return;
        }
    }
}

bool memory_read(const struct memory *memory, uint64_t physical, void *to, uint64_t length)
{
    const uint8_t *host = memory_at(memory, physical, length);
    if (!host)
        return false;
    memcpy(to, host, length);
    return true;
}

bool memory_write(struct memory *memory, uint64_t physical, const void *from, uint64_t length)
{
    uint8_t *host = memory_at(memory, physical, length);
    if (!host)
        return false;
    memcpy(host, from, length);
    memory_written(memory, physical, length);
    return true;
}
