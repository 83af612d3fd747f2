/* SPDX-License-Identifier: MIT */
/* Kinds of routines and what a host handler must know of an instruction's operands: the operand
 * word of struct pv_routine (D10: at run time nobody decodes the guest's instruction). */
#include "patchc/template.h"

#include "patchc/form.h"

static const char *const kind_names[PV_KINDS] = {
    [PV_KIND_NATIVE_ONLY] = "native_only",
    [PV_KIND_CPUID] = "cpuid",
    [PV_KIND_RDMSR] = "rdmsr",
    [PV_KIND_WRMSR] = "wrmsr",
    [PV_KIND_IN] = "in",
    [PV_KIND_OUT] = "out",
    [PV_KIND_INS] = "ins",
    [PV_KIND_OUTS] = "outs",
    [PV_KIND_HLT] = "hlt",
    [PV_KIND_WBINVD] = "wbinvd",
    [PV_KIND_INVD] = "invd",
    [PV_KIND_XSETBV] = "xsetbv",
    [PV_KIND_RDPMC] = "rdpmc",
    [PV_KIND_RDTSC] = "rdtsc",
    [PV_KIND_RDTSCP] = "rdtscp",
    [PV_KIND_MONITOR] = "monitor",
    [PV_KIND_MWAIT] = "mwait",
    [PV_KIND_MOV_TO_CR] = "mov_to_cr",
    [PV_KIND_MOV_FROM_CR] = "mov_from_cr",
    [PV_KIND_MOV_TO_DR] = "mov_to_dr",
    [PV_KIND_MOV_FROM_DR] = "mov_from_dr",
    [PV_KIND_CLTS] = "clts",
    [PV_KIND_LMSW] = "lmsw",
    [PV_KIND_SMSW] = "smsw",
    [PV_KIND_CLI] = "cli",
    [PV_KIND_STI] = "sti",
    [PV_KIND_PUSHF] = "pushf",
    [PV_KIND_POPF] = "popf",
    [PV_KIND_IRET] = "iret",
    [PV_KIND_SYSRET] = "sysret",
    [PV_KIND_SYSEXIT] = "sysexit",
    [PV_KIND_SWAPGS] = "swapgs",
    [PV_KIND_SGDT] = "sgdt",
    [PV_KIND_SIDT] = "sidt",
    [PV_KIND_SLDT] = "sldt",
    [PV_KIND_STR] = "str",
    [PV_KIND_LGDT] = "lgdt",
    [PV_KIND_LIDT] = "lidt",
    [PV_KIND_LLDT] = "lldt",
    [PV_KIND_LTR] = "ltr",
    [PV_KIND_INVLPG] = "invlpg",
    [PV_KIND_INVPCID] = "invpcid",
    [PV_KIND_LAR] = "lar",
    [PV_KIND_LSL] = "lsl",
    [PV_KIND_VERR] = "verr",
    [PV_KIND_VERW] = "verw",
    [PV_KIND_STAC] = "stac",
    [PV_KIND_CLAC] = "clac",
    [PV_KIND_XSAVES] = "xsaves",
    [PV_KIND_XRSTORS] = "xrstors",
    [PV_KIND_MOV_SEGMENT] = "mov_segment",
    [PV_KIND_OTHER] = "other",
    [PV_KIND_VMCALL] = "vmcall",
    [PV_KIND_XGETBV] = "xgetbv",
    [PV_KIND_SYSCALL] = "syscall",
    [PV_KIND_SYSENTER] = "sysenter",
    [PV_KIND_INT] = "int",
    [PV_KIND_JMP_FAR] = "jmp_far",
    [PV_KIND_CALL_FAR] = "call_far",
    [PV_KIND_RET_FAR] = "ret_far",
    [PV_KIND_PUSH_SEGMENT] = "push_segment",
    [PV_KIND_POP_SEGMENT] = "pop_segment",
    [PV_KIND_LOAD_FAR] = "load_far",
    [PV_KIND_RDPID] = "rdpid",
};

const char *kind_name(unsigned kind)
{
    return kind < PV_KINDS ? kind_names[kind] : "unknown";
}

/* MOV, PUSH, POP and far branches are decided by their operands. WBNOINVD is decoded as WBINVD with
 * a prefix. */
