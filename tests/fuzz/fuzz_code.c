/* SPDX-License-Identifier: MIT */
/* Fuzzing the code map: any image that the reader accepts, mapped and asked. */
#include <stdlib.h>

#include "image/image.h"
#include "image/length.h"
#include "patchc/code.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

struct seen {
    uint64_t last;
    size_t count;
};

static void visit(void *context, const struct code_section *section, uint64_t address,
                  unsigned length)
{
    struct seen *seen = context;
    uint64_t offset = address - section->address;
    struct length_info info;
    /* In order, inside the section, and what the length decoder says. */
    if (offset >= section->size || (seen->count++ && address <= seen->last) ||
        length_decode(section->bytes + offset, section->size - offset, &info) != length)
        abort();
    seen->last = address;
}

static void ask(struct code *code)
{
    uint64_t wanted[8][4] = {{0}};
    struct seen few = {0}, all = {0};
    wanted[1][2] = ~0ull;
    code_each_opcode(code, wanted, visit, &few);
    for (unsigned i = 0; i < 32; i++)
        wanted[i / 4][i % 4] = ~0ull;
    code_each_opcode(code, wanted, visit, &all);
    for (size_t i = 0; i < code->section_count; i++) {
        const struct code_section *s = &code->sections[i];
        code_previous(code, s->address + s->size);
        code_add_target(code, s->address + s->size - 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct image image;
    struct code code;
    struct error err = {0};
    if (image_from_memory("fuzz", bytes, size, &image, &err) != 0)
        return 0;
    if (code_open(&image, NULL, &code, &err) == 0) {
        ask(&code);
        code_close(&code);
    } else if (err.code == 0) {
        abort();
    }
    image_close(&image);
    return 0;
}
