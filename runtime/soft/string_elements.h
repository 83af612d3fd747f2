/* SPDX-License-Identifier: MIT */
/* Elements of strings in host memory: one, and runs of them, as if they were handled one after the other. */
#ifndef RUNTIME_SOFT_STRING_ELEMENTS_H
#define RUNTIME_SOFT_STRING_ELEMENTS_H

#include "runtime/soft/operands.h"

/* Both point to the first element to be done; with DF the others lie below. */
static inline void move_elements(uint8_t *to, const uint8_t *from, uint64_t count, unsigned size,
                                 bool down)
{
    uint64_t bytes = count * size;
    if (down) {
        to -= bytes - size;
        from -= bytes - size;
    }
    /* one element after the other gives what memmove gives unless an element is read that was written before */
    if (down ? to >= from || to + bytes <= from : to <= from || to >= from + bytes) {
        memmove(to, from, bytes);
        return;
    }
    for (uint64_t n = 0; n < count; n++) {
        uint64_t at = down ? bytes - size - n * size : n * size;
        host_put(to + at, size, host_get(from + at, size));
    }
}

static inline void fill_elements(uint8_t *to, uint64_t value, uint64_t count, unsigned size,
                                 bool down)
{
    if (down)
        to -= (count - 1) * size;
    value *= size == 1   ? 0x0101010101010101u
             : size == 2 ? 0x0001000100010001u
             : size == 4 ? 0x100000001u
                         : 1;
    if (value == (value & 0xff) * 0x0101010101010101u) {
        uint64_t bytes = count * size;
        asm(""
            : "+r"(
                bytes)); /* of a size it knows too much about, the compiler makes a slow REP STOS */
        memset(to, (int)(value & 0xff), bytes);
        return;
    }
    for (uint64_t n = 0; n < count; n++)
        host_put(to + n * size, size, value);
}

/* How many comparisons are made until one ends the loop (REPE: a difference, REPNE: an equality) or all are made. */
static inline __attribute__((always_inline)) uint64_t
compare_elements(const uint8_t *left, const uint8_t *right, uint64_t value, uint64_t count,
                 unsigned size, bool down, bool until_equal)
{
    if (size == 1 && !down && !left && until_equal) {
        const uint8_t *found = memchr(right, (int)(value & 0xff), count);
        return found ? (uint64_t)(found - right) + 1 : count;
    }
    if (size == 1 && !down && left && !until_equal) {
        uint64_t same = 0;
        while (count - same >= 8 && host_get(left + same, 8) == host_get(right + same, 8))
            same += 8;
        while (same < count && left[same] == right[same])
            same++;
        return same < count ? same + 1 : count;
    }
    int64_t pace = down ? -(int64_t)size : (int64_t)size;
    for (uint64_t n = 0; n < count; n++, right += pace) {
        uint64_t l = value;
        if (left) {
            l = host_get(left, size);
            left += pace;
        }
        if ((l == host_get(right, size)) == until_equal)
            return n + 1;
    }
    return count;
}

#endif
