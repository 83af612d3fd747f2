/* SPDX-License-Identifier: MIT */
/* Finding the sites: the code map says where instructions are, an opcode table which of them are
 * worth decoding, the list which of those are sites. */
#include "patchc/find.h"

#include <stdlib.h>
#include <string.h>

/* Opcodes of the mnemonics that lists name: first and last opcode of a map (struct length_info).
 * SPECIAL: only the forms with control, debug or segment registers, and far branches. */
enum { ALWAYS, SPECIAL };
static const struct {
    ZydisMnemonic mnemonic;
    uint8_t map, low, high, special;
} opcodes[] = {
    {ZYDIS_MNEMONIC_CPUID, 1, 0xa2, 0xa2, ALWAYS},
    {ZYDIS_MNEMONIC_RDMSR, 1, 0x32, 0x32, ALWAYS},
    {ZYDIS_MNEMONIC_WRMSR, 1, 0x30, 0x30, ALWAYS},
    {ZYDIS_MNEMONIC_RDTSC, 1, 0x31, 0x31, ALWAYS},
    {ZYDIS_MNEMONIC_RDPMC, 1, 0x33, 0x33, ALWAYS},
    {ZYDIS_MNEMONIC_IN, 0, 0xe4, 0xe5, ALWAYS},
    {ZYDIS_MNEMONIC_IN, 0, 0xec, 0xed, ALWAYS},
    {ZYDIS_MNEMONIC_OUT, 0, 0xe6, 0xe7, ALWAYS},
    {ZYDIS_MNEMONIC_OUT, 0, 0xee, 0xef, ALWAYS},
    {ZYDIS_MNEMONIC_INSB, 0, 0x6c, 0x6c, ALWAYS},
    {ZYDIS_MNEMONIC_INSW, 0, 0x6d, 0x6d, ALWAYS},
    {ZYDIS_MNEMONIC_INSD, 0, 0x6d, 0x6d, ALWAYS},
    {ZYDIS_MNEMONIC_OUTSB, 0, 0x6e, 0x6e, ALWAYS},
    {ZYDIS_MNEMONIC_OUTSW, 0, 0x6f, 0x6f, ALWAYS},
    {ZYDIS_MNEMONIC_OUTSD, 0, 0x6f, 0x6f, ALWAYS},
    {ZYDIS_MNEMONIC_HLT, 0, 0xf4, 0xf4, ALWAYS},
    {ZYDIS_MNEMONIC_CLI, 0, 0xfa, 0xfa, ALWAYS},
    {ZYDIS_MNEMONIC_STI, 0, 0xfb, 0xfb, ALWAYS},
    {ZYDIS_MNEMONIC_PUSHF, 0, 0x9c, 0x9c, ALWAYS},
    {ZYDIS_MNEMONIC_PUSHFD, 0, 0x9c, 0x9c, ALWAYS},
    {ZYDIS_MNEMONIC_PUSHFQ, 0, 0x9c, 0x9c, ALWAYS},
    {ZYDIS_MNEMONIC_POPF, 0, 0x9d, 0x9d, ALWAYS},
    {ZYDIS_MNEMONIC_POPFD, 0, 0x9d, 0x9d, ALWAYS},
    {ZYDIS_MNEMONIC_POPFQ, 0, 0x9d, 0x9d, ALWAYS},
    {ZYDIS_MNEMONIC_IRET, 0, 0xcf, 0xcf, ALWAYS},
    {ZYDIS_MNEMONIC_IRETD, 0, 0xcf, 0xcf, ALWAYS},
    {ZYDIS_MNEMONIC_IRETQ, 0, 0xcf, 0xcf, ALWAYS},
    {ZYDIS_MNEMONIC_INT, 0, 0xcd, 0xcd, ALWAYS},
    {ZYDIS_MNEMONIC_MOV, 1, 0x20, 0x23, SPECIAL},
    {ZYDIS_MNEMONIC_MOV, 0, 0x8c, 0x8c, SPECIAL},
    {ZYDIS_MNEMONIC_MOV, 0, 0x8e, 0x8e, SPECIAL},
    {ZYDIS_MNEMONIC_PUSH, 1, 0xa0, 0xa0, SPECIAL},
    {ZYDIS_MNEMONIC_PUSH, 1, 0xa8, 0xa8, SPECIAL},
    {ZYDIS_MNEMONIC_POP, 1, 0xa1, 0xa1, SPECIAL},
    {ZYDIS_MNEMONIC_POP, 1, 0xa9, 0xa9, SPECIAL},
    {ZYDIS_MNEMONIC_CALL, 0, 0xff, 0xff, SPECIAL},
    {ZYDIS_MNEMONIC_JMP, 0, 0xff, 0xff, SPECIAL},
    {ZYDIS_MNEMONIC_RET, 0, 0xca, 0xcb, SPECIAL},
    {ZYDIS_MNEMONIC_LSS, 1, 0xb2, 0xb2, ALWAYS},
    {ZYDIS_MNEMONIC_LFS, 1, 0xb4, 0xb4, ALWAYS},
    {ZYDIS_MNEMONIC_LGS, 1, 0xb5, 0xb5, ALWAYS},
    {ZYDIS_MNEMONIC_CLTS, 1, 0x06, 0x06, ALWAYS},
    {ZYDIS_MNEMONIC_INVD, 1, 0x08, 0x08, ALWAYS},
    {ZYDIS_MNEMONIC_WBINVD, 1, 0x09, 0x09, ALWAYS},
    {ZYDIS_MNEMONIC_SYSCALL, 1, 0x05, 0x05, ALWAYS},
    {ZYDIS_MNEMONIC_SYSRET, 1, 0x07, 0x07, ALWAYS},
    {ZYDIS_MNEMONIC_SYSENTER, 1, 0x34, 0x34, ALWAYS},
    {ZYDIS_MNEMONIC_SYSEXIT, 1, 0x35, 0x35, ALWAYS},
    {ZYDIS_MNEMONIC_GETSEC, 1, 0x37, 0x37, ALWAYS},
    {ZYDIS_MNEMONIC_LAR, 1, 0x02, 0x02, ALWAYS},
    {ZYDIS_MNEMONIC_LSL, 1, 0x03, 0x03, ALWAYS},
    {ZYDIS_MNEMONIC_RSM, 1, 0xaa, 0xaa, ALWAYS},
    {ZYDIS_MNEMONIC_INVPCID, 2, 0x82, 0x82, ALWAYS},
    {ZYDIS_MNEMONIC_INVEPT, 2, 0x80, 0x80, ALWAYS},
    {ZYDIS_MNEMONIC_INVVPID, 2, 0x81, 0x81, ALWAYS},
    {ZYDIS_MNEMONIC_VMREAD, 1, 0x78, 0x78, ALWAYS},
    {ZYDIS_MNEMONIC_VMWRITE, 1, 0x79, 0x79, ALWAYS},
};

