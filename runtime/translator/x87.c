/* SPDX-License-Identifier: MIT */
/* x87 instructions: copied. All exceptions are masked where they are (vectors.c), so none waits on the host. What the
 * host's FXSAVE says of the last instruction is not the guest's: the addresses are kept beside the copy. */
#include <string.h>

#include "runtime/translator/translation.h"
#include "runtime/translator/vectors.h"

bool usual_x87(const struct item *item)
{
    if (item->z.attributes & ZYDIS_ATTRIB_HAS_OPERANDSIZE)
        return false;
    if (item->memory == NO_OPERAND)
        return true;
    ZydisRegister segment = item->operand[item->memory].mem.segment;
    return segment != ZYDIS_REGISTER_FS && segment != ZYDIS_REGISTER_GS;
}

static struct host_insn shape_of(struct generator *g)
{
    const struct item *item = g->item;
    struct host_insn insn = {.opcode = item->z.opcode,
                             .reg = item->z.raw.modrm.reg,
                             .rm = RM_REGISTER(item->z.raw.modrm.rm)};
    if (item->memory != NO_OPERAND) {
        const ZydisDecodedOperand *o = &item->operand[item->memory];
        insn.rm = emit_operand(g, o->size / 8u, is_written(o));
    }
    return insn;
}

/* FDP, and FIP and FOP by way of a record: they are taken from there on the way out (enter.c). Nothing leaves between
 * this instruction and one behind it without a memory operand, which says the same of itself. */
static void emit_place(struct generator *g)
{
    struct emit *e = &g->emit;
    const struct item *item = g->item, *next = item + 1;
    if (item->memory != NO_OPERAND) {
        unsigned address = TEMP_ADDRESS;
        if (item->member) {
            address = TEMP_COUNT;
            emit_lea(e, address, RM_MEMORY(host_register(item->access.base), item->access.disp));
        }
        emit_store(e, RM_MEMORY(RSP, OF_VCPU(fpu.legacy) + 16), address);
    }
    if (g->position + 1u < g->t->block->count && next->class == CLASS_X87 &&
        next->memory == NO_OPERAND)
        return;
    struct x87_place *place = code_cache_data(g->code, sizeof *place);
    if (!place) {
        e->failed = true;
        return;
    }
    place->rip = item->rip;
    place->opcode = (uint16_t)((item->z.opcode & 7) << 8 | item->z.raw.modrm.mod << 6 |
                               item->z.raw.modrm.reg << 3 | item->z.raw.modrm.rm);
    emit_lea_of(e, TEMP_COUNT, place);
    emit_store(e, RM_MEMORY(RSP, OF_VCPU(x87_last)), TEMP_COUNT);
}

void generate_x87(struct generator *g)
{
    struct host_insn insn = shape_of(g);
    emit_place(g);
    emit_insn(&g->emit, &insn, false);
}

/* No addresses are kept of FNSTSW and FNCLEX. */
void generate_x87_status(struct generator *g)
{
    struct host_insn insn = shape_of(g);
    emit_insn(&g->emit, &insn, false);
}

void generate_emms(struct generator *g)
{
    EMIT_RAW(&g->emit, 0x0f, 0x77);
}

/* ---- the control word: it is in the vCPU all the time ---- */
#define CONTROL_WORD RM_MEMORY(RSP, OF_VCPU(fpu.legacy))

void generate_fnstcw(struct generator *g)
{
    struct host_rm to = emit_operand(g, 2, true);
    struct host_insn load = {.map = 1, .opcode = 0xb7, .reg = TEMP_COUNT, .rm = CONTROL_WORD};
    struct host_insn store = {.operand16 = true, .opcode = 0x89, .reg = TEMP_COUNT, .rm = to};
    emit_insn(&g->emit, &load, false);
    emit_insn(&g->emit, &store, false);
}

/* One that leaves an exception unmasked is the interpreter's. */
void generate_fldcw(struct generator *g)
{
    struct emit *e = &g->emit;
    struct host_rm from = emit_operand(g, 2, false);
    emit_zero_extend8(e, TEMP_COUNT, from);
    emit_lea32(e, TEMP_COUNT, RM_INDEXED(NO_REGISTER, TEMP_COUNT, 2, 0));
    emit_zero_extend8(e, TEMP_COUNT, RM_REGISTER(TEMP_COUNT));
    emit_lea32(e, TEMP_COUNT, RM_MEMORY(TEMP_COUNT, -0xfc)); /* the six masks */
    uint32_t masked = emit_jump_if_zero(e);
    exit_jump(g, exit_make(g, TRANSLATOR_INTERPRET));
    emit_here_short(e, masked);
    struct host_insn load = {.opcode = 0xd9, .reg = 5, .rm = from};
    struct host_insn store = {.opcode = 0xd9, .reg = 7, .rm = CONTROL_WORD};
    emit_insn(e, &load, false);
    emit_insn(e, &store, false);
}