static const struct {
    ZydisMnemonic mnemonic;
    enum pv_kind kind;
} mnemonic_kinds[] = {
    {ZYDIS_MNEMONIC_CPUID, PV_KIND_CPUID},       {ZYDIS_MNEMONIC_RDMSR, PV_KIND_RDMSR},
    {ZYDIS_MNEMONIC_WRMSR, PV_KIND_WRMSR},       {ZYDIS_MNEMONIC_IN, PV_KIND_IN},
    {ZYDIS_MNEMONIC_OUT, PV_KIND_OUT},           {ZYDIS_MNEMONIC_INSB, PV_KIND_INS},
    {ZYDIS_MNEMONIC_INSW, PV_KIND_INS},          {ZYDIS_MNEMONIC_INSD, PV_KIND_INS},
    {ZYDIS_MNEMONIC_OUTSB, PV_KIND_OUTS},        {ZYDIS_MNEMONIC_OUTSW, PV_KIND_OUTS},
    {ZYDIS_MNEMONIC_OUTSD, PV_KIND_OUTS},        {ZYDIS_MNEMONIC_HLT, PV_KIND_HLT},
    {ZYDIS_MNEMONIC_WBINVD, PV_KIND_WBINVD},     {ZYDIS_MNEMONIC_INVD, PV_KIND_INVD},
    {ZYDIS_MNEMONIC_XSETBV, PV_KIND_XSETBV},     {ZYDIS_MNEMONIC_RDPMC, PV_KIND_RDPMC},
    {ZYDIS_MNEMONIC_RDTSC, PV_KIND_RDTSC},       {ZYDIS_MNEMONIC_RDTSCP, PV_KIND_RDTSCP},
    {ZYDIS_MNEMONIC_MONITOR, PV_KIND_MONITOR},   {ZYDIS_MNEMONIC_MWAIT, PV_KIND_MWAIT},
    {ZYDIS_MNEMONIC_CLTS, PV_KIND_CLTS},         {ZYDIS_MNEMONIC_LMSW, PV_KIND_LMSW},
    {ZYDIS_MNEMONIC_SMSW, PV_KIND_SMSW},         {ZYDIS_MNEMONIC_CLI, PV_KIND_CLI},
    {ZYDIS_MNEMONIC_STI, PV_KIND_STI},           {ZYDIS_MNEMONIC_PUSHF, PV_KIND_PUSHF},
    {ZYDIS_MNEMONIC_PUSHFQ, PV_KIND_PUSHF},      {ZYDIS_MNEMONIC_POPF, PV_KIND_POPF},
    {ZYDIS_MNEMONIC_POPFQ, PV_KIND_POPF},        {ZYDIS_MNEMONIC_IRET, PV_KIND_IRET},
    {ZYDIS_MNEMONIC_IRETD, PV_KIND_IRET},        {ZYDIS_MNEMONIC_IRETQ, PV_KIND_IRET},
    {ZYDIS_MNEMONIC_SYSRET, PV_KIND_SYSRET},     {ZYDIS_MNEMONIC_SYSEXIT, PV_KIND_SYSEXIT},
    {ZYDIS_MNEMONIC_SWAPGS, PV_KIND_SWAPGS},     {ZYDIS_MNEMONIC_SGDT, PV_KIND_SGDT},
    {ZYDIS_MNEMONIC_SIDT, PV_KIND_SIDT},         {ZYDIS_MNEMONIC_SLDT, PV_KIND_SLDT},
    {ZYDIS_MNEMONIC_STR, PV_KIND_STR},           {ZYDIS_MNEMONIC_LGDT, PV_KIND_LGDT},
    {ZYDIS_MNEMONIC_LIDT, PV_KIND_LIDT},         {ZYDIS_MNEMONIC_LLDT, PV_KIND_LLDT},
    {ZYDIS_MNEMONIC_LTR, PV_KIND_LTR},           {ZYDIS_MNEMONIC_INVLPG, PV_KIND_INVLPG},
    {ZYDIS_MNEMONIC_INVPCID, PV_KIND_INVPCID},   {ZYDIS_MNEMONIC_LAR, PV_KIND_LAR},
    {ZYDIS_MNEMONIC_LSL, PV_KIND_LSL},           {ZYDIS_MNEMONIC_VERR, PV_KIND_VERR},
    {ZYDIS_MNEMONIC_VERW, PV_KIND_VERW},         {ZYDIS_MNEMONIC_STAC, PV_KIND_STAC},
    {ZYDIS_MNEMONIC_CLAC, PV_KIND_CLAC},         {ZYDIS_MNEMONIC_XSAVES, PV_KIND_XSAVES},
    {ZYDIS_MNEMONIC_XSAVES64, PV_KIND_XSAVES},   {ZYDIS_MNEMONIC_XRSTORS, PV_KIND_XRSTORS},
    {ZYDIS_MNEMONIC_XRSTORS64, PV_KIND_XRSTORS}, {ZYDIS_MNEMONIC_VMCALL, PV_KIND_VMCALL},
    {ZYDIS_MNEMONIC_VMMCALL, PV_KIND_VMCALL},    {ZYDIS_MNEMONIC_XGETBV, PV_KIND_XGETBV},
    {ZYDIS_MNEMONIC_SYSCALL, PV_KIND_SYSCALL},   {ZYDIS_MNEMONIC_SYSENTER, PV_KIND_SYSENTER},
    {ZYDIS_MNEMONIC_INT, PV_KIND_INT},           {ZYDIS_MNEMONIC_LSS, PV_KIND_LOAD_FAR},
    {ZYDIS_MNEMONIC_LFS, PV_KIND_LOAD_FAR},      {ZYDIS_MNEMONIC_LGS, PV_KIND_LOAD_FAR},
    {ZYDIS_MNEMONIC_RDPID, PV_KIND_RDPID},
};

