/* SPDX-License-Identifier: MIT */
/* Executable memory for code that is made at run time. */
#include "runtime/soft/host_code.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/vm.h"

#define ALIGNMENT 16u

int host_code_create(struct host_code *code, size_t size, struct error *err)
{
    *code = (struct host_code){0};
    int fd = memfd_create("hvrun-code", MFD_CLOEXEC);
    if (fd < 0)
        return fail(err, HVRUN_HOST, "memfd_create: %s", strerror(errno));
    void *writable = MAP_FAILED, *executable = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) == 0) {
        writable = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        executable = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    }
    int reason = errno;
    close(fd);
    if (writable == MAP_FAILED || executable == MAP_FAILED) {
        if (writable != MAP_FAILED)
            munmap(writable, size);
        if (executable != MAP_FAILED)
            munmap(executable, size);
        return fail(err, HVRUN_HOST, "cannot map %zu bytes of executable memory: %s", size,
                    strerror(reason));
    }
    *code = (struct host_code){.writable = writable, .executable = executable, .size = size};
    return 0;
}

/* What replaces code that has been executed, and is written through another linear address, is only certain to be
 * seen after a serializing instruction (SDM 3A 11.6). */
static void serialize(void)
{
    unsigned eax, ebx, ecx, edx;
    __cpuid(0, eax, ebx, ecx, edx);
    (void)(eax + ebx + ecx + edx);
}

const void *host_code_put(struct host_code *code, const uint8_t *bytes, size_t size)
{
    size_t at = (code->used + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (at > code->size || size > code->size - at)
        return NULL;
    memcpy(code->writable + at, bytes, size);
    code->used = at + size;
    if (at < code->executed)
        serialize();
    return code->executable + at;
}

void host_code_reset(struct host_code *code)
{
    if (code->executed < code->used)
        code->executed = code->used;
    code->used = 0;
}
