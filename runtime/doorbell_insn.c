/* SPDX-License-Identifier: MIT */
/* The instruction that a routine stands for, put together from the kind and operand word that
 * patchc recorded (D10). It need not be the guest's own bytes: prefixes without effect are left
 * out, and a memory operand that is not one register alone stands at REG_OPERAND. */
#include <stdlib.h>
#include <string.h>

#include "runtime/soft/access.h"
#include "runtime/soft/decode.h"
#include "runtime/stub.h"

enum shape {
    NONE,      /* kinds that have no row */
    PLAIN,     /* no operands */
    SIZED,     /* operand size from WIDTH, 64 bits with REX.W */
    STACK,     /* operand size from WIDTH, 64 bits without */
    SPECIAL,   /* MOV to and from control and debug registers: reg = REGISTER, rm = GPR */
    EXTENSION, /* rm operand, reg = row.extension, size from WIDTH */
    RM,        /* rm operand, reg = REGISTER, size from WIDTH */
    PORT,      /* IN, OUT */
    STRING,    /* INS, OUTS, MONITOR */
    FAR_LOAD,  /* LSS, LFS, LGS */
    SEGMENT,   /* PUSH and POP of FS and GS: the opcode, or it + 8 */
    BYTE,      /* imm8 = PORT */
    RELEASE,   /* RET far: imm16 = PORT, if not 0 */
};

