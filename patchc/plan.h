/* SPDX-License-Identifier: MIT */
/* The plan: which windows are replaced, what stands in their trampolines, where everything goes.
 *
 * An atom is the smallest unit that moves: an instruction, or a region that must stay whole (an
 * alternative's place, STI with the site that follows it), or dead padding behind a jump. A patch
 * replaces a window of consecutive atoms; its trampoline holds their displaced copies, and a
 * routine for each site among them. */
#ifndef PATCHC_PLAN_H
#define PATCHC_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "image/relocs.h"
#include "patchc/build.h"
#include "patchc/code.h"
#include "patchc/context.h"
#include "patchc/linux_tables.h"
#include "patchc/site.h"
#include "patchc/space.h"
#include "patchc/template.h"

enum atom_kind {
    ATOM_INSTRUCTION,
    ATOM_REGION,  /* an alternative's place: moves whole, bytes kept */
    ATOM_STI,     /* sti and the site that follows it */
    ATOM_PADDING, /* dead bytes: may be overwritten, nothing to displace */
};

enum atom_flag {
    ATOM_NO_FALL = 1, /* control never continues behind it */
    ATOM_CALL = 2,    /* a direct call that no table refers to */
    ATOM_TARGET = 4,  /* something other than falling through may arrive at its first byte */
    ATOM_GROW = 8,    /* region: grown to REGION_MIN bytes with NOPs */
    ATOM_TABLES = 16, /* a kernel table refers to it and must follow */
};

#define REGION_MIN 5u /* bytes that a call needs: alternatives are grown to that */

struct atom {
    uint64_t address; /* guest-linear, in the original */
    uint32_t length;  /* bytes */
    uint8_t kind;     /* enum atom_kind */
    uint8_t flags;    /* enum atom_flag */
    int32_t site;     /* index in plan->sites of the site it holds, -1 = none */
    uint32_t offset;  /* of its displaced copy (for a site: of its link) in the trampoline, bytes */
};

struct routine {
    uint32_t site; /* the (first) site it stands for */
    uint32_t patch;
    uint32_t atom; /* index in the patch's atoms */
    const struct template *template;
    unsigned flags; /* PV_ROUTINE_* */
    enum pv_kind kind;
    uint64_t link, native, tail, emulation; /* guest-linear */
    uint32_t emulation_size;                /* bytes, closing jump not included */
};

struct patch {
    uint64_t window;
    uint32_t window_size;
    uint8_t form;       /* enum pv_form */
    uint8_t flags;      /* PV_PATCH_* */
    uint8_t tactic;     /* enum tactic */
    bool returns;       /* replacement: the trampoline ends with jmp __x86_return_thunk */
    struct atom *atoms; /* window order; owned */
    uint32_t atom_count;
    uint32_t first_routine, routine_count;
    uint64_t trampoline;      /* guest-linear */
    uint32_t trampoline_size; /* bytes up to the emulation paths */
    uint32_t total_size;      /* bytes, emulation paths included */
    uint64_t island;          /* see struct pv_patch.island_offset; 0 = none */
    uint64_t spare;    /* evicted: window bytes behind its jump, given to an island; 0 = none */
    uint32_t creation; /* index before sorting */
    int64_t entry;     /* replacement: its alternatives entry, else -1 */
    int64_t shares; /* replacement: index of the patch whose trampoline it shares, -1 = its own */
};

struct plan {
    /* what it works on (borrowed) */
    const struct image *image;
    struct code *code;
    const struct context *context;
    const struct linux_tables *tables;
    const struct relocs *relocs;
    const struct template_set *templates;
    const struct build_options *options;
    struct site *sites; /* sorted by address */
    size_t site_count;
    /* what it decides (owned) */
    struct patch *patches; /* sorted by window once plan_layout is done */
    size_t patch_count, patch_capacity;
    struct routine *routines;
    size_t routine_count, routine_capacity;
    bool *grow;    /* per alternatives entry: its replacement needs REGION_MIN bytes */
    uint64_t *led; /* sorted: fixups of __ex_table and targets of __jump_table */
    size_t led_count;
    uint64_t **claimed; /* per code section, one bit per byte: in a window or an island */
    struct space space;
    struct template_available
        facilities; /* context field unused: state and tables that the image will have */
    uint64_t header, routine_table, routine_info, patch_info, cpuid_table, msr_table,
        state; /* guest-linear, 0 = none */
    uint32_t state_size;
    uint64_t return_thunk; /* __x86_return_thunk, 0 = none */
    int64_t *replaced; /* per alternatives entry: index of the patch that replaces it, -1 = none */
    const uint32_t *
        relocs_sorted[RELOC_KINDS]; /* relocs->words, ascending (owned where it had to be sorted) */
    uint32_t *relocs_owned[RELOC_KINDS];
    bool sorted; /* patches are sorted by window */
    bool failed; /* memory ran out */
};

/* Plans all sites and lays the result out: every address is known afterwards. The borrowed fields,
 * sites and facilities must be set. -1 with *err set only when memory runs out. */
int plan_open(struct plan *plan, struct error *err);
void plan_close(struct plan *plan);

/* Where control that went to `address` in the original must go now: to the displaced copy if it
 * lies inside a window (not at its start), else `address` itself. */
uint64_t plan_forward(const struct plan *plan, uint64_t address);

/* Where the instruction or table-covered byte at `address` is now: the displaced copy if it moved
 * (window starts included; a site: its native path), else `address` itself. */
uint64_t plan_moved(const struct plan *plan, uint64_t address);

/* The patch whose window contains `address` and the atom there, or NULL. Replacement patches are
 * not considered. */
const struct patch *plan_patch_at(const struct plan *plan, uint64_t address,
                                  const struct atom **atom);

/* True if an exception fixup or a jump label leads to `address`: such targets follow when code
 * moves. */
bool plan_table_leads_to(const struct plan *plan, uint64_t address);

/* Between the planner's files. */
struct patch *plan_add_patch(struct plan *plan, const struct atom *atoms, int count);
bool plan_choose_template(struct plan *plan, struct site *site, enum reason *why);
void plan_assign_site(struct plan *plan, uint32_t site, uint32_t patch, unsigned slot, bool leads);
bool plan_region_window(struct plan *plan, uint64_t address);

/* Replacements in .altinstr_replacement (alternatives.c). The first, before windows are planned,
 * marks places that must grow; the second decides. */
void alternatives_mark(struct plan *plan);
int alternatives_plan(struct plan *plan, struct error *err);

/* Addresses for everything (layout.c). */
int plan_layout(struct plan *plan, struct error *err);

/* True if a relocation of the guest's applies to a byte in [from, to). */
bool plan_relocated(const struct plan *plan, uint64_t from, uint64_t to);

#endif