/* Mnemonics of the opcode groups 0f 00, 0f 01, 0f ae and 0f c7, and of others that stand alone. */
#define M(name) ZYDIS_MNEMONIC_##name
static const struct {
    uint8_t map, opcode;
    ZydisMnemonic mnemonics[48];
} groups[] = {
    {1, 0x00, {M(SLDT), M(STR), M(LLDT), M(LTR), M(VERR), M(VERW)}},
    {1, 0x01, {M(SGDT),      M(SIDT),      M(LGDT),     M(LIDT),     M(SMSW),     M(LMSW),
               M(INVLPG),    M(SWAPGS),    M(RDTSCP),   M(MONITOR),  M(MWAIT),    M(XSETBV),
               M(XGETBV),    M(CLAC),      M(STAC),     M(ENCLS),    M(ENCLV),    M(ENCLU),
               M(VMCALL),    M(VMMCALL),   M(VMLAUNCH), M(VMRESUME), M(VMXOFF),   M(VMFUNC),
               M(PCONFIG),   M(VMRUN),     M(VMLOAD),   M(VMSAVE),   M(STGI),     M(CLGI),
               M(SKINIT),    M(INVLPGA),   M(INVLPGB),  M(TLBSYNC),  M(PSMASH),   M(PVALIDATE),
               M(RMPADJUST), M(RMPUPDATE), M(RDPRU),    M(MCOMMIT),  M(SETSSBSY), M(SAVEPREVSSP),
               M(RSTORSSP),  M(SEAMCALL),  M(SEAMOPS),  M(SEAMRET),  M(TDCALL)}},
    {1, 0x01, {M(CLUI), M(STUI), M(TESTUI), M(UIRET)}},
    {1, 0xae, {M(CLRSSBSY), M(INCSSPD), M(INCSSPQ), M(HRESET)}},
    {1, 0x1e, {M(RDSSPD), M(RDSSPQ)}},
    {1,
     0xc7,
     {M(XSAVES), M(XSAVES64), M(XRSTORS), M(XRSTORS64), M(VMPTRLD), M(VMPTRST), M(VMCLEAR),
      M(VMXON), M(RDPID), M(SENDUIPI)}},
    {2, 0xf5, {M(WRUSSD), M(WRUSSQ)}},
    {2, 0xf6, {M(WRSSD), M(WRSSQ)}},
    {2, 0xf8, {M(ENQCMD), M(ENQCMDS)}},
    {2, 0xdc, {M(LOADIWKEY)}},
    {3, 0xf0, {M(HRESET)}},
};
#undef M

