/* SPDX-License-Identifier: MIT */
/* Instructions that concern the processor's own state. */
#include "runtime/translator/translation.h"

/* ---- which ---- */
bool usual_push_flags(const struct item *item)
{
    return item->z.operand_width == 64;
}

bool usual_selector(const struct item *item)
{
    return item->operand[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/* ---- code ---- */
/* RFLAGS has neither RF nor TF here, with which instructions are executed one by one, nor VM. */
void generate_push_flags(struct generator *g)
{
    struct emit *e = &g->emit;
    struct host_rm to = emit_operand(g, 8, true);
    flags_to_vcpu(g);
    emit_store(e, RM_MEMORY(RSP, OF_VCPU(translator_temp)), RAX);
    emit_zero_extend8(e, RAX, RM_MEMORY(RSP, OF_VCPU(status))); /* OF: goes to bit 11 */
    for (unsigned n = 0; n < 3; n++)
        emit_lea32(e, RAX, RM_INDEXED(NO_REGISTER, RAX, 3, 0));
    emit_zero_extend8(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(status) + 1));
    emit_lea32(e, TEMP_COUNT, RM_INDEXED(TEMP_COUNT, RAX, 2, -(int32_t)RFLAGS_ONE));
    emit_mov_sized(e, false, RAX, RM_MEMORY(RSP, OF_VCPU(rflags))); /* with bit 1, too */
    emit_lea(e, TEMP_COUNT, RM_INDEXED(TEMP_COUNT, RAX, 0, 0));
    emit_load(e, RAX, RM_MEMORY(RSP, OF_VCPU(translator_temp)));
    emit_store(e, to, TEMP_COUNT);
    emit_lea(e, HOST_OF_RSP, RM_MEMORY(HOST_OF_RSP, -8));
}

#define WITHOUT(n)   ((n) & (uint8_t) ~(RFLAGS_IF >> 8))
#define WITHOUT4(n)  WITHOUT(n), WITHOUT((n) + 1), WITHOUT((n) + 2), WITHOUT((n) + 3)
#define WITHOUT16(n) WITHOUT4(n), WITHOUT4((n) + 4), WITHOUT4((n) + 8), WITHOUT4((n) + 12)
#define WITHOUT64(n) WITHOUT16(n), WITHOUT16((n) + 16), WITHOUT16((n) + 32), WITHOUT16((n) + 48)
/* Bits 8 to 15 of RFLAGS without IF: AND would change the flags. */
static const uint8_t without_if[256] = {WITHOUT64(0), WITHOUT64(64), WITHOUT64(128),
                                        WITHOUT64(192)};

/* At CPL 0; elsewhere IOPL decides. */
void generate_cli(struct generator *g)
{
    struct emit *e = &g->emit;
    const struct host_insn store = {.opcode = 0x88, /* mov %cl */
                                    .reg = TEMP_COUNT,
                                    .rm = RM_MEMORY(RSP, OF_VCPU(rflags) + 1)};
    emit_zero_extend8(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(cpl)));
    uint32_t allowed = emit_jump_if_zero(e);
    exit_jump(g, exit_make(g, TRANSLATOR_INTERPRET));
    emit_here_short(e, allowed);
    emit_constant(e, TEMP_ADDRESS, (uint64_t)(uintptr_t)without_if);
    emit_zero_extend8(e, TEMP_ADDEND, store.rm);
    emit_zero_extend8(e, TEMP_COUNT, RM_INDEXED(TEMP_ADDRESS, TEMP_ADDEND, 0, 0));
    emit_insn(e, &store, false);
}

/* MOV from a segment register: zero-extended, unless to 16 bits. */
void generate_selector(struct generator *g)
{
    struct emit *e = &g->emit;
    const ZydisDecodedOperand *to = &g->item->operand[0];
    int8_t segment = ZydisRegisterGetId(g->item->operand[1].reg.value);
    unsigned guest = guest_number(to->reg.value), host = host_register(guest);
    struct host_rm place = RM_MEMORY(RSP, OF_REGISTER(guest));
    struct host_insn load = {.map = 1, /* movzwl; 16 bits: mov */
                             .opcode = 0xb7,
                             .reg = (uint8_t)(host == IN_MEMORY ? TEMP_COUNT : host),
                             .rm = RM_MEMORY(RSP, OF_VCPU(segment[0].selector) +
                                                      segment * (int32_t)sizeof(struct segment))};
    struct host_insn store = {.operand16 = true, .opcode = 0x89, .reg = TEMP_COUNT, .rm = place};
    if (to->size == 16) {
        load.operand16 = true;
        load.map = 0;
        load.opcode = 0x8b;
    }
    emit_insn(e, &load, false);
    if (host == IN_MEMORY && to->size == 16)
        emit_insn(e, &store, false);
    else if (host == IN_MEMORY)
        emit_store(e, place, TEMP_COUNT);
}
