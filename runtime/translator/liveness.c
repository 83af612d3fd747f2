/* SPDX-License-Identifier: MIT */
/* Between the passes: who sees the flags. Not only instructions that read them: each that may leave to the interpreter
 * does, for it may fault; and so does the next block. */
#include "runtime/translator/translation.h"

#define STATUS_FLAGS                                                                               \
    (ZYDIS_CPUFLAG_CF | ZYDIS_CPUFLAG_PF | ZYDIS_CPUFLAG_AF | ZYDIS_CPUFLAG_ZF |                   \
     ZYDIS_CPUFLAG_SF | ZYDIS_CPUFLAG_OF)

/* All flags come from the operands: the interpreter, too, lets the host execute these without giving it the flags
 * there were (AND, OR, XOR and TEST, whose AF is undefined, clear it on all processors). */
static bool sets_all(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_CMPXCHG:
        return true;
    default:
        return false;
    }
}

static bool may_leave(const struct item *item)
{
    switch (item->class) {
    case CLASS_COPY:
        return item->memory != NO_OPERAND;
    case CLASS_LEA:
    case CLASS_NOTHING:
        return false;
    default:
        return true;
    }
}

static ZydisAccessedFlagsMask changed(const struct item *item)
{
    const ZydisAccessedFlags *flags = item->z.cpu_flags;
    return flags ? (flags->modified | flags->set_0 | flags->set_1 | flags->undefined) & STATUS_FLAGS
                 : 0;
}
static bool reads(const struct item *item)
{
    return item->z.cpu_flags && item->z.cpu_flags->tested & STATUS_FLAGS;
}

void find_liveness(struct item *items, unsigned count)
{
    bool live = true; /* behind the item: the next block may look at all flags */
    for (unsigned n = count; n-- > 0;) {
        struct item *item = &items[n];
        const struct class_row *row = &class_rows[item->class];
        bool all = item->class == CLASS_COPY && sets_all(item->z.mnemonic);
        bool leaves = may_leave(item);
        if (row->flags_in_vcpu) {
            item->sets_flags = item->needs_flags = false;
            item->keeps_flags = live = true;
            continue;
        }
        item->sets_flags = all && !leaves;
        item->keeps_flags = !changed(item);
        /* what changes some keeps the others, or has undefined ones that may come from those before */
        item->needs_flags =
            !row->plain_flags || reads(item) || (!item->keeps_flags && !all && live);
        live = leaves || item->needs_flags || (!all && live);
    }
}
