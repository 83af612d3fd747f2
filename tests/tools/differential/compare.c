/* SPDX-License-Identifier: MIT */
/* What counts as the same outcome, and how a case and a difference are shown.
 *
 * Not compared: FIP, FDP and FOP (processors differ in when they keep them), IF and IOPL. The error code of a page
 * fault at a kernel address has its P bit made up by Linux. */
#include "tests/tools/differential/case.h"

#include <inttypes.h>
#include <string.h>

static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* Counts a difference and prints it where there is somebody to read it. */
#define DIFFERS(...)                                                                               \
    do {                                                                                           \
        same = false;                                                                              \
        if (out)                                                                                   \
            fprintf(out, __VA_ARGS__);                                                             \
    } while (0)

static bool same_number(const char *name, uint64_t host, uint64_t soft, FILE *out)
{
    bool same = true;
    if (host != soft)
        DIFFERS("#   %-8s host %016" PRIx64 "  soft %016" PRIx64 "\n", name, host, soft);
    return same;
}

static uint64_t bytes_at(const uint8_t *from, unsigned count)
{
    uint64_t value = 0;
    memcpy(&value, from, count);
    return value;
}

static bool same_bytes(const char *name, unsigned n, const uint8_t *host, const uint8_t *soft,
                       unsigned count, FILE *out)
{
    bool same = true;
    if (memcmp(host, soft, count) != 0)
        DIFFERS("#   %s%-*u host %04" PRIx64 "%016" PRIx64 "  soft %04" PRIx64 "%016" PRIx64 "\n",
                name, (int)(8 - strlen(name)), n, bytes_at(host + 8, count - 8), bytes_at(host, 8),
                bytes_at(soft + 8, count - 8), bytes_at(soft, 8));
    return same;
}

/* The instruction that stands at an address of the case. */
static ZydisMnemonic mnemonic_at(const struct test_case *c, uint64_t rip)
{
    ZydisDecoder decoder;
    ZydisDecodedInstruction z;
    uint8_t code[CODE_FILLED];
    case_code(c, code);
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (rip - CODE_BASE >= sizeof code ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, code + (rip - CODE_BASE),
                                                    sizeof code - (rip - CODE_BASE), &z)))
        return ZYDIS_MNEMONIC_INVALID;
    return z.mnemonic;
}

/* Bits of MXCSR that are the same on every processor after an exception that is not masked. */
static uint32_t mxcsr_mask(const struct test_case *c, const struct machine *host)
{
    uint64_t mxcsr = bytes_at(FX_MXCSR(host), 4);
    if (host->vector != 19)
        return ~0u;
    switch (mnemonic_at(c, host->rip)) {
    case ZYDIS_MNEMONIC_DPPD: /* each step has exceptions of its own */
    case ZYDIS_MNEMONIC_DPPS:
    case ZYDIS_MNEMONIC_VDPPD:
    case ZYDIS_MNEMONIC_VDPPS:
        return ~0x3fu;
    default:
        break;
    }
    /* With an overflow or underflow that is not masked, PE is about the result in a range without limits, which the
     * software processor does not have. */
    return (mxcsr & 0x810) == 0x10 || (mxcsr & 0x408) == 0x8 ? ~0x20u : ~0u;
}

static bool same_fp(const struct test_case *c, const struct machine *host,
                    const struct machine *soft, FILE *out)
{
    uint32_t mask = mxcsr_mask(c, host);
    bool same = same_number("fcw", bytes_at(host->fx, 2), bytes_at(soft->fx, 2), out);
    same &= same_number("fsw", bytes_at(host->fx + 2, 2), bytes_at(soft->fx + 2, 2), out);
    same &= same_number("ftw", host->fx[4], soft->fx[4], out);
    same &= same_number("mxcsr", bytes_at(FX_MXCSR(host), 4) & mask,
                        bytes_at(FX_MXCSR(soft), 4) & mask, out);
    for (unsigned n = 0; n < 8; n++)
        same &= same_bytes("st", n, FX_ST(host, n), FX_ST(soft, n), 10, out);
    for (unsigned n = 0; n < 16; n++)
        same &= same_bytes("xmm", n, FX_XMM(host, n), FX_XMM(soft, n), 16, out);
    for (unsigned n = 0; native_has_avx() && n < 16; n++)
        same &= same_bytes("ymmh", n, host->ymm_high[n], soft->ymm_high[n], 16, out);
    return same;
}

/* Bits of CR2 that are the same on every processor, 0 if the error code is not either: those with long operands
 * access them in parts, in an order of their own. */
static uint64_t cr2_mask(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
        return 0;
    case ZYDIS_MNEMONIC_CMPSB: /* which of the two operands comes first */
    case ZYDIS_MNEMONIC_CMPSW:
    case ZYDIS_MNEMONIC_CMPSD:
    case ZYDIS_MNEMONIC_CMPSQ:
        return __builtin_cpu_is("amd") ? ~0ull : 0;
    default:
        return ~0ull;
    }
}

static bool is_fault(int vector)
{
    return vector == 12 || vector == 13 || vector == 14 || vector == 17;
}

/* True where processors differ in whether they fault at all (bytes that a mask leaves out) and in what has changed by
 * then (the x87 state of MMX). */
