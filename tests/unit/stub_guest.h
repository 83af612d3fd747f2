/* SPDX-License-Identifier: MIT */
/* A machine that has loaded a patched image, made by hand: routines around filled templates, the
 * tables that describe them, and the note that leads there. Everything may be changed before the
 * stub is attached.
 *
 *     struct stub_guest *g = stub_guest_open(true);
 *     int index = stub_guest_add(g, "0f a2", "cpuid_doorbell", PV_FORM_JUMP);
 *     assert_int_equal(stub_guest_attach(g), 0);
 *     stub_guest_run(g, index);        its registers are g->cpu's
 *     stub_guest_close(g);
 */
#ifndef TESTS_UNIT_STUB_GUEST_H
#define TESTS_UNIT_STUB_GUEST_H

#include "hvstub/hvstub.h"
#include "image/image.h"
#include "runtime/stub.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

/* The image is linked at STUB_GUEST_LINEAR and loaded at STUB_GUEST_PHYSICAL; both are mapped. */
#define STUB_GUEST_PHYSICAL 0x200000u
#define STUB_GUEST_LINEAR   0xffffffff80200000ull
#define STUB_GUEST_SIZE     0x100000u
#define STUB_GUEST_STACK    0x180000u /* top of a stack of 64 KiB */
#define STUB_GUEST_IDT      0x10000u  /* gates lead to a HLT at STUB_GUEST_HANDLER + 16 * vector */
#define STUB_GUEST_HANDLER  0x20000u

enum { STUB_GUEST_ROUTINES = 16, STUB_GUEST_SLOT = 0x1000 };

/* Offsets in a routine's slot. */
enum {
    SLOT_WINDOW = 0,       /* the patch; where it goes on, 16 bytes later, is a HLT */
    SLOT_LINK = 0x100,     /* jmp, native instruction, jmp back */
    SLOT_EMULATION = 0x200 /* the template, jmp to the tail */
};

struct stub_guest {
    struct vm vm;
    struct vcpu *cpu; /* 64-bit mode, CPL 0, interrupts off */
    struct image image;
    struct error err;
    struct pv_note note;
    /* in guest memory */
    struct pv_header *header;
    struct pv_routine *routines;
    struct pv_patch *patches;
    uint64_t *table;
    struct pv_state *state; /* NULL: the image has none */
    /* private */
    struct image_segment segments[2];
    uint8_t note_bytes[128];
};

struct stub_guest *stub_guest_open(bool with_state); /* on the soft engine */
struct stub_guest *stub_guest_open_on(const struct engine *engine, bool with_state);
void stub_guest_close(struct stub_guest *g);

/* Adds a routine for this instruction with this template, in this form (jump or break). Its
 * index. */
int stub_guest_add(struct stub_guest *g, const char *hex, const char *template_name,
                   enum pv_form form);

/* Writes the note and attaches the stub: as stub_attach. */
int stub_guest_attach(struct stub_guest *g);

/* Runs from the routine's window until the guest halts. False: it did not, or halted elsewhere than
 * behind the window. */
bool stub_guest_run(struct stub_guest *g, int index);

/* Where in guest-linear memory, or in the host's, an offset in a routine's slot is. */
uint64_t stub_guest_linear(int index, unsigned offset);
uint8_t *stub_guest_at(struct stub_guest *g, int index, unsigned offset);

/* Listed exits so far, of all kinds. */
uint64_t stub_guest_exits(const struct stub_guest *g);

#endif
