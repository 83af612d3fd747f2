/* SPDX-License-Identifier: MIT */
/* A guest without devices. */
#include "tests/unit/loader_lab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void must(bool good)
{
    if (good)
        return;
    fprintf(stderr, "loader_lab: out of memory, of files, or outside guest memory\n");
    abort();
}

void lab_begin(struct loader_lab *lab, unsigned megabytes)
{
    *lab = (struct loader_lab){.vm.config.kernel = "dir/kernel"};
    must(!memory_create(&lab->vm.memory, (uint64_t)megabytes << 20, &lab->err));
    lab->vm.vcpus[0] = calloc(1, sizeof(struct vcpu));
    must(lab->vm.vcpus[0]);
    lab->vm.vcpu_count = 2;
}

void lab_end(struct loader_lab *lab)
{
    if (lab->image.bytes)
        image_close(&lab->image);
    for (unsigned i = 0; i < LAB_FILES && lab->files[i]; i++) {
        unlink(lab->files[i]);
        free(lab->files[i]);
    }
    free(lab->vm.vcpus[0]);
    memory_destroy(&lab->vm.memory);
}

const char *lab_file(struct loader_lab *lab, const void *bytes, size_t size)
{
    unsigned i = 0;
    while (i < LAB_FILES && lab->files[i])
        i++;
    if (i == LAB_FILES)
        abort();
    lab->files[i] = strdup("/tmp/patchvisor-lab-XXXXXX");
    int fd = mkstemp(lab->files[i]);
    must(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    close(fd);
    return lab->files[i];
}

uint64_t lab_number(const struct loader_lab *lab, uint64_t physical, unsigned width)
{
    uint64_t value = 0;
    must(memory_read(&lab->vm.memory, physical, &value, width));
    return value;
}

const char *lab_string(const struct loader_lab *lab, uint64_t physical)
{
    const char *text = (const char *)memory_at(&lab->vm.memory, physical, 1);
    must(text && memchr(text, 0, lab->vm.memory.low_size - physical));
    return text;
}