static ZydisRegisterClass operand_class(const ZydisDecodedInstruction *instruction,
                                        const ZydisDecodedOperand *operands, unsigned i)
{
    if (i >= instruction->operand_count_visible || operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
        return ZYDIS_REGCLASS_INVALID;
    return ZydisRegisterGetClass(operands[i].reg.value);
}

static enum pv_kind far_branch_kind(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        return PV_KIND_JMP_FAR;
    case ZYDIS_MNEMONIC_CALL:
        return PV_KIND_CALL_FAR;
    case ZYDIS_MNEMONIC_RET:
        return PV_KIND_RET_FAR;
    default:
        return PV_KIND_OTHER;
    }
}

enum pv_kind kind_of_instruction(const ZydisDecodedInstruction *instruction,
                                 const ZydisDecodedOperand *operands)
{
    for (size_t i = 0; i < sizeof mnemonic_kinds / sizeof *mnemonic_kinds; i++)
        if (mnemonic_kinds[i].mnemonic == instruction->mnemonic)
            return mnemonic_kinds[i].kind;
    if (instruction->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
        return far_branch_kind(instruction->mnemonic);
    ZydisRegisterClass to = operand_class(instruction, operands, 0);
    if (to == ZYDIS_REGCLASS_SEGMENT && instruction->mnemonic == ZYDIS_MNEMONIC_PUSH)
        return PV_KIND_PUSH_SEGMENT;
    if (to == ZYDIS_REGCLASS_SEGMENT && instruction->mnemonic == ZYDIS_MNEMONIC_POP)
        return PV_KIND_POP_SEGMENT;
    if (instruction->mnemonic != ZYDIS_MNEMONIC_MOV)
        return PV_KIND_OTHER;
    ZydisRegisterClass from = operand_class(instruction, operands, 1);
    if (to == ZYDIS_REGCLASS_CONTROL)
        return PV_KIND_MOV_TO_CR;
    if (from == ZYDIS_REGCLASS_CONTROL)
        return PV_KIND_MOV_FROM_CR;
    if (to == ZYDIS_REGCLASS_DEBUG)
        return PV_KIND_MOV_TO_DR;
    if (from == ZYDIS_REGCLASS_DEBUG)
        return PV_KIND_MOV_FROM_DR;
    if (to == ZYDIS_REGCLASS_SEGMENT || from == ZYDIS_REGCLASS_SEGMENT)
        return PV_KIND_MOV_SEGMENT;
    return PV_KIND_OTHER;
}

/* ---- the operand word ---- */

/* 0 if there is none. */
static uint32_t immediate_word(const ZydisDecodedInstruction *instruction,
                               const ZydisDecodedOperand *operands)
{
    if (instruction->operand_count_visible == 0 || operands[0].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return 0;
    return (uint32_t)operands[0].imm.value.u & (operands[0].size == 8 ? 0xffu : 0xffffu);
}

static uint32_t port_word(const ZydisDecodedInstruction *instruction,
                          const ZydisDecodedOperand *operands)
{
    for (unsigned i = 0; i < instruction->operand_count_visible; i++)
        if (operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            return (uint32_t)operands[i].imm.value.u & 0xff;
    return PV_OPERAND_DX;
}

static uint32_t segment_word(ZydisInstructionAttributes attributes)
{
    if (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
        return 4u << 28;
    if (attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS)
        return 5u << 28;
    return 0;
}

static uint32_t memory_segment_word(const ZydisDecodedOperand *operand)
{
    if (operand->mem.segment == ZYDIS_REGISTER_FS)
        return 4u << 28;
    if (operand->mem.segment == ZYDIS_REGISTER_GS)
        return 5u << 28;
    return 0;
}

static uint32_t string_word(const ZydisDecodedInstruction *instruction)
{
    uint32_t word = segment_word(instruction->attributes);
    if (instruction->attributes &
        (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        word |= PV_OPERAND_REP;
    if (instruction->address_width == 32)
        word |= PV_OPERAND_ADDRESS32;
    return word;
}

/* What LSS, LFS and LGS load besides their destination; 0 for any other instruction. */
static uint32_t loaded_segment(ZydisMnemonic mnemonic)
{
    static const struct {
        ZydisMnemonic mnemonic;
        uint32_t number;
    } loads[] = {{ZYDIS_MNEMONIC_LSS, 2}, {ZYDIS_MNEMONIC_LFS, 4}, {ZYDIS_MNEMONIC_LGS, 5}};
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++)
        if (loads[i].mnemonic == mnemonic)
            return loads[i].number;
    return 0;
}

/* Register, GPR and memory fields of any other instruction. Where there are two, GPR is the memory
 * operand's, or the source. */
static uint32_t register_word(const ZydisDecodedInstruction *instruction,
                              const ZydisDecodedOperand *operands, enum pv_kind kind)
{
    bool memory = memory_operand(instruction, operands) != NULL;
    bool two_gprs = kind == PV_KIND_LAR || kind == PV_KIND_LSL;
    uint32_t word = loaded_segment(instruction->mnemonic) << 4;
    for (unsigned i = 0; i < instruction->operand_count_visible; i++) {
        const ZydisDecodedOperand *operand = &operands[i];
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (memory_is_register(instruction, operand))
                word |= PV_OPERAND_BASE | (uint32_t)gpr_number(operand->mem.base) << 8;
            else
                word |= PV_OPERAND_MEMORY | memory_segment_word(operand);
        } else if (operand->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            int gpr = gpr_number(operand->reg.value);
            if (gpr < 0)
                word |= (uint32_t)ZydisRegisterGetId(operand->reg.value) & 0xff;
            else
                word |= (uint32_t)gpr << (memory || (two_gprs && i == 0) ? 0 : 8);
        }
    }
    if (kind == PV_KIND_MOV_SEGMENT &&
        operand_class(instruction, operands, 1) == ZYDIS_REGCLASS_SEGMENT)
        word |= PV_OPERAND_STORE;
    return word;
}

uint32_t template_operand(const ZydisDecodedInstruction *instruction,
                          const ZydisDecodedOperand *operands)
{
    enum pv_kind kind = kind_of_instruction(instruction, operands);
    uint32_t width = (uint32_t)instruction->operand_width / 8 << 24;
    switch (kind) {
    case PV_KIND_IN:
    case PV_KIND_OUT:
        return width | port_word(instruction, operands);
    case PV_KIND_INS:
    case PV_KIND_OUTS:
        return width | string_word(instruction);
    case PV_KIND_MONITOR:
        return string_word(instruction);
    case PV_KIND_INT:
        return immediate_word(instruction, operands);
    case PV_KIND_RET_FAR:
        return width | immediate_word(instruction, operands);
    case PV_KIND_VMCALL:
        return instruction->mnemonic == ZYDIS_MNEMONIC_VMMCALL;
    default:
        return width | register_word(instruction, operands, kind);
    }
}
