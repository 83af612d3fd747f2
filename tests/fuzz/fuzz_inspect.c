/* SPDX-License-Identifier: MIT */
/* Fuzzes what `patchc inspect` reads: reports and patched images. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "patchc/inspect.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *nowhere;
    char path[32];
    int file = memfd_create("fuzz", MFD_CLOEXEC);

    if (!nowhere)
        nowhere = fopen("/dev/null", "w");
    if (file < 0 || !nowhere || write(file, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    for (unsigned view = 0; view < 5; view++) {
        struct error err = {0};
        struct inspect_options options = {
            .path = path,
            .site = view == 1 ? "0x1000" : NULL,
            .diff = view == 2 || view == 4 ? path : NULL,
            .html = view >= 3 ? "/dev/null" : NULL,
        };

        inspect_run(&options, nowhere, &err);
    }
    close(file);
    return 0;
}
