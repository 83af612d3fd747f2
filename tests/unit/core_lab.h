/* SPDX-License-Identifier: MIT */
/* A bench for the core of `patchc build`: a small kernel goes through the whole pipeline in the
 * test process, and what came out can be looked at. */
#ifndef TESTS_UNIT_CORE_LAB_H
#define TESTS_UNIT_CORE_LAB_H

#include <stddef.h>
#include <stdint.h>

#include "hvstub/hvstub.h"
#include "patchc/build.h"
#include "patchc/restore.h"
#include "tests/linux_image.h"

/* Code of a test, assembled with the test program: `name`_code to `name`_end. Branches within it
 * may be written with labels. */
#define LAB_CODE(name, text)                                                                       \
    __asm__(".pushsection .rodata, \"a\"\n.balign 64\n" #name "_code:\n" text "\n" #name           \
            "_end:\n.popsection\n");                                                               \
    extern const uint8_t name##_code[], name##_end[]

enum { LAB_TEXT_MAX = 0x10000, LAB_PADDING = 0x9000, LAB_FUNCTIONS = 15 };

struct lab {
    char folder[64], image_path[96], list_path[96], output_path[96], report_path[96],
        restored_path[96];
    uint8_t *bytes; /* the input, malloc'd */
    size_t size;
    /* for a Linux image: */
    struct linux_image li;
    uint8_t text[LAB_TEXT_MAX];
    size_t code_size;     /* of text, without its padding */
    bool no_data_symbols; /* tables inside other sections cannot be found */
    size_t padding;       /* bytes of INT3 behind the code; LAB_PADDING if 0 */
    /* of the build: */
    struct build_options options;
    struct build_result result;
    struct error err;
    int status;
    struct image patched;
    struct patched_record record;
    const struct pv_header *header; /* NULL: nothing was patched */
};

/* Makes the scratch folder. */
void lab_open(struct lab *lab);
void lab_close(struct lab *lab);

/* Starts a Linux image around this code: its text is at LINUX_IMAGE_TEXT, section 0. Sections,
 * symbols and a trailer may be added to lab->li until it is built. */
void lab_linux(struct lab *lab, const uint8_t *code, const uint8_t *end);

/* An image of another kind: guest-linear GUEST_TEXT (tests/unit/guest_elf.h), entered at its first
 * byte, with symbols of functions at these offsets (`functions` of them). `size` includes padding.
 */
void lab_plain(struct lab *lab, const uint8_t *text, size_t size, const uint32_t *functions,
               size_t count);

/* Patches the image with a list that is given as text. On success the result is verified and
 * restored, too, and must stand both. Returns lab->status; -1: see lab->err. */
int lab_build(struct lab *lab, const char *list);

/* The same, and fails the test if it does not succeed. */
void lab_must_build(struct lab *lab, const char *list);

/* The site at this offset of the text; the test fails if there is none. */
const struct site *lab_site(const struct lab *lab, uint64_t offset);

/* The bytes of the patched image at a guest-linear address. */
const uint8_t *lab_at(const struct lab *lab, uint64_t address, size_t size);

/* The patch whose window contains this offset of the text; NULL if there is none. */
const struct pv_patch *lab_patch(const struct lab *lab, uint64_t offset);
uint64_t lab_window(const struct lab *lab, const struct pv_patch *patch);     /* offset in text */
uint64_t lab_trampoline(const struct lab *lab, const struct pv_patch *patch); /* guest-linear */

/* The routine of the site at this offset of the text; NULL if it has none. */
const struct pv_routine *lab_routine(const struct lab *lab, uint64_t offset);
uint64_t lab_address(const struct lab *lab, int64_t offset); /* of the ABI: guest-linear */

/* Where the branch (rel8 or rel32 of `length` bytes) at this address leads. */
uint64_t lab_branch_target(const struct lab *lab, uint64_t address, unsigned length);

/* Puts at table + at the s32 by which a kernel table at guest-linear `base` names `address`. */
void lab_name(uint8_t *table, uint64_t base, size_t at, uint64_t address);

#endif
