/* SPDX-License-Identifier: MIT */
/* Memory for translated code. */
#include "runtime/translator/code_cache.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/vm.h"

#define ALIGNMENT 16u

/* A region for both, so that they are near each other: code first. */
static int map_code(struct code_cache *code, int fd, size_t size, size_t data_size)
{
    uint8_t *region = mmap(NULL, size + data_size, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        return -1;
    code->executable = region;
    code->data = region + size;
    code->size = size;
    code->data_size = data_size;
    if (ftruncate(fd, (off_t)size) ||
        mmap(region, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        return -1;
    void *writable = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (writable == MAP_FAILED)
        return -1;
    code->writable = writable;
    return 0;
}

int code_cache_create(struct code_cache *code, size_t size, size_t data_size, struct error *err)
{
    *code = (struct code_cache){0};
    int fd = memfd_create("hvrun-translated", MFD_CLOEXEC);
    if (fd < 0)
        return fail(err, HVRUN_HOST, "memfd_create: %s", strerror(errno));
    int status = map_code(code, fd, size, data_size), reason = errno;
    close(fd);
    if (status == 0)
        return 0;
    code_cache_destroy(code);
    return fail(err, HVRUN_HOST, "cannot map %zu bytes of executable memory: %s", size,
                strerror(reason));
}

void code_cache_destroy(struct code_cache *code)
{
    if (code->writable)
        munmap(code->writable, code->size);
    if (code->executable)
        munmap((void *)(uintptr_t)code->executable, code->size + code->data_size);
    *code = (struct code_cache){0};
}

static size_t aligned(size_t size, size_t alignment)
{
    return (size + alignment - 1) & ~(alignment - 1);
}

const uint8_t *code_cache_next(const struct code_cache *code)
{
    return code->executable + aligned(code->used, ALIGNMENT);
}

/* What replaces code that has been executed, and is written through another linear address, is only certain to be
 * seen after a serializing instruction (SDM 3A 11.6). */
static void serialize(void)
{
    unsigned eax, ebx, ecx, edx;
    __cpuid(0, eax, ebx, ecx, edx);
    (void)(eax + ebx + ecx + edx);
}

bool code_cache_put(struct code_cache *code, const uint8_t *bytes, size_t size)
{
    size_t at = aligned(code->used, ALIGNMENT);
    if (at > code->size || size > code->size - at)
        return false;
    memcpy(code->writable + at, bytes, size);
    code->used = at + size;
    if (at < code->executed)
        serialize();
    return true;
}

void *code_cache_data(struct code_cache *code, size_t size)
{
    size = aligned(size, 8);
    if (size > code->data_size - code->data_used)
        return NULL;
    void *memory = code->data + code->data_used;
    code->data_used += size;
    memset(memory, 0, size);
    return memory;
}

void code_cache_reset(struct code_cache *code, size_t used, size_t data_used)
{
    if (code->executed < code->used)
        code->executed = code->used;
    code->used = used;
    code->data_used = data_used;
}
