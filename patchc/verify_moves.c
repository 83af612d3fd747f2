/* SPDX-License-Identifier: MIT */
/* Where instructions of the original stand now, and which addresses lie in windows. */
#include <stdlib.h>

#include "patchc/verify_internal.h"

static int by_from(const void *a, const void *b)
{
    const struct move *x = a, *y = b;
    return x->from < y->from ? -1 : x->from > y->from;
}

void verify_moves_sort(struct verify *v)
{
    if (v->moves.count)
        qsort(v->moves.data, v->moves.count, sizeof(struct move), by_from);
}

/* The last move at or before `address`. */
static const struct move *move_before(const struct verify *v, uint64_t address)
{
    const struct move *moves = v->moves.data;
    size_t low = 0, high = v->moves.count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (moves[middle].from <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &moves[low - 1] : NULL;
}

const struct move *verify_move_at(const struct verify *v, uint64_t address)
{
    const struct move *move = move_before(v, address);
    return move && move->from == address ? move : NULL;
}

const struct move *verify_move_containing(const struct verify *v, uint64_t address)
{
    const struct move *move = move_before(v, address);
    return move && address - move->from < move->length ? move : NULL;
}

const struct window *verify_window_containing(const struct verify *v, uint64_t address)
{
    size_t low = 0, high = v->window_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (v->windows[middle].start <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low && address < v->windows[low - 1].end ? &v->windows[low - 1] : NULL;
}

bool verify_window_overlaps(const struct verify *v, uint64_t from, uint64_t to)
{
    size_t low = 0, high = v->window_count;
    while (low < high) { /* the first window that ends behind `from` */
        size_t middle = low + (high - low) / 2;
        if (v->windows[middle].end <= from)
            low = middle + 1;
        else
            high = middle;
    }
    return low < v->window_count && v->windows[low].start < to;
}

bool verify_in_window(const struct verify *v, uint64_t address)
{
    return verify_window_containing(v, address) != NULL;
}

bool verify_inside_window(const struct verify *v, uint64_t address)
{
    const struct window *window = verify_window_containing(v, address);
    return window && window->start != address;
}

uint64_t verify_moved(const struct verify *v, uint64_t address)
{
    if (!verify_in_window(v, address))
        return address;
    const struct move *move = verify_move_at(v, address);
    return move ? move->to : 0;
}

bool verify_same_target(const struct verify *v, uint64_t before, uint64_t after)
{
    const struct window *window = verify_window_containing(v, before);
    if (!window)
        return after == before;
    if (before == window->start && after == before)
        return true; /* the patch itself leads to the copy */
    const struct move *move = verify_move_at(v, before);
    return move && (after == move->to || (move->link && after == move->link));
}

/* Linux puts a signature in front of CPUID for Xen: ud2, then the letters "xen". */
static unsigned xen_prefix(const uint8_t *bytes, uint64_t size)
{
    static const uint8_t prefix[] = {0x0f, 0x0b, 'x', 'e', 'n'};
    return size >= sizeof prefix && __builtin_memcmp(bytes, prefix, sizeof prefix) == 0
               ? sizeof prefix
               : 0;
}

/* The first address of the code around `address` at which an instruction is known to begin. */
static uint64_t known_start(const struct verify *v, uint64_t address)
{
    uint64_t distance;
    const struct image_symbol *symbol = image_symbol_at(&v->before, address, &distance);
    const struct image_section *section = image_section_at(&v->before, address);
    if (symbol && (!section || symbol->address >= section->address))
        return symbol->address;
    if (section)
        return section->address;
    for (size_t i = 0; i < v->before.segment_count; i++) {
        const struct image_segment *s = &v->before.segments[i];
        if (s->type == 1 && address >= s->vaddr && address - s->vaddr < s->mem_size)
            return s->vaddr;
    }
    return address;
}

/* The original's code from `at` on: at least `size` bytes and up to 15 more, as an instruction may
 * read them. NULL if they are not there. */
static const uint8_t *code_at(const struct verify *v, uint64_t at, uint64_t size, uint64_t *room)
{
    *room = size + 15;
    const uint8_t *bytes = image_at(&v->before, at, *room);
    if (bytes)
        return bytes;
    *room = size;
    return image_at(&v->before, at, size);
}

/* Bytes of the next thing in the code: an instruction, the Xen signature, the far jump by which
 * 32-bit code enters long mode (SDM 2A, JMP ptr16:32), or one undecodable byte; instruction->length
 * is 0 for the latter three. */
static unsigned next_length(const struct verify *v, const uint8_t *bytes, uint64_t room,
                            ZydisDecodedInstruction *instruction)
{
    unsigned length = xen_prefix(bytes, room);
    if (!length && verify_decode(v, bytes, room, instruction))
        return instruction->length;
    instruction->length = 0;
    if (!length && room >= 7 && bytes[0] == 0xea)
        return 7;
    return length ? length : 1;
}

bool verify_is_start(struct verify *v, uint64_t address)
{
    uint64_t from = known_start(v, address), at = from, room;
    if (v->memo.from == from && v->memo.at <= address && v->memo.at >= from)
        at = v->memo.at; /* questions come in order of address: go on from the last one */
    const uint8_t *bytes = code_at(v, at, address - at + 1, &room);
    if (!bytes)
        return false;
    uint64_t done = 0, end = address - at;
    while (done < end) {
        ZydisDecodedInstruction i;
        unsigned length = next_length(v, bytes + done, room - done, &i);
        if (done + length > end)
            break;
        done += length;
    }
    v->memo.from = from;
    v->memo.at = at + done;
    return done == end;
}

bool verify_is_padding(const struct verify *v, uint64_t from, uint64_t to, bool *falls_into)
{
    uint64_t start = known_start(v, from), room, last_at = start;
    const uint8_t *bytes = code_at(v, start, to - start, &room);
    ZydisDecodedInstruction i, last = {0};
    *falls_into = true;
    if (!bytes)
        return false;
    for (uint64_t at = start; at < to;) {
        unsigned length = next_length(v, bytes + (at - start), room - (at - start), &i);
        bool int3 = i.length && i.mnemonic == ZYDIS_MNEMONIC_INT3;
        bool nop = i.length && i.mnemonic == ZYDIS_MNEMONIC_NOP;
        if (at + length > from) {
            if (!int3 && !nop)
                return false;
        } else if (!nop) {
            last = i;
            last_at = at;
        }
        at += length;
    }
    *falls_into = !last.length ||
                  (last.mnemonic != ZYDIS_MNEMONIC_INT3 && verify_falls_through(v, &last, last_at));
    return true;
}
