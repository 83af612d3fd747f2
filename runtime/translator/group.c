/* SPDX-License-Identifier: MIT */
/* Between the passes: accesses near each other share a look-up.
 *
 * Most accesses of a block go to its stack frame or to a few fields behind one pointer: base plus displacement,
 * with the base unchanged or moved by a constant (PUSH, POP). One look-up for the whole range, from the first
 * byte of them all to the last, finds the page for all, if it is one page. If it is not, or is not known, each
 * instruction is the interpreter's, which comes back to the rest of the group. Where that happens often the block is
 * translated again, with a look-up for each access (translator.c).
 *
 * A group may begin before its first access, where the look-up is cheaper (lookup.c). In traces two groups may overlap
 * (a copy's source and destination): the second one's page is in another register. */
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
    if (base == RSP && moves_inner(item, by))
        return true;
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
    case CLASS_JUMP:
    case CLASS_JUMP_IF:
        return item->inner && item->memory == NO_OPERAND;
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

struct group {
    struct access_range range; /* from the base as it is before items[first] */
    unsigned first, last;
    int32_t delta; /* of the base, since then */
    bool open;
};

static void begin(struct group *group, unsigned first, struct access_range access)
{
    *group = (struct group){.range = access, .first = first, .open = true};
}

static bool take(struct group *group, const struct access_range *access, unsigned position)
{
    if (!group->open || access->base != group->range.base ||
        !extend(&group->range, *access, group->delta))
        return false;
    group->last = position;
    return true;
}

/* False: where its base is behind the item is not known. */
static bool move(struct group *group, const struct item *item)
{
    int32_t by = 0;
    if (group->open && !moves(item, group->range.base, &by))
        return false;
    group->delta += by;
    return group->delta <= RANGE_MAX && group->delta >= -RANGE_MAX;
}

static bool names_register_in_memory(const struct item *item)
{
    for (unsigned n = 0; n < item->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &item->operand[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(o->reg.value) >= ZYDIS_REGCLASS_GPR8 &&
            ZydisRegisterGetClass(o->reg.value) <= ZYDIS_REGCLASS_GPR64 &&
            host_register(guest_number(o->reg.value)) == IN_MEMORY)
            return true;
    }
    return false;
}

/* Does an item, a member or harmless, leave TEMP_ADDRESS alone, too? */
static bool keeps_address(const struct item *item)
{
    switch (item->class) {
    case CLASS_LEA:
    case CLASS_RETURN:
        return false;
    case CLASS_JUMP:
    case CLASS_CALL:
        return is_relative(item);
    case CLASS_COPY:
        return item->memory != NO_OPERAND || !names_register_in_memory(item);
    default:
        return true;
    }
}

/* Takes the item into one of the groups; a second one may be begun with it. False: both end before it. */
static bool collect_item(struct group *groups, struct item *item, unsigned position, bool two)
{
    struct access_range access;
    bool member = plain_access(item, &access), second = false;
    if (groups[1].open && !keeps_address(item))
        return false;
    if (member && !take(&groups[0], &access, position)) {
        second = take(&groups[1], &access, position);
        if (!second && (!two || groups[1].open || !keeps_address(item)))
            return false;
        if (!second)
            begin(&groups[1], position, access);
        groups[1].last = position;
        second = true;
    }
    if (!member && !harmless(item))
        return false;
    item->member = member;
    item->second = second;
    item->delta = groups[second].delta;
    if (member)
        item->access = access;
    return true;
}

/* The group that begins with items[first], and one between whose members its own are. */
static void collect(struct item *items, unsigned count, unsigned first, bool two,
                    struct group *groups)
{
    begin(&groups[0], first, items[first].access);
    groups[0].last = first;
    groups[1] = (struct group){.open = false};
    for (unsigned n = first; n < count; n++)
        if (!collect_item(groups, &items[n], n, two) || !move(&groups[0], &items[n]) ||
            !move(&groups[1], &items[n]))
            break;
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

static void number(struct item *items, const struct group *group, bool second)
{
    for (unsigned n = group->first; n <= group->last; n++) {
        if (items[n].second != second)
            continue;
        items[n].grouped = true;
        items[n].first = (uint8_t)group->first;
        items[n].last = (uint8_t)group->last;
    }
}

void group_items(struct item *items, unsigned count, bool two, bool apart)
{
    struct group groups[2];
    for (unsigned first = 0, from = 0; first < count; first++) {
        if (!plain_access(&items[first], &items[first].access))
            continue;
        collect(items, apart ? first + 1 : count, first, two, groups);
        groups[0].first = look_up_before(items, from, first);
        number(items, &groups[0], false);
        first = groups[0].last;
        if (groups[1].open) {
            number(items, &groups[1], true);
            first = groups[1].last > first ? groups[1].last : first;
        }
        from = first + 1;
    }
}

struct access_range group_rest(const struct item *items, unsigned from)
{
    struct access_range range = {.bytes = 0};
    for (unsigned n = from; n <= items[from].last; n++) {
        int32_t delta = items[n].delta - items[from].delta;
        if (!items[n].member || items[n].second != items[from].second)
            continue;
        if (range.bytes) {
            extend(&range, items[n].access, delta);
        } else {
            range = items[n].access;
            range.disp += delta;
        }
    }
    return range;
}