typedef uint64_t wanted_set[8][4];

static void want(wanted_set wanted, unsigned map, unsigned opcode)
{
    wanted[map][opcode / 64] |= 1ull << (opcode % 64);
}

/* Marks the opcodes of `mnemonic`; false if they are not in the tables. */
static bool want_mnemonic(wanted_set wanted, const struct list *list, ZydisMnemonic mnemonic)
{
    bool known = false;
    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++) {
        if (opcodes[i].mnemonic != mnemonic)
            continue;
        if (opcodes[i].special == SPECIAL && list_names_plain(list, mnemonic))
            return false;
        for (unsigned o = opcodes[i].low; o <= opcodes[i].high; o++)
            want(wanted, opcodes[i].map, o);
        known = true;
    }
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++)
        for (size_t k = 0; k < 48 && groups[i].mnemonics[k]; k++)
            if (groups[i].mnemonics[k] == mnemonic) {
                want(wanted, groups[i].map, groups[i].opcode);
                known = true;
            }
    return known;
}

/* The opcodes worth decoding: those of the list's mnemonics and of IO, which IO blocks begin with; all,
 * if some mnemonic is not in the tables (slower, not wrong). */
static void wanted_opcodes(wanted_set wanted, const struct list *list)
{
    memset(wanted, 0, sizeof(wanted_set));
    for (unsigned opcode = 0x6c; opcode <= 0xef; opcode++) /* INS, OUTS; IN, OUT */
        if (opcode <= 0x6f || (opcode >= 0xe4 && (opcode & 0x0c) != 0x08))
            want(wanted, 0, opcode);
    for (int m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        if (list_names_mnemonic(list, (ZydisMnemonic)m) &&
            !want_mnemonic(wanted, list, (ZydisMnemonic)m)) {
            memset(wanted, 0xff, sizeof(wanted_set));
            return;
        }
}

struct finder {
    const struct build_options *options;
    const struct code *code;
    const struct context *context;
    struct build_result *result;
    ZydisDecoder decoder;
    size_t capacity;
    bool failed;
};

static bool listed(const struct finder *f, const struct list_candidate *candidate,
                   const struct list_rule **rule)
{
    *rule = list_match(f->result->list, candidate);
    if (!*rule)
        return false;
    bool wanted = f->options->only_count == 0;
    for (size_t i = 0; i < f->options->only_count && !wanted; i++)
        wanted = list_match(f->options->only[i], candidate) != NULL;
    for (size_t i = 0; i < f->options->skip_count && wanted; i++)
        wanted = list_match(f->options->skip[i], candidate) == NULL;
    return wanted;
}

static struct site *add_site(struct finder *f)
{
    struct build_result *r = f->result;
    if (r->site_count == f->capacity) {
        size_t capacity = f->capacity ? 2 * f->capacity : 1024;
        struct site *grown = realloc(r->sites, capacity * sizeof *grown);
        if (!grown) {
            f->failed = true;
            return NULL;
        }
        r->sites = grown;
        f->capacity = capacity;
    }
    struct site *site = &r->sites[r->site_count++];
    *site = (struct site){.index = -1};
    return site;
}

/* Where an IO block may begin: in code that runs in place, in 64-bit mode. */
static void add_io(struct finder *f, const struct code_section *section, uint64_t address)
{
    struct build_result *r = f->result;
    if (code_is_other_mode(f->code, address) || code_is_overlap(f->code, address) ||
        (f->code->linux_image && !strcmp(section->name, ".altinstr_replacement")))
        return;
    if (r->io_count == r->io_room) {
        size_t room = r->io_room ? 2 * r->io_room : 1024;
        uint64_t *grown = realloc(r->io_addresses, room * sizeof *grown);
        if (!grown) {
            f->failed = true;
            return;
        }
        r->io_addresses = grown;
        r->io_room = room;
    }
    r->io_addresses[r->io_count++] = address;
}

static void judge(struct finder *f, struct site *site)
{
    enum reason excluded;
    site->context = context_at(f->context, site->address, &excluded);
    site->status = STATUS_LEFT;
    site->reason = REASON_NO_ROOM;
    if (f->context->linux_without_names)
        site->reason = REASON_UNPROVED;
    if (code_is_overlap(f->code, site->address))
        excluded = REASON_OVERLAP;
    if (code_is_other_mode(f->code, site->address))
        excluded = REASON_OTHER_MODE;
    if (excluded) {
        site->status = STATUS_EXCLUDED;
        site->reason = excluded;
    }
}

static void visit(void *context, const struct code_section *section, uint64_t address,
                  unsigned length)
{
    struct finder *f = context;
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t offset = address - section->address;
    const struct list_rule *rule;
    if (f->failed ||
        !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&f->decoder, section->bytes + offset,
                                             section->size - offset, &instruction, operands)))
        return;
    if (io_classify(&instruction) == IO_CLASS_IO)
        add_io(f, section, address);
    if (!list_names_mnemonic(f->result->list, instruction.mnemonic))
        return;
    const struct image_symbol *symbol = image_symbol_at(&f->result->image, address, NULL);
    struct list_candidate candidate = {address, section->name, symbol ? symbol->name : "",
                                       &instruction, operands};
    if (!listed(f, &candidate, &rule))
        return;
    struct site *site = add_site(f);
    if (!site)
        return;
    site->address = address;
    site->section = section->section;
    site->length = (uint8_t)length;
    memcpy(site->bytes, section->bytes + offset, length);
    site->mnemonic = instruction.mnemonic;
    site->rule = rule;
    site->in_replacement = f->code->linux_image && !strcmp(section->name, ".altinstr_replacement");
    judge(f, site);
}

