/* SPDX-License-Identifier: MIT */
/* FP and SIMD instructions of the guest, executed by the host: the cache of stubs. */
#include "runtime/soft/host_assist.h"

#include <string.h>

#include <xxhash.h>

#include "runtime/cpuid.h"
#include "runtime/soft/host_code.h"
#include "runtime/soft/host_stub.h"

/* True if guest and host have this set; `wide`: on YMM registers. What CPUID offers of them, the host has. */
static bool offered(ZydisISASet set, bool wide)
{
    /* With XMM registers these need no more than AVX and what they extend. */
    if (set == ZYDIS_ISA_SET_VAES && !wide)
        set = ZYDIS_ISA_SET_AES;
    if (set == ZYDIS_ISA_SET_VPCLMULQDQ && !wide)
        set = ZYDIS_ISA_SET_PCLMULQDQ;
    return cpuid_offers_isa(set);
}

/* ---- the stubs, found by what they depend on ---- */
#define ENTRIES   32768u
#define SLOTS     (2 * ENTRIES)
#define CODE_SIZE (4u << 20)

static struct {
    struct host_code code;
    struct {
        struct stub_plan plan;
        struct assist assist;
    } entry[ENTRIES];
    unsigned entries;
    uint16_t slot[SLOTS]; /* hash table, open addressing: index in entry + 1; 0 = free */
} stubs;
_Static_assert(ENTRIES < UINT16_MAX, "an index in 16 bits");

int assist_init(struct error *err)
{
    return stubs.code.writable ? 0 : host_code_create(&stubs.code, CODE_SIZE, err);
}

bool assist_full(void)
{
    return stubs.entries + BLOCK_MAX > ENTRIES ||
           (stubs.code.writable && stubs.code.used + BLOCK_MAX * STUB_MAX > stubs.code.size);
}

void assist_reset(void)
{
    host_code_reset(&stubs.code);
    memset(stubs.slot, 0, sizeof stubs.slot);
    stubs.entries = 0;
}

static const struct assist *add(const struct stub_plan *plan, uint16_t *slot)
{
    uint8_t code[STUB_MAX];
    if (stubs.entries == ENTRIES)
        return NULL;
    size_t size = stub_emit(plan, code);
    const void *run = host_code_put(&stubs.code, code, size);
    if (!run)
        return NULL;
    struct assist *assist = &stubs.entry[stubs.entries].assist;
    stubs.entry[stubs.entries].plan = *plan;
    bool aligned = plan->class != ASSIST_CLASS_AVX && plan->memory && plan->size == 16 &&
                   !(plan->how & ASSIST_UNALIGNED);
    *assist = (struct assist){
        .size = plan->size,
        .align = aligned ? 15 : 0,
        .class = plan->class,
        .memory = plan->memory,
        .lenient = plan->how & ASSIST_LENIENT,
        .mxcsr = plan->how & ASSIST_MXCSR,
        .halves = !(plan->how & ASSIST_HALF) ? 0
                  : plan->vector_wide        ? 8
                                             : 4,
        .destination = plan->vector_store ? (uint8_t)__builtin_ctz(plan->vector_store) : 0,
        .sse = plan->sse};
    memcpy(&assist->run, &run, sizeof run);
    *slot = (uint16_t)++stubs.entries;
    return assist;
}

const struct assist *assist_find(const struct decoded *d, unsigned how)
{
    struct stub_plan plan;
    if (assist_init(NULL) || !stub_plan(d, how, &plan) ||
        !offered(d->zydis->meta.isa_set, plan.vector_wide))
        return NULL;
    unsigned n = (unsigned)XXH3_64bits(&plan, sizeof plan) % SLOTS;
    for (; stubs.slot[n]; n = (n + 1) % SLOTS)
        if (memcmp(&stubs.entry[stubs.slot[n] - 1].plan, &plan, sizeof plan) == 0)
            return &stubs.entry[stubs.slot[n] - 1].assist;
    return add(&plan, &stubs.slot[n]);
}
