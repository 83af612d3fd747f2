/* SPDX-License-Identifier: MIT */
/* Fuzz target: the readers of patched images, restore's record and the whole of verify. The input
 * is a patched image; its original is what its own record gives back. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/image.h"
#include "patchc/restore.h"
#include "patchc/verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file in memory that can be opened by name. Returns its descriptor. */
static int memory_file(const uint8_t *bytes, size_t size, char *path, size_t path_size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
        abort();
    snprintf(path, path_size, "/proc/self/fd/%d", fd);
    return fd;
}

static void verify(const uint8_t *original, size_t original_size, const char *patched)
{
    static FILE *null;
    char path[64];
    struct error err = {0};
    int fd = memory_file(original, original_size, path, sizeof path);
    if (!null)
        null = fopen("/dev/null", "w");
    verify_run(path, patched, null, &err);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    struct image image;
    struct patched_record record;
    int fd = memory_file(data, size, path, sizeof path);
    if (!image_open(path, &image, NULL)) {
        if (!patched_record_read(&image, &record, NULL)) {
            uint8_t *original = malloc(record.original.size + 1);
            if (original) {
                patched_record_undo(&image, &record, original);
                verify(original, record.original.size, path);
            }
            free(original);
        }
        image_close(&image);
    }
    close(fd);
    return 0;
}