/* A site in 16- or 32-bit code: listed, and excluded. Its instructions are decoded one after the
 * other in 32-bit mode from where such code begins. */
static void visit_other_mode(struct finder *f, const struct code_section *section)
{
    ZydisDecoder decoder64 = f->decoder;
    ZydisDecoderInit(&f->decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    for (uint64_t i = 0; i < section->size && !f->failed;) {
        if (section->other_mode[i / 64] == 0) {
            i = (i | 63) + 1;
            continue;
        }
        ZydisDecodedInstruction instruction;
        if (!(section->other_mode[i / 64] >> (i % 64) & 1) ||
            !ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&f->decoder, NULL, section->bytes + i,
                                                        section->size - i, &instruction))) {
            i++;
            continue;
        }
        visit(f, section, section->address + i, instruction.length);
        i += instruction.length;
    }
    f->decoder = decoder64;
}

static int compare_sites(const void *a, const void *b)
{
    const struct site *x = a, *y = b;
    return x->address < y->address ? -1 : x->address > y->address;
}

int find_sites(const struct build_options *options, const struct code *code,
               const struct context *context, struct build_result *result, struct error *err)
{
    struct finder f = {.options = options, .code = code, .context = context, .result = result};
    wanted_set wanted;
    wanted_opcodes(wanted, result->list);
    ZydisDecoderInit(&f.decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    bool ordered = true;
    if (code_each_opcode(code, wanted, visit, &f))
        f.failed = true;
    for (size_t i = 0; i < code->section_count && !f.failed; i++)
        visit_other_mode(&f, &code->sections[i]);
    if (f.failed)
        return fail(err, EXIT_IO, "%s: out of memory", result->image.name);
    for (size_t i = 1; i < result->site_count; i++)
        ordered &= result->sites[i - 1].address < result->sites[i].address;
    if (!ordered)
        qsort(result->sites, result->site_count, sizeof *result->sites, compare_sites);
    return 0;
}
