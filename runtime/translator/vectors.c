/* SPDX-License-Identifier: MIT */
/* SSE and AVX instructions: copied, like integer instructions, but their registers are where the copy wants them. */
#include "runtime/translator/vectors.h"

#include <string.h>

#include "runtime/soft/fpu.h"
#include "runtime/translator/translation.h"

/* ---- what is in the host's registers ---- */
static void set(struct vcpu *cpu, unsigned vectors)
{
    cpu->vectors = (uint8_t)vectors;
    for (unsigned need = 0; need < VECTOR_SETS; need++)
        cpu->vectors_here[need] = (need & ~vectors) == 0;
}

/* What of it instructions may use. Exceptions that are not masked are the interpreter's. */
static unsigned usable(const struct vcpu *cpu, unsigned vectors)
{
    bool sse_masked = (FPU_MXCSR(&cpu->fpu) & MXCSR_MASKS) == MXCSR_MASKS;
    bool x87_masked = (FPU_FCW(&cpu->fpu) & FSW_EXCEPTIONS) == FSW_EXCEPTIONS;
    bool x87_ready = !(cpu->cr0 & (CR0_EM | CR0_TS));
    if (!sse_ready(cpu))
        vectors &= ~VECTOR_SSE;
    if (!avx_ready(cpu))
        vectors &= ~VECTOR_AVX;
    if (!sse_masked)
        vectors &= ~VECTOR_MXCSR;
    if (!x87_ready)
        vectors &= ~(VECTOR_FPU | VECTOR_X87);
    if (!x87_masked || !sse_masked) /* MXCSR is loaded with the x87 registers */
        vectors &= ~VECTOR_X87;
    return vectors;
}

bool vectors_take(struct vcpu *cpu, unsigned needed)
{
    unsigned wanted = needed | cpu->vectors | VECTOR_FPU;
    if (!cpu->vectors) /* code asks for what it asked for the last time, most likely */
        wanted |= cpu->vectors_before;
    wanted = usable(cpu, wanted);
    if (needed & ~wanted)
        return false;
    cpu->vectors_wanted |= (uint8_t)needed;
    set(cpu, wanted);
    return true;
}

void vectors_again(struct vcpu *cpu)
{
    if (cpu->vectors)
        set(cpu, usable(cpu, cpu->vectors & ~VECTOR_X87));
}

void vectors_leave(struct vcpu *cpu)
{
    if (!cpu->vectors)
        return;
    set(cpu, 0);
    cpu->vectors_before = cpu->vectors_wanted;
    cpu->vectors_wanted = 0;
}

/* ---- which instructions ---- */
static bool is_vex(const struct item *item)
{
    return item->z.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
}

/* By the registers that it names. VZEROUPPER names none; nor does CVTTSD2SI of memory, but MXCSR is never there alone. */
static unsigned needs(const struct item *item)
{
    unsigned vectors = class_rows[item->class].vectors;
    if (!(vectors & VECTOR_SSE))
        return vectors;
    if (is_vex(item))
        return (vectors & ~VECTOR_SSE) | VECTOR_AVX;
    bool mmx = false, sse = vectors & VECTOR_MXCSR;
    for (unsigned n = 0; n < item->z.operand_count; n++)
        if (item->operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER) {
            ZydisRegisterClass class = ZydisRegisterGetClass(item->operand[n].reg.value);
            mmx |= class == ZYDIS_REGCLASS_MMX;
            sse |= class == ZYDIS_REGCLASS_XMM;
        }
    return (vectors & ~VECTOR_SSE) | (mmx ? VECTOR_X87 : 0) | (sse ? VECTOR_SSE : 0);
}

unsigned vectors_needed(const struct item *items, unsigned count, unsigned *until)
{
    unsigned needed = 0;
    *until = 0;
    for (unsigned n = 0; n < count; n++) {
        unsigned of_item = needs(&items[n]);
        needed |= of_item;
        if (of_item)
            *until = n;
    }
    return needed;
}

/* A prefix without a meaning is not carried over. What converts from MMX registers changes the x87 state even where
 * its operand is in memory. */
bool usual_vector(const struct item *item)
{
    const ZydisDecodedInstruction *z = &item->z;
    for (unsigned n = 0; n < z->raw.prefix_count; n++)
        if (z->raw.prefixes[n].value == 0x66 &&
            z->raw.prefixes[n].type != ZYDIS_PREFIX_TYPE_MANDATORY)
            return false;
    return (unsigned)z->opcode_map <= ZYDIS_OPCODE_MAP_0F3A &&
           z->mnemonic != ZYDIS_MNEMONIC_CVTPI2PS && z->mnemonic != ZYDIS_MNEMONIC_CVTPI2PD;
}

/* ---- alignment ---- */
/* Bytes that the address of the memory operand must be a multiple of, else it faults (SHA instructions do not on some
 * processors): 1, 16 or 32. */
static unsigned alignment_of(const struct item *item)
{
    unsigned size = item->operand[item->memory].size / 8;
    if (item->class == CLASS_VECTOR_UNALIGNED || size < 16 ||
        (is_vex(item) && item->class != CLASS_VECTOR_ALIGNED))
        return 1;
    return size;
}

