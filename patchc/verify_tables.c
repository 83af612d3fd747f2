/* SPDX-License-Identifier: MIT */
/* The tables by which a Linux kernel finds its own code: each entry is the original's, but for code
 * that moved, to which it must point now. Nothing may name the inside of a window. */
#include <inttypes.h>
#include <stdlib.h>

#include "patchc/verify_internal.h"

static void wrong(struct verify *v, enum linux_table_kind kind, uint64_t slot, const char *what)
{
    verify_mismatch(v, "%s: entry at 0x%" PRIx64 ": %s", linux_table_name(kind), slot, what);
}

/* A region that the kernel rewrites as a whole moves as a whole: the copies of its instructions
 * follow each other as the instructions do, and none of them changed its size (but a jump label,
 * whose copy is always `label_size` bytes). */
static bool moved_whole(const struct verify *v, uint64_t address, unsigned length,
                        unsigned label_size)
{
    uint64_t end = address + (length ? length : 1);
    const struct move *first = verify_move_at(v, address);
    if (!first || !verify_in_window(v, address))
        return !verify_window_overlaps(v, address, end);
    for (uint64_t at = address; at < end;) {
        const struct move *move = verify_move_at(v, at);
        if (!move || move->patch != first->patch ||
            move->to - first->to != move->from - first->from ||
            move->region - move->to != (label_size ? label_size : move->length))
            return false;
        at += move->length;
        if (length && at > end)
            return false;
    }
    return true;
}

/* Lock prefixes and bugs name one instruction, however long; the others a number of bytes. */
static bool names_length(enum linux_table_kind kind)
{
    return kind != LINUX_SMP_LOCKS && kind != LINUX_BUG_TABLE;
}

/* Tables whose entries stay in their places: the first field (`size` bytes) follows the code. */
static void check_in_place(struct verify *v, enum linux_table_kind kind, unsigned size)
{
    const struct linux_table *before = &v->tables_before.table[kind];
    const struct linux_table *after = &v->tables_after.table[kind];
    for (size_t i = 0; i < before->count; i++) {
        const struct linux_entry *was = &before->entries[i], *now = &after->entries[i];
        uint64_t expected = verify_moved(v, was->address);
        if (now->slot != was->slot || now->address != expected || expected == 0)
            wrong(v, kind, was->slot, "does not name the code that it named, where it is now");
        else if (!moved_whole(v, was->address, names_length(kind) ? was->length : 0,
                              kind == LINUX_JUMP_TABLE ? 5 : 0))
            wrong(v, kind, was->slot, "names code that was moved in part");
        if (expected != was->address)
            verify_claim(v, was->slot, size, CLAIM_WORD, linux_table_name(kind));
    }
}

static void check_jump_table(struct verify *v)
{
    const struct linux_table *before = &v->tables_before.table[LINUX_JUMP_TABLE];
    const struct linux_table *after = &v->tables_after.table[LINUX_JUMP_TABLE];
    for (size_t i = 0; i < before->count; i++) {
        const struct linux_entry *was = &before->entries[i], *now = &after->entries[i];
        if (!verify_same_target(v, was->second, now->second))
            wrong(v, LINUX_JUMP_TABLE, was->slot, "its target is another");
        if (was->second != now->second)
            verify_claim(v, was->slot + 4, 4, CLAIM_WORD, "jump label target");
    }
}

struct expected { /* an exception-table entry as it must be now */
    uint64_t address, fixup;
    uint64_t third; /* data, or the handler's address */
};

static int by_address(const void *a, const void *b)
{
    const struct expected *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

/* The third field is data, or (before Linux 5.16) a handler, relative to the field. */
static uint64_t third_field(const struct verify *v, const struct linux_entry *e)
{
    return v->tables_before.ex_handlers ? e->slot + 8 + (uint64_t)(int64_t)(int32_t)e->data
                                        : e->data;
}

/* The exception table is sorted by address: entries that moved are in other slots now. */
static void check_exceptions(struct verify *v)
{
    const struct linux_table *before = &v->tables_before.table[LINUX_EX_TABLE];
    const struct linux_table *after = &v->tables_after.table[LINUX_EX_TABLE];
    struct expected *expected = calloc(before->count + 1, sizeof *expected);
    if (!expected) {
        v->out_of_memory = true;
        return;
    }
    for (size_t i = 0; i < before->count; i++) {
        const struct linux_entry *e = &before->entries[i];
        expected[i] = (struct expected){verify_moved(v, e->address), e->second, third_field(v, e)};
    }
    qsort(expected, before->count, sizeof *expected, by_address);
    for (size_t i = 0; i < before->count; i++) {
        const struct linux_entry *now = &after->entries[i];
        const struct expected *e = &expected[i];
        if (e->address == 0 || now->address != e->address || third_field(v, now) != e->third)
            wrong(v, LINUX_EX_TABLE, now->slot, "is not the next of the moved and sorted entries");
        else if (!verify_same_target(v, e->fixup, now->second))
            wrong(v, LINUX_EX_TABLE, now->slot, "its fixup is another");
    }
    verify_claim(v, before->start, before->end - before->start, CLAIM_WORD, "__ex_table");
    free(expected);
}

/* Code that is found by more than its table (ftrace looks its places up by function and expects
 * them sorted), or by tables that no entry of ours could follow. */
static void check_pinned(struct verify *v, enum linux_table_kind kind)
{
    const struct linux_table *before = &v->tables_before.table[kind];
    for (size_t i = 0; i < before->count; i++)
        if (verify_window_overlaps(v, before->entries[i].address, before->entries[i].address + 1))
            wrong(v, kind, before->entries[i].slot, "names code that was patched");
}

void verify_tables(struct verify *v)
{
    if (v->tables_before.present != v->tables_after.present) {
        verify_mismatch(v, "one image is a Linux kernel, the other is not");
        return;
    }
    for (int kind = 0; kind < LINUX_TABLES; kind++) {
        const struct linux_table *before = &v->tables_before.table[kind];
        const struct linux_table *after = &v->tables_after.table[kind];
        if (before->start != after->start || before->end != after->end ||
            before->count != after->count) {
            verify_mismatch(v, "%s: its extent or its number of entries changed",
                            linux_table_name(kind));
            continue;
        }
        if (!before->count)
            continue;
        v->tables_checked++;
        switch (kind) {
        case LINUX_EX_TABLE:
            check_exceptions(v);
            break;
        case LINUX_PINNED:
        case LINUX_MCOUNT:
            check_pinned(v, kind);
            break;
        case LINUX_ALTERNATIVES: /* verify_alternatives() */
            break;
        case LINUX_PARAVIRT:
            check_in_place(v, kind, 8);
            break;
        case LINUX_JUMP_TABLE:
            check_jump_table(v);
            check_in_place(v, kind, 4);
            break;
        default:
            check_in_place(v, kind, 4);
        }
    }
}
