/* FP and SIMD instructions of the guest, executed by the host: which there are, and the cache of stubs. */
#include "runtime/soft/host_assist.h"

#include <cpuid.h>
#include <string.h>

#include <xxhash.h>

#include "runtime/soft/host_code.h"
#include "runtime/soft/host_stub.h"

/* ---- what the host has ---- */
static uint64_t host_xcr0(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (uint64_t)high << 32;
}

static uint32_t host_features(void)
{
    uint32_t features = 0, eax, ebx, ecx, edx, ebx7 = 0, ecx7 = 0;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return 0;
    if (__get_cpuid_count(7, 0, &eax, &ebx7, &ecx7, &edx) == 0)
        ebx7 = ecx7 = 0;
    bool avx = ecx & bit_OSXSAVE && (host_xcr0() & 6) == 6 && ecx & bit_AVX;
    const bool has[ASSIST_FEATURES] = {
        [ASSIST_SSE3] = ecx & bit_SSE3,
        [ASSIST_SSSE3] = ecx & bit_SSSE3,
        [ASSIST_SSE41] = ecx & bit_SSE4_1,
        [ASSIST_SSE42] = ecx & bit_SSE4_2,
        [ASSIST_AES] = ecx & bit_AES,
        [ASSIST_PCLMUL] = ecx & bit_PCLMUL,
        [ASSIST_SHA] = ebx7 & bit_SHA,
        [ASSIST_AVX] = avx,
        [ASSIST_AVX2] = avx && ebx7 & bit_AVX2,
        [ASSIST_FMA] = avx && ecx & bit_FMA,
        [ASSIST_F16C] = avx && ecx & bit_F16C,
        [ASSIST_VAES] = avx && ecx7 & bit_VAES,
        [ASSIST_VPCLMUL] = avx && ecx7 & bit_VPCLMULQDQ,
    };
    for (unsigned f = 0; f < ASSIST_FEATURES; f++)
        features |= (uint32_t)has[f] << f;
    return features;
}

bool assist_has(enum assist_feature feature)
{
    static uint32_t features;
    static bool known;
    if (!known)
        features = host_features();
    known = true;
    return features >> feature & 1;
}

/* True if the host can execute instructions of this set; `wide`: on YMM registers. */
static bool host_has_set(ZydisISASet set, bool wide)
{
    switch (set) {
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_PPRO: /* FCOMI */
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
        return true;
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
        return assist_has(ASSIST_SSE3);
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
        return assist_has(ASSIST_SSSE3);
    case ZYDIS_ISA_SET_SSE4:
        return assist_has(ASSIST_SSE41);
    case ZYDIS_ISA_SET_SSE42:
        return assist_has(ASSIST_SSE42);
    case ZYDIS_ISA_SET_AES:
        return assist_has(ASSIST_AES);
    case ZYDIS_ISA_SET_PCLMULQDQ:
        return assist_has(ASSIST_PCLMUL);
    case ZYDIS_ISA_SET_SHA:
        return assist_has(ASSIST_SHA);
    case ZYDIS_ISA_SET_AVX:
        return assist_has(ASSIST_AVX);
    case ZYDIS_ISA_SET_AVX2:
        return assist_has(ASSIST_AVX2);
    case ZYDIS_ISA_SET_FMA:
        return assist_has(ASSIST_FMA);
    case ZYDIS_ISA_SET_F16C:
        return assist_has(ASSIST_F16C);
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_VAES:
        return assist_has(wide ? ASSIST_VAES : ASSIST_AVX) && assist_has(ASSIST_AES);
    case ZYDIS_ISA_SET_VPCLMULQDQ:
        return assist_has(wide ? ASSIST_VPCLMUL : ASSIST_AVX) && assist_has(ASSIST_PCLMUL);
    default:
        return false;
    }
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
    bool aligned =
        plan->how & ASSIST_ALIGNED ||
        (plan->class != ASSIST_CLASS_AVX && plan->size == 16 && !(plan->how & ASSIST_UNALIGNED));
    *assist = (struct assist){.size = plan->size,
                              .align = aligned && plan->memory ? (uint8_t)(plan->size - 1) : 0,
                              .class = plan->class,
                              .memory = plan->memory,
                              .mxcsr = plan->how & ASSIST_MXCSR,
                              .sse = plan->sse};
    memcpy(&assist->run, &run, sizeof run);
    *slot = (uint16_t)++stubs.entries;
    return assist;
}

const struct assist *assist_find(const struct decoded *d, unsigned how)
{
    struct stub_plan plan;
    if (assist_init(NULL) || !stub_plan(d, how, &plan) ||
        !host_has_set(d->zydis->meta.isa_set, plan.vector_wide))
        return NULL;
    unsigned n = (unsigned)XXH3_64bits(&plan, sizeof plan) % SLOTS;
    for (; stubs.slot[n]; n = (n + 1) % SLOTS)
        if (memcmp(&stubs.entry[stubs.slot[n] - 1].plan, &plan, sizeof plan) == 0)
            return &stubs.entry[stubs.slot[n] - 1].assist;
    return add(&plan, &stubs.slot[n]);
}