/* An access of the group before this one faults if this one does. */
static bool aligned_before(const struct generator *g, unsigned alignment)
{
    int32_t at = g->item->access.disp + g->item->delta;
    for (unsigned n = g->item->first; n < g->position; n++) {
        const struct item *before = &g->items[n];
        if (class_rows[before->class].vectors && before->member &&
            before->second == g->item->second && before->z.meta.isa_set != ZYDIS_ISA_SET_SHA &&
            alignment_of(before) >= alignment &&
            (unsigned)(at - (before->access.disp + before->delta)) % alignment == 0)
            return true;
    }
    return false;
}

/* Leaves to the interpreter what is not aligned; no flag changes. */
static void emit_alignment(struct generator *g, unsigned alignment)
{
    struct emit *e = &g->emit;
    unsigned base = TEMP_ADDRESS;
    uint32_t disp = 0;
    if (g->item->member) {
        if (aligned_before(g, alignment))
            return;
        base = host_register(g->item->access.base);
        disp = (uint32_t)g->item->access.disp;
    }
    /* the address's low bits become the highest of 8 */
    emit_lea32(e, TEMP_COUNT, RM_INDEXED(NO_REGISTER, base, 3, (int32_t)(disp * 8)));
    if (alignment == 16)
        emit_lea32(e, TEMP_COUNT, RM_INDEXED(TEMP_COUNT, TEMP_COUNT, 0, 0));
    emit_zero_extend8(e, TEMP_COUNT, RM_REGISTER(TEMP_COUNT));
    uint32_t aligned = emit_jump_if_zero(e);
    exit_jump(g, exit_make(g, TRANSLATOR_ACCESS));
    emit_here_short(e, aligned);
}

/* ---- the copy ---- */
static struct host_insn shape_of(const struct item *item)
{
    const ZydisDecodedInstruction *z = &item->z;
    struct host_insn insn = {.opcode = z->opcode,
                             .map = (uint8_t)z->opcode_map,
                             .wide = z->raw.rex.W,
                             .reg = z->raw.modrm.reg};
    if (is_vex(item)) {
        insn.vex = true;
        insn.wide = z->raw.vex.W;
        insn.vex_long = z->raw.vex.L;
        insn.vex_prefix = z->raw.vex.pp;
    } else {
        for (unsigned n = 0; n < z->raw.prefix_count; n++) {
            uint8_t value = z->raw.prefixes[n].value;
            insn.operand16 |= value == 0x66;
            if (value == 0xf2 || value == 0xf3)
                insn.repeat = value;
        }
    }
    insn.no_modrm = !(z->attributes & ZYDIS_ATTRIB_HAS_MODRM);
    if (insn.no_modrm) {
        insn.reg = z->opcode & 7;
        insn.opcode &= 0xf8;
    }
    if (z->raw.imm[0].size) { /* a register's number, perhaps */
        insn.immediate_size = 1;
        insn.immediate[0] = (uint8_t)z->raw.imm[0].value.u;
    }
    return insn;
}

/* The number of a register operand in the copy. At most one is a general one, TEMP_COUNT if it is in memory. */
static uint8_t number_of(struct generator *g, const ZydisDecodedOperand *o)
{
    ZydisRegisterClass class = ZydisRegisterGetClass(o->reg.value);
    if (class == ZYDIS_REGCLASS_XMM || class == ZYDIS_REGCLASS_YMM || class == ZYDIS_REGCLASS_MMX)
        return (uint8_t)ZydisRegisterGetId(o->reg.value);
    unsigned guest = guest_number(o->reg.value), host = host_register(guest);
    if (host != IN_MEMORY)
        return (uint8_t)host;
    if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
        emit_load(&g->emit, TEMP_COUNT, RM_MEMORY(RSP, OF_REGISTER(guest)));
    return TEMP_COUNT;
}

static void place_registers(struct generator *g, struct host_insn *insn)
{
    for (unsigned n = 0; n < g->item->z.operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &g->item->operand[n];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            insn->reg = number_of(g, o);
        else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            insn->rm = RM_REGISTER(number_of(g, o));
        else if (o->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD)
            insn->vex_register = number_of(g, o);
    }
}

/* General registers that are written and not where the host's instruction leaves them: RCX, which is never encoded, and
 * those in memory. */
static void store_results(struct generator *g)
{
    for (unsigned n = 0; n < g->item->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &g->item->operand[n];
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || !is_written(o) ||
            (ZydisRegisterGetClass(o->reg.value) != ZYDIS_REGCLASS_GPR32 &&
             ZydisRegisterGetClass(o->reg.value) != ZYDIS_REGCLASS_GPR64))
            continue;
        unsigned guest = guest_number(o->reg.value);
        if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE)
            emit_mov(&g->emit, HOST_OF_RCX, RCX);
        else if (host_register(guest) == IN_MEMORY)
            emit_store(&g->emit, RM_MEMORY(RSP, OF_REGISTER(guest)), TEMP_COUNT);
    }
}

void generate_vector(struct generator *g)
{
    const struct item *item = g->item;
    struct host_insn insn = shape_of(item);
    if (item->memory != NO_OPERAND) {
        const ZydisDecodedOperand *o = &item->operand[item->memory];
        insn.rm = emit_operand(g, o->size / 8u, is_written(o));
        if (alignment_of(item) > 1)
            emit_alignment(g, alignment_of(item));
    }
    place_registers(g, &insn);
    if (!emit_insn(&g->emit, &insn, false))
        g->emit.failed = true;
    store_results(g);
}