static const struct row {
    uint8_t shape;
    uint8_t extension;
    uint8_t prefix; /* that is part of the opcode; 0 = none */
    uint8_t opcode[4];
    uint8_t length; /* bytes of opcode */
} rows[PV_KINDS] = {
    [PV_KIND_CPUID] = {PLAIN, 0, 0, {0x0f, 0xa2}, 2},
    [PV_KIND_RDMSR] = {PLAIN, 0, 0, {0x0f, 0x32}, 2},
    [PV_KIND_WRMSR] = {PLAIN, 0, 0, {0x0f, 0x30}, 2},
    [PV_KIND_IN] = {PORT, 0, 0, {0xe4}, 1},
    [PV_KIND_OUT] = {PORT, 0, 0, {0xe6}, 1},
    [PV_KIND_INS] = {STRING, 0, 0, {0x6c}, 1},
    [PV_KIND_OUTS] = {STRING, 0, 0, {0x6e}, 1},
    [PV_KIND_HLT] = {PLAIN, 0, 0, {0xf4}, 1},
    [PV_KIND_WBINVD] = {PLAIN, 0, 0, {0x0f, 0x09}, 2},
    [PV_KIND_INVD] = {PLAIN, 0, 0, {0x0f, 0x08}, 2},
    [PV_KIND_XSETBV] = {PLAIN, 0, 0, {0x0f, 0x01, 0xd1}, 3},
    [PV_KIND_RDPMC] = {PLAIN, 0, 0, {0x0f, 0x33}, 2},
    [PV_KIND_RDTSC] = {PLAIN, 0, 0, {0x0f, 0x31}, 2},
    [PV_KIND_RDTSCP] = {PLAIN, 0, 0, {0x0f, 0x01, 0xf9}, 3},
    [PV_KIND_MONITOR] = {STRING, 0, 0, {0x0f, 0x01, 0xc8}, 3},
    [PV_KIND_MWAIT] = {PLAIN, 0, 0, {0x0f, 0x01, 0xc9}, 3},
    [PV_KIND_MOV_TO_CR] = {SPECIAL, 0, 0, {0x0f, 0x22}, 2},
    [PV_KIND_MOV_FROM_CR] = {SPECIAL, 0, 0, {0x0f, 0x20}, 2},
    [PV_KIND_MOV_TO_DR] = {SPECIAL, 0, 0, {0x0f, 0x23}, 2},
    [PV_KIND_MOV_FROM_DR] = {SPECIAL, 0, 0, {0x0f, 0x21}, 2},
    [PV_KIND_CLTS] = {PLAIN, 0, 0, {0x0f, 0x06}, 2},
    [PV_KIND_LMSW] = {EXTENSION, 6, 0, {0x0f, 0x01}, 2},
    [PV_KIND_SMSW] = {EXTENSION, 4, 0, {0x0f, 0x01}, 2},
    [PV_KIND_CLI] = {PLAIN, 0, 0, {0xfa}, 1},
    [PV_KIND_STI] = {PLAIN, 0, 0, {0xfb}, 1},
    [PV_KIND_PUSHF] = {STACK, 0, 0, {0x9c}, 1},
    [PV_KIND_POPF] = {STACK, 0, 0, {0x9d}, 1},
    [PV_KIND_IRET] = {SIZED, 0, 0, {0xcf}, 1},
    [PV_KIND_SYSRET] = {SIZED, 0, 0, {0x0f, 0x07}, 2},
    [PV_KIND_SYSEXIT] = {SIZED, 0, 0, {0x0f, 0x35}, 2},
    [PV_KIND_SWAPGS] = {PLAIN, 0, 0, {0x0f, 0x01, 0xf8}, 3},
    [PV_KIND_SGDT] = {EXTENSION, 0, 0, {0x0f, 0x01}, 2},
    [PV_KIND_SIDT] = {EXTENSION, 1, 0, {0x0f, 0x01}, 2},
    [PV_KIND_SLDT] = {EXTENSION, 0, 0, {0x0f, 0x00}, 2},
    [PV_KIND_STR] = {EXTENSION, 1, 0, {0x0f, 0x00}, 2},
    [PV_KIND_LGDT] = {EXTENSION, 2, 0, {0x0f, 0x01}, 2},
    [PV_KIND_LIDT] = {EXTENSION, 3, 0, {0x0f, 0x01}, 2},
    [PV_KIND_LLDT] = {EXTENSION, 2, 0, {0x0f, 0x00}, 2},
    [PV_KIND_LTR] = {EXTENSION, 3, 0, {0x0f, 0x00}, 2},
    [PV_KIND_INVLPG] = {EXTENSION, 7, 0, {0x0f, 0x01}, 2},
    [PV_KIND_INVPCID] = {RM, 0, 0x66, {0x0f, 0x38, 0x82}, 3},
    [PV_KIND_LAR] = {RM, 0, 0, {0x0f, 0x02}, 2},
    [PV_KIND_LSL] = {RM, 0, 0, {0x0f, 0x03}, 2},
    [PV_KIND_VERR] = {EXTENSION, 4, 0, {0x0f, 0x00}, 2},
    [PV_KIND_VERW] = {EXTENSION, 5, 0, {0x0f, 0x00}, 2},
    [PV_KIND_STAC] = {PLAIN, 0, 0, {0x0f, 0x01, 0xcb}, 3},
    [PV_KIND_CLAC] = {PLAIN, 0, 0, {0x0f, 0x01, 0xca}, 3},
    [PV_KIND_XSAVES] = {EXTENSION, 5, 0, {0x0f, 0xc7}, 2},
    [PV_KIND_XRSTORS] = {EXTENSION, 3, 0, {0x0f, 0xc7}, 2},
    [PV_KIND_MOV_SEGMENT] = {RM, 0, 0, {0x8e}, 1},
    [PV_KIND_OTHER] = {PLAIN, 0, 0, {0x0f, 0x0b}, 2}, /* UD2: CPUID does not offer them */
    [PV_KIND_VMCALL] = {PLAIN, 0, 0, {0x0f, 0x01, 0xc1}, 3},
    [PV_KIND_XGETBV] = {PLAIN, 0, 0, {0x0f, 0x01, 0xd0}, 3},
    [PV_KIND_SYSCALL] = {PLAIN, 0, 0, {0x0f, 0x05}, 2},
    [PV_KIND_SYSENTER] = {PLAIN, 0, 0, {0x0f, 0x34}, 2},
    [PV_KIND_INT] = {BYTE, 0, 0, {0xcd}, 1},
    [PV_KIND_JMP_FAR] = {EXTENSION, 5, 0, {0xff}, 1},
    [PV_KIND_CALL_FAR] = {EXTENSION, 3, 0, {0xff}, 1},
    [PV_KIND_RET_FAR] = {RELEASE, 0, 0, {0xcb}, 1},
    [PV_KIND_PUSH_SEGMENT] = {SEGMENT, 0, 0, {0x0f, 0xa0}, 2},
    [PV_KIND_POP_SEGMENT] = {SEGMENT, 0, 0, {0x0f, 0xa1}, 2},
    [PV_KIND_LOAD_FAR] = {FAR_LOAD, 0, 0, {0x0f, 0xb0}, 2},
    [PV_KIND_RDPID] = {EXTENSION, 7, 0xf3, {0x0f, 0xc7}, 2},
};

