/* SPDX-License-Identifier: MIT */
/* A guest without devices, for tests of the loader: its memory, one processor, and files for it. */
#ifndef TESTS_UNIT_LOADER_LAB_H
#define TESTS_UNIT_LOADER_LAB_H

#include <stdint.h>

#include "image/image.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

enum { LAB_FILES = 4 };

struct loader_lab {
    struct vm vm;
    struct image image;
    struct error err;
    char *files[LAB_FILES]; /* paths of temporary files */
};

/* `megabytes` of memory; two processors, of which the second exists in name only. */
void lab_begin(struct loader_lab *lab, unsigned megabytes);
void lab_end(struct loader_lab *lab);

/* A temporary file of `size` bytes; the path lives until lab_end. */
const char *lab_file(struct loader_lab *lab, const void *bytes, size_t size);

/* What stands in guest memory: `width` (1 to 8) bytes as a number; a string. Abort outside RAM. */
uint64_t lab_number(const struct loader_lab *lab, uint64_t physical, unsigned width);
const char *lab_string(const struct loader_lab *lab, uint64_t physical);

#endif
