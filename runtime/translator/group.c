/* SPDX-License-Identifier: MIT */
/* Between the passes: accesses near each other share a look-up.
 *
 * Most accesses of a block go to its stack frame or to a few fields behind one pointer: base plus displacement,
 * with the base unchanged or moved by a constant (PUSH, POP). One look-up for the whole range, from the first
 * byte of them all to the last, finds the page for all, if it is one page. If it is not, or is not known, each
 * instruction is the interpreter's, which comes back to the rest of the group.
 *
 * A group may begin before its first access, where the look-up is cheaper (lookup.c). */
#include "runtime/translator/translation.h"

/* The access of an item whose address is a base in a host register and a displacement; all others have their own. */
static bool plain_access(const struct item *item, struct access_range *access)
{
    const struct class_row *row = &class_rows[item->class];
    return row->access && row->access(item, access);
}

static bool writes_register(const struct item *item, unsigned guest)
{
    for (unsigned n = 0; n < item->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &item->operand[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE &&
            ZydisRegisterGetClass(o->reg.value) >= ZYDIS_REGCLASS_GPR8 &&
            ZydisRegisterGetClass(o->reg.value) <= ZYDIS_REGCLASS_GPR64 &&
            guest_number(o->reg.value) == guest)
            return true;
    }
    return false;
}

/* By how much an item moves the base. False: it is not known by how much. */
static bool moves(const struct item *item, unsigned base, int32_t *by)
{
    *by = 0;
    if (base == RSP && class_rows[item->class].moves_rsp) {
        *by = class_rows[item->class].moves_rsp;
        return true;
    }
    bool add = item->z.mnemonic == ZYDIS_MNEMONIC_ADD, sub = item->z.mnemonic == ZYDIS_MNEMONIC_SUB;
    if (item->class == CLASS_COPY && (add || sub) && item->memory == NO_OPERAND &&
        item->operand[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && item->operand[0].size == 64 &&
        guest_number(item->operand[0].reg.value) == base) {
        int64_t value = item->operand[1].imm.value.s;
        *by = (int32_t)(add ? value : -value);
        return value > -RANGE_MAX && value < RANGE_MAX;
    }
    return !writes_register(item, base);
}

/* Does an item that is no member leave TEMP_ADDEND alone? */
static bool harmless(const struct item *item)
{
    if (class_rows[item->class].vectors)
        return item->memory == NO_OPERAND;
    switch (item->class) {
    case CLASS_COPY:
        return item->memory == NO_OPERAND && !item->count_in_cl;
    case CLASS_NOTHING:
        return true;
    case CLASS_LEA: {
        const ZydisDecodedOperand *o = &item->operand[item->memory];
        return o->mem.index == ZYDIS_REGISTER_NONE ||
               host_register(guest_number(o->mem.index)) != IN_MEMORY;
    }
    default:
        return false;
    }
}

/* Takes `more`, which is `delta` further on, into the range. False: it would be too long. */
static bool extend(struct access_range *range, struct access_range more, int32_t delta)
{
    /* two displacements may be 4 GiB apart */
    int64_t first = (int64_t)more.disp + delta, end = first + more.bytes;
    int64_t before = range->disp, behind = before + range->bytes;
    int64_t low = first < before ? first : before, high = end > behind ? end : behind;
    if (high - low > RANGE_MAX)
        return false;
    range->disp = (int32_t)low;
    range->bytes = (int32_t)(high - low);
    range->write |= more.write;
    return true;
}

/* The group that begins with items[first], whose access is `range`. Returns the position of its last member. */
static unsigned collect(struct item *items, unsigned count, unsigned first)
{
    struct access_range range = items[first].access;
    unsigned last = first;
    int32_t delta = 0, by;
    for (unsigned n = first; n < count; n++) {
        struct item *item = &items[n];
        struct access_range access;
        bool member = plain_access(item, &access);
        if (n > first && (member ? access.base != range.base || !extend(&range, access, delta)
                                 : !harmless(item)))
            break;
        item->delta = delta;
        item->member = member;
        if (member) {
            item->access = access;
            last = n;
        }
        if (!moves(item, range.base, &by))
            break;
        delta += by;
        if (delta > RANGE_MAX || delta < -RANGE_MAX)
            break;
    }
    return last;
}

/* The look-up may stand before an item that sets all flags: there it need not keep them. Returns the position of such a
 * one before items[first], but not before `from`; or `first`. */
static unsigned look_up_before(struct item *items, unsigned from, unsigned first)
{
    unsigned base = items[first].access.base;
    int32_t delta = 0, by;
    for (unsigned n = first; n-- > from;) {
        if (!harmless(&items[n]) || !moves(&items[n], base, &by))
            break;
        delta -= by;
        if (delta > RANGE_MAX || delta < -RANGE_MAX)
            break;
        items[n].delta = delta;
        if (items[n].sets_flags)
            return n;
    }
    return first;
}

void group_items(struct item *items, unsigned count)
{
    for (unsigned first = 0, from = 0; first < count; first++) {
        if (!plain_access(&items[first], &items[first].access))
            continue;
        unsigned last = collect(items, count, first);
        first = look_up_before(items, from, first);
        for (unsigned n = first; n <= last; n++) {
            items[n].grouped = true;
            items[n].first = (uint8_t)first;
            items[n].last = (uint8_t)last;
        }
        from = last + 1;
        first = last;
    }
}

struct access_range group_rest(const struct item *items, unsigned from)
{
    unsigned n = from;
    while (!items[n].member)
        n++;
    struct access_range range = items[n].access;
    range.disp += items[n].delta - items[from].delta;
    for (; n <= items[from].last; n++)
        if (items[n].member)
            extend(&range, items[n].access, items[n].delta - items[from].delta);
    return range;
}