/* ---- encoding (SDM 2A 2) ---- */
struct parts {
    uint8_t prefixes[5], prefix_count;
    uint8_t rex; /* 0 = none */
    uint8_t opcode[4], opcode_count;
    uint8_t operands[8], operand_count; /* ModRM, SIB, displacement, immediate */
};

static void prefix(struct parts *p, uint8_t byte)
{
    p->prefixes[p->prefix_count++] = byte;
}

static void tail(struct parts *p, uint8_t byte)
{
    p->operands[p->operand_count++] = byte;
}

static void width(struct parts *p, uint32_t operand, bool rex)
{
    if (PV_OPERAND_WIDTH(operand) == 2)
        prefix(p, 0x66);
    else if (PV_OPERAND_WIDTH(operand) == 8 && rex)
        p->rex |= 0x48;
}

static void segment(struct parts *p, uint32_t operand)
{
    if (PV_OPERAND_SEGMENT(operand) == 4)
        prefix(p, 0x64);
    else if (PV_OPERAND_SEGMENT(operand) == 5)
        prefix(p, 0x65);
}

/* A register, or memory at one; memory elsewhere is (%rax) for now. */
static void mod_rm(struct parts *p, unsigned reg, uint32_t operand)
{
    unsigned rm = operand & PV_OPERAND_MEMORY ? RAX : PV_OPERAND_GPR(operand) & 15;
    p->rex |= (uint8_t)((reg >> 3 & 1 ? 0x44 : 0) | (rm >> 3 ? 0x41 : 0));
    if (!(operand & (PV_OPERAND_BASE | PV_OPERAND_MEMORY))) {
        tail(p, (uint8_t)(0xc0 | (reg & 7) << 3 | (rm & 7)));
        return;
    }
    tail(p, (uint8_t)(0x40 | (reg & 7) << 3 | (rm & 7)));
    if ((rm & 7) == RSP)
        tail(p, 0x24);
    tail(p, 0); /* a displacement of one byte */
}

static void port(struct parts *p, uint32_t operand)
{
    unsigned bytes = PV_OPERAND_WIDTH(operand);
    if (bytes == 2)
        prefix(p, 0x66);
    p->opcode[0] |= (uint8_t)((bytes > 1 ? 1 : 0) | (operand & PV_OPERAND_DX ? 8 : 0));
    if (!(operand & PV_OPERAND_DX))
        tail(p, (uint8_t)PV_OPERAND_PORT(operand));
}

static void string(struct parts *p, unsigned kind, uint32_t operand)
{
    if (kind != PV_KIND_INS)
        segment(p, operand);
    if (operand & PV_OPERAND_ADDRESS32)
        prefix(p, 0x67);
    if (kind == PV_KIND_MONITOR)
        return;
    if (operand & PV_OPERAND_REP)
        prefix(p, 0xf3);
    if (PV_OPERAND_WIDTH(operand) == 2)
        prefix(p, 0x66);
    p->opcode[0] |= PV_OPERAND_WIDTH(operand) > 1;
}

/* False: no such instruction. */
static bool segment_opcode(struct parts *p, unsigned number)
{
    p->opcode[1] |= number == 5 ? 8 : 0;
    return number == 4 || number == 5;
}

