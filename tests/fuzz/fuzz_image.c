/* SPDX-License-Identifier: MIT */
/* Reads any bytes as a kernel image, then does with it what patchc would: every promise of
 * image/image.h must hold, the relocation table must be read or refused, and composing must give an
 * image again. */
#include <stdlib.h>
#include <string.h>

#include "image/compose.h"
#include "image/relocs.h"
#include "tests/unit/tiny_elf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

static void compose(const struct image *image)
{
    static const uint8_t note[] = {4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 'n', 'o', 't', 0};
    struct compose_section section = {".note.fuzz", 7 /* SHT_NOTE */, note, sizeof note, 4, 0};
    struct compose c = {.image = image,
                        .edited = image->bytes,
                        .sections = &section,
                        .section_count = 1,
                        .tail_insert_at = image->elf_end,
                        .tail_insert = "word",
                        .tail_insert_size = 4};
    const struct iovec *pieces;
    size_t count, at = 0;
    struct error err = {0};
    if (compose_begin(&c, &err) || compose_layout(&c, &err) ||
        compose_pieces(&c, &pieces, &count, &err)) {
        must(is_one_line(&err));
        compose_free(&c);
        return;
    }
    uint8_t *bytes = malloc(c.output_size);
    for (size_t i = 0; i < count; at += pieces[i++].iov_len)
        memcpy(bytes + at, pieces[i].iov_base, pieces[i].iov_len);
    must(at == c.output_size);
    struct image output;
    if (!image_from_memory("composed", bytes, at, &output, &err)) {
        check_image(&output);
        image_close(&output);
    } else { /* the header's new fields may lie in a table that overlaps it, and damage that */
        must(is_one_line(&err));
    }
    free(bytes);
    compose_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image image;
    struct relocs relocs;
    struct error err = {0};
    if (image_from_memory("fuzz", data, size, &image, &err)) {
        must(is_one_line(&err));
        return 0;
    }
    must(!err.code);
    check_image(&image);
    image_is_linux(&image);
    if (relocs_read(&image, &relocs, &err))
        must(is_one_line(&err));
    else if (relocs.present)
        for (size_t kind = 0; kind < RELOC_KINDS; kind++)
            for (size_t i = 0; i < relocs.count[kind]; i++) {
                uint64_t offset;
                must(relocs_offset(&image, relocs_word(&relocs, kind, i), &offset) &&
                     offset <= image.size - 4);
            }
    compose(&image);
    image_close(&image);
    return 0;
}
