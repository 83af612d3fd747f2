/* SPDX-License-Identifier: MIT */
/* The code of a site as `patchc inspect` shows it, in text and in pages: the window as it was and
 * as it is, and the pieces of code that its patch leads through. */
#ifndef PATCHC_INSPECT_CODE_H
#define PATCHC_INSPECT_CODE_H

#include "patchc/inspect_image.h"
#include "patchc/inspect_view.h"

#define CODE_BYTES_SHOWN 7 /* of an instruction; more are cut: two columns must fit a line */
#define CODE_PARTS       3

struct code_line { /* one instruction, as text */
    uint64_t address;
    unsigned length;
    char bytes[2 * CODE_BYTES_SHOWN + 3];
    char text[INSTRUCTION_TEXT];
};

/* Decodes the instruction at `at` in code[0 .. size), which stands at `address`. A byte that is no
 * instruction is a line of its own, so that a listing always goes on. Returns its length. */
unsigned code_line(const struct disassembler *disassembler, uint64_t address, const uint8_t *code,
                   size_t size, size_t at, struct code_line *line);

/* The window's bytes, as they were and as they are, in the image; false if it does not have both,
 * or if the window is longer than any real one. */
bool code_window(const struct patched_image *patched, const struct view_site *site,
                 const uint8_t **before, const uint8_t **after);

struct code_part {
    const char *title; /* "Trampoline" */
    uint64_t address;  /* guest-linear */
    uint64_t size;
    const uint8_t *code; /* NULL: the image does not have it, or it is longer than any real one */
};

/* What the site's patch leads through: island or entry, trampoline, emulation path. Returns how many there are, and
 * whose patch it is; 0: none. */
unsigned code_parts(const struct patched_image *patched, const struct view_site *site,
                    struct pv_patch *patch, struct code_part parts[CODE_PARTS]);

/* What stands at an address of the patch's trampoline ("native path of routine 3"); "" if it is nothing special. */
const char *code_remark(const struct patched_image *patched, const struct pv_patch *patch,
                        uint64_t address, char *text, size_t size);

#endif