static bool is_makers_choice(const struct test_case *c, const struct machine *host,
                             const struct machine *soft)
{
    if (!is_fault(host->vector) && !is_fault(soft->vector))
        return false;
    bool alignment = host->vector == 17 || soft->vector == 17;
    switch (mnemonic_at(c, is_fault(host->vector) ? host->rip : soft->rip)) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return true;
    case ZYDIS_MNEMONIC_VMASKMOVPD: /* elements need not be aligned */
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
        return alignment;
    default:
        return false;
    }
}

static bool same_fault(const struct test_case *c, const struct machine *host,
                       const struct machine *soft, FILE *out)
{
    bool same = same_number("vector", (uint64_t)host->vector, (uint64_t)soft->vector, out);
    if (!same || host->vector == VECTOR_END)
        return same;
    uint32_t mask = ~0u;
    if (host->vector == 14) {
        uint64_t bits = cr2_mask(mnemonic_at(c, host->rip));
        same &= same_number("cr2", host->cr2 & bits, soft->cr2 & bits, out);
        if (bits == 0)
            return same;
        if (host->cr2 >= 0x7ffffffff000)
            mask = ~1u;
    }
    return same & same_number("error", host->error & mask, soft->error & mask, out);
}

static bool same_data(const struct machine *host, const struct machine *soft, FILE *out)
{
    bool same = true;
    unsigned shown = 0;
    if (memcmp(host->data, soft->data, DATA_BYTES) == 0)
        return true;
    for (unsigned n = 0; n < DATA_BYTES; n++)
        if (host->data[n] != soft->data[n] && shown++ < 16)
            DIFFERS("#   [%08llx] host %02x  soft %02x\n", DATA_FIRST + n, host->data[n],
                    soft->data[n]);
    return same;
}

bool same_outcome(const struct test_case *c, const struct machine *host, const struct machine *soft,
                  FILE *out)
{
    if (is_makers_choice(c, host, soft))
        return true;
    bool same = same_fault(c, host, soft, out);
    same &= same_number("rip", host->rip, soft->rip, out);
    same &=
        same_number("rflags", host->rflags & FLAGS_COMPARED, soft->rflags & FLAGS_COMPARED, out);
    for (int reg = 0; reg < 16; reg++)
        same &= same_number(names[reg], host->r[reg], soft->r[reg], out);
    same &= same_fp(c, host, soft, out);
    same &= same_data(host, soft, out);
    return same;
}

/* ---- showing a case ---- */
static void print_listing(const struct test_case *c, FILE *out)
{
    ZydisDecoder decoder;
    ZydisFormatter formatter;
    uint64_t rip = CODE_BASE;
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned n = 0; n < c->count; n++) {
        ZydisDecodedInstruction z;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        char text[256] = "?";
        if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, c->insn[n].bytes, c->insn[n].length, &z,
                                                operands)))
            ZydisFormatterFormatInstruction(&formatter, &z, operands, z.operand_count_visible, text,
                                            sizeof text, rip, NULL);
        fprintf(out, "#   %08" PRIx64 " ", rip);
        for (unsigned b = 0; b < c->insn[n].length; b++)
            fprintf(out, " %02x", c->insn[n].bytes[b]);
        fprintf(out, "%*s%s\n", 34 - 3 * c->insn[n].length > 0 ? 34 - 3 * c->insn[n].length : 1, "",
                text);
        rip += c->insn[n].length;
    }
}

static void print_data(const struct machine *m, FILE *out)
{
    unsigned shown = 0;
    for (unsigned at = 0; at < DATA_BYTES && shown < 40; at += 16) {
        static const uint8_t zeros[16];
        if (memcmp(m->data + at, zeros, 16) == 0)
            continue;
        fprintf(out, "#   [%08llx]", DATA_FIRST + at);
        for (unsigned n = 0; n < 16; n++)
            fprintf(out, " %02x", m->data[at + n]);
        fprintf(out, "\n");
        if (++shown == 40)
            fprintf(out, "#   …\n");
    }
}

void print_case(const struct test_case *c, FILE *out)
{
    const struct machine *m = &c->before;
    print_listing(c, out);
    fprintf(out, "# before:\n");
    for (int reg = 0; reg < 16; reg++)
        fprintf(out, "%s%-3s %016" PRIx64 "%s", reg % 4 ? "  " : "#   ", names[reg], m->r[reg],
                reg % 4 == 3 ? "\n" : "");
    fprintf(out,
            "#   rflags %" PRIx64 "  fcw %04" PRIx64 "  fsw %04" PRIx64
            "  ftw %02x  mxcsr %04" PRIx64 "\n",
            m->rflags, bytes_at(m->fx, 2), bytes_at(m->fx + 2, 2), m->fx[4],
            bytes_at(FX_MXCSR(m), 4));
    for (unsigned n = 0; n < 8; n++)
        if (bytes_at(FX_ST(m, n), 8) | bytes_at(FX_ST(m, n) + 8, 2))
            fprintf(out, "#   st%u %04" PRIx64 "%016" PRIx64 "\n", n, bytes_at(FX_ST(m, n) + 8, 2),
                    bytes_at(FX_ST(m, n), 8));
    for (unsigned n = 0; n < 16; n++)
        if (bytes_at(FX_XMM(m, n), 8) | bytes_at(FX_XMM(m, n) + 8, 8))
            fprintf(out, "#   xmm%-2u %016" PRIx64 "%016" PRIx64 "\n", n,
                    bytes_at(FX_XMM(m, n) + 8, 8), bytes_at(FX_XMM(m, n), 8));
    print_data(m, out);
}