static bool far_load_opcode(struct parts *p, unsigned number)
{
    p->opcode[1] |= (uint8_t)number;
    return number == 2 || number == 4 || number == 5;
}

static bool operands(struct parts *p, unsigned kind, uint32_t operand)
{
    unsigned reg = PV_OPERAND_REGISTER(operand);
    switch (rows[kind].shape) {
    case SIZED:
    case STACK:
        width(p, operand, rows[kind].shape == SIZED);
        return true;
    case SPECIAL:
        mod_rm(p, reg & 15, operand & ~(PV_OPERAND_BASE | PV_OPERAND_MEMORY));
        return true;
    case EXTENSION:
        segment(p, operand);
        width(p, operand, true);
        mod_rm(p, rows[kind].extension, operand);
        return true;
    case RM:
        segment(p, operand);
        width(p, operand, true);
        if (operand & PV_OPERAND_STORE)
            p->opcode[0] = 0x8c; /* MOV from a segment register */
        mod_rm(p, reg & 15, operand);
        return true;
    case PORT:
        port(p, operand);
        return true;
    case STRING:
        string(p, kind, operand);
        return true;
    case FAR_LOAD:
        segment(p, operand);
        width(p, operand, true);
        mod_rm(p, reg & 15, operand);
        return far_load_opcode(p, reg >> 4);
    case SEGMENT:
        width(p, operand, false);
        return segment_opcode(p, reg);
    case BYTE:
        tail(p, (uint8_t)PV_OPERAND_PORT(operand));
        return true;
    case RELEASE:
        width(p, operand, true);
        if (!PV_OPERAND_PORT(operand))
            return true;
        p->opcode[0] = 0xca;
        tail(p, (uint8_t)operand);
        tail(p, (uint8_t)(operand >> 8));
        return true;
    default:
        return true;
    }
}

static size_t assemble(unsigned kind, uint32_t operand, uint8_t *bytes)
{
    const struct row *row = &rows[kind];
    struct parts p = {.opcode_count = row->length};
    size_t n = 0;
    if (row->shape == NONE)
        return 0;
    memcpy(p.opcode, row->opcode, sizeof p.opcode);
    if (kind == PV_KIND_VMCALL && PV_OPERAND_REGISTER(operand))
        p.opcode[2] = 0xd9; /* VMMCALL */
    if (!operands(&p, kind, operand))
        return 0;
    if (row->prefix)
        prefix(&p, row->prefix);
    memcpy(bytes, p.prefixes, p.prefix_count);
    n += p.prefix_count;
    if (p.rex)
        bytes[n++] = p.rex;
    memcpy(bytes + n, p.opcode, p.opcode_count);
    n += p.opcode_count;
    memcpy(bytes + n, p.operands, p.operand_count);
    return n + p.operand_count;
}

bool doorbell_has_handler(unsigned kind, uint32_t operand)
{
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH + 8];
    return assemble(kind, operand, bytes) != 0;
}

/* ---- the block that executes it ---- */
OP(fall_through)
{
    cpu->rip += i->offset;
    return NULL;
}

struct block *doorbell_block(struct vcpu *cpu, unsigned kind, uint32_t operand)
{
    uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH + 8];
    size_t length = assemble(kind, operand, bytes);
    struct block *block = calloc(1, sizeof *block + 2 * sizeof block->insns[0]);
    struct decoded d;
    if (!block || !length ||
        decode_insn(cpu, bytes, length, 0, &block->insns[0], &d) != DECODE_OK) {
        free(block);
        return NULL;
    }
    struct insn *insn = &block->insns[0];
    if (operand & PV_OPERAND_MEMORY) {
        insn->base = offsetof(struct vcpu, r[REG_OPERAND]);
        insn->index = offsetof(struct vcpu, r[REG_ZERO]);
    }
    insn->length = (uint8_t)length;
    block->insns[1] =
        (struct insn){.run = fall_through, .offset = insn->length, .position = 1, .length = 0};
    block->count = 1;
    block->valid = block->doorbell = true;
    return block;
}
