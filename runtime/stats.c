/* SPDX-License-Identifier: MIT */
/* Counters of a run. */
#include "runtime/stats.h"

/* Looks no further than this for an address's place, so that a full table costs no more than an empty one. */
#define HOT_PROBES 32u

static void count_address(struct stats *stats, uint64_t address)
{
    /* hot[0] is address 0's, where the rest goes */
    unsigned at = (unsigned)(address * 0x9e3779b97f4a7c15ull >> 40) % (HOT_ADDRESSES - 1);
    for (unsigned n = 0; n < HOT_PROBES; n++) {
        struct hot_address *hot = &stats->hot[1 + (at + n) % (HOT_ADDRESSES - 1)];
        if (hot->count == 0)
            hot->address = address;
        if (hot->address == address) {
            hot->count++;
            return;
        }
    }
    stats->hot[0].count++;
}

void stats_exit(struct stats *stats, enum exit_kind kind, uint64_t rip)
{
    stats->exits[kind]++;
    if (kind < EXIT_KINDS_IN_TOTAL)
        count_address(stats, rip);
}
