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

/* Decodes from *at on, up to `address`: the last instruction that begins before it goes to *last
 * (of no-ops and INT3: those do not count), its address to *last_at. True if an instruction ends
 * there. */
static bool decode_up_to(const struct verify *v, uint64_t *at, uint64_t address,
                         ZydisDecodedInstruction *last, uint64_t *last_at)
{
    const uint8_t *bytes = image_at(&v->before, *at, address - *at + 1);
    if (!bytes)
        return false;
    /* An instruction may read up to 15 bytes, the last ones of them beyond `address`. */
    uint64_t size = address - *at + 16;
    if (!image_at(&v->before, *at, size))
        size = address - *at + 1;
    uint64_t done = 0, end = address - *at;
    while (done < end) {
        ZydisDecodedInstruction i;
        unsigned length = xen_prefix(bytes + done, size - done);
        bool code = !length && verify_decode(v, bytes + done, size - done, &i);
        if (!length)
            length = code ? i.length : 1;
        if (done + length > end)
            break;
        if (code && i.mnemonic != ZYDIS_MNEMONIC_NOP) {
            *last = i;
            *last_at = *at + done;
        }
        done += length;
    }
    *at += done;
    return done == end;
}

bool verify_is_start(struct verify *v, uint64_t address)
{
    uint64_t from = known_start(v, address), at = from, ignored;
    ZydisDecodedInstruction last;
    if (v->memo.from == from && v->memo.at <= address && v->memo.at >= from)
        at = v->memo.at; /* questions come in order of address: go on from the last one */
    bool start = decode_up_to(v, &at, address, &last, &ignored);
    v->memo.from = from;
    v->memo.at = at;
    return start;
}

bool verify_falls_into(struct verify *v, uint64_t address)
{
    uint64_t from = known_start(v, address), at = from, last_at = from;
    ZydisDecodedInstruction last = {0};
    return address == from || !decode_up_to(v, &at, address, &last, &last_at) || !last.length ||
           (last.mnemonic != ZYDIS_MNEMONIC_INT3 && verify_falls_through(v, &last, last_at));
}
