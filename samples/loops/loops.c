/* SPDX-License-Identifier: MIT */
/* Loops of instructions that a processor is measured by. Each is gone through a little, which shows
 * that its result is right; to measure one, it is named, with how many rounds of it:
 *
 *     hvrun --append "far rounds=1000" build/samples/loops.elf
 *
 * The time of many rounds without that of one is the loop's. What is printed tells the instructions of all rounds (a
 * repeated string instruction counts for each element), but for the few around them. */
#include "samples/kernel/kernel.h"

enum { COPY = 1 << 20, SMALL_COPY = 8 << 10, SMALL = 64 << 10, DISTANCE = 0x105040 };

typedef uint64_t work(uint64_t rounds, uint8_t *data, uint64_t bytes);
work work_count, work_alu, work_copy, work_far, work_movs, work_recurse, work_indirect, work_mpi,
    work_sse, work_x87;

static const struct loop {
    const char *name;
    work *work;
    /* instructions of a round: so many, and so many for each 16 bytes that it copies */
    uint64_t instructions, for_16_bytes;
} loops[] = {
    {"count", work_count, 2000, 0},
    {"alu", work_alu, 1000, 0},
    {"copy", work_copy, 4, 9},
    {"far", work_far, 4, 9},
    {"movs", work_movs, 5, 2},
    {"recurse", work_recurse, 115, 0},
    {"indirect", work_indirect, 800, 0},
    {"mpi", work_mpi, 5005, 0},
    {"sse", work_sse, 4, 9},
    {"x87", work_x87, 503, 0},
};

static uint8_t data[COPY + DISTANCE] __attribute__((aligned(4096)));

static void run(const struct loop *loop, uint64_t rounds, uint64_t bytes)
{
    uint64_t x = 1, *words = (uint64_t *)data;
    for (unsigned i = 0; i < (bytes > SMALL ? bytes : SMALL) / sizeof *words; i++)
        words[i] = x = x * 6364136223846793005u + 1442695040888963407u;
    uint64_t result = loop->work(rounds, data, bytes);
    print("%s: %u rounds, %u instructions, result %x\n", loop->name, rounds,
          rounds * (loop->instructions + loop->for_16_bytes * (bytes / 16)), result);
}

void main(void)
{
    uint64_t rounds = command_line_number("rounds", 0);
    for (unsigned n = 0; n < sizeof loops / sizeof *loops; n++)
        if (!rounds)
            run(&loops[n], 20, SMALL_COPY);
        else if (command_line_has(loops[n].name))
            run(&loops[n], rounds, COPY);
    finish("loops");
}
