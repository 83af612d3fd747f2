/* SPDX-License-Identifier: MIT */
/* Call entries (D4, D5): where a call patch leads; the entry finds the routine in the table.
 *
 * The usual one drops the return address and jumps through the table, which holds linked addresses.
 * Code that Linux runs at a low identity address before its page tables are up needs another: it
 * adds to the table's address how far the entry itself is from where it was linked. Neither touches
 * a flag; NOT and LEA do the subtraction. */
#include <string.h>

#include "patchc/emit.h"

static const uint8_t entry_code[EMIT_CALL_ENTRY_SIZE] = {
    0x48, 0x8d, 0x64, 0x24, 0x08,    /* lea 8(%rsp),%rsp */
    0xff, 0x25, 0,    0,    0,    0, /* jmp *table(%rip) */
};
enum { ENTRY_TABLE = 7, ENTRY_END = 11 };

static const uint8_t low_entry_code[EMIT_LOW_ENTRY_SIZE] = {
    0x50,                               /* entry: push %rax */
    0x51,                               /* push %rcx */
    0x48, 0x8b, 0x05, 0,    0,    0, 0, /* mov linked(%rip),%rax */
    0x48, 0xf7, 0xd0,                   /* not %rax */
    0x48, 0x8d, 0x0d, 0,    0,    0, 0, /* lea entry(%rip),%rcx */
    0x48, 0x8d, 0x44, 0x08, 0x01,       /* lea 1(%rax,%rcx),%rax: distance */
    0x48, 0x8b, 0x0d, 0,    0,    0, 0, /* mov table(%rip),%rcx */
    0x48, 0x8d, 0x04, 0x08,             /* lea (%rax,%rcx),%rax */
    0x48, 0x89, 0x44, 0x24, 0x10,       /* mov %rax,16(%rsp): instead of the return address */
    0x59,                               /* pop %rcx */
    0x58,                               /* pop %rax */
    0xc3,                               /* ret */
    0xcc, 0xcc, 0xcc, 0xcc, 0xcc,       /* linked: .quad entry */
};
enum { LOW_LINKED = 5, LOW_SELF = 15, LOW_TABLE = 27 };

bool emit_entry_is_low(const struct plan *plan, const struct patch *patch)
{
    enum reason excluded;
    return patch->form == PV_FORM_CALL && !(patch->flags & PV_PATCH_REPLACEMENT) &&
           !(context_at(plan->context, patch->window, &excluded) & CONTEXT_HIGH);
}

/* The displacement in `code` at `field`, the last four bytes of an instruction. */
static void relative(uint8_t *code, unsigned field, uint64_t address, uint64_t target)
{
    uint32_t value = (uint32_t)(target - (address + field + 4));
    memcpy(code + field, &value, 4);
}

int emit_call_entry(const struct plan *plan, const struct patch *patch, struct output_bytes *out,
                    struct error *err)
{
    uint64_t slot = plan->routine_table + 8ull * patch->first_routine, at = patch->island;
    uint8_t code[EMIT_LOW_ENTRY_SIZE];
    if (!emit_entry_is_low(plan, patch)) {
        memcpy(code, entry_code, sizeof entry_code);
        relative(code, ENTRY_TABLE, at, slot);
        return output_put(out, at, code, sizeof entry_code, err);
    }
    memcpy(code, low_entry_code, sizeof low_entry_code);
    relative(code, LOW_LINKED, at, at + EMIT_LOW_ENTRY_WORD);
    relative(code, LOW_SELF, at, at);
    relative(code, LOW_TABLE, at, slot);
    memcpy(code + EMIT_LOW_ENTRY_WORD, &at, sizeof at);
    return output_put(out, at, code, sizeof code, err);
}
