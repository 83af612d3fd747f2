/* SPDX-License-Identifier: MIT */
/* PUSH, POP and LEAVE. */
#include "runtime/translator/translation.h"

/* ---- which: 64 bits ---- */
static bool is_general(const ZydisDecodedOperand *o)
{
    return o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
           ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_GPR64;
}

bool usual_push(const struct item *item)
{
    return item->z.operand_width == 64 && is_general(&item->operand[0]);
}

bool usual_pop(const struct item *item)
{
    const ZydisDecodedOperand *to = &item->operand[0];
    return item->z.operand_width == 64 && to->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           is_general(to) && guest_number(to->reg.value) != RSP;
}

bool usual_leave(const struct item *item)
{
    return item->z.operand_width == 64;
}

/* ---- where ---- */
bool access_push(const struct item *item, struct access_range *access)
{
    *access = (struct access_range){RSP, true, -8, 8};
    return item->memory == NO_OPERAND;
}

bool access_pop(const struct item *item, struct access_range *access)
{
    (void)item;
    *access = (struct access_range){RSP, false, 0, 8};
    return true;
}

bool access_leave(const struct item *item, struct access_range *access)
{
    (void)item;
    *access = (struct access_range){RBP, false, 0, 8};
    return true;
}

/* ---- code ---- */
static void push_memory(struct generator *g)
{
    struct emit *e = &g->emit;
    emit_load(e, TEMP_COUNT, emit_operand(g, 8, false));
    emit_store(e, RM_MEMORY(RSP, OF_VCPU(translator_temp)), TEMP_COUNT);
    uint32_t again = e->used;
    emit_lea(e, TEMP_ADDRESS, RM_MEMORY(HOST_OF_RSP, -8));
    emit_lookup(g, again, 8, true);
    emit_load(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(translator_temp)));
    emit_store(e, RM_FOUND, TEMP_COUNT);
}

void generate_push(struct generator *g)
{
    struct emit *e = &g->emit;
    const ZydisDecodedOperand *o = &g->item->operand[0];
    if (g->item->memory != NO_OPERAND) {
        push_memory(g);
    } else {
        struct host_rm to = emit_operand(g, 8, true);
        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            emit_store_immediate(e, to, (int32_t)o->imm.value.s);
        else
            emit_store(e, to, use_register(g, guest_number(o->reg.value), TEMP_COUNT));
    }
    emit_lea(e, HOST_OF_RSP, RM_MEMORY(HOST_OF_RSP, -8));
}

void generate_pop(struct generator *g)
{
    struct emit *e = &g->emit;
    unsigned guest = guest_number(g->item->operand[0].reg.value), host = host_register(guest);
    struct host_rm from = emit_operand(g, 8, false);
    emit_load(e, host == IN_MEMORY ? TEMP_COUNT : host, from);
    if (host == IN_MEMORY)
        emit_store(e, RM_MEMORY(RSP, OF_REGISTER(guest)), TEMP_COUNT);
    emit_lea(e, HOST_OF_RSP, RM_MEMORY(HOST_OF_RSP, 8));
}

void generate_leave(struct generator *g)
{
    struct emit *e = &g->emit;
    emit_load(e, TEMP_COUNT, emit_operand(g, 8, false));
    emit_lea(e, HOST_OF_RSP, RM_MEMORY(RBP, 8));
    emit_mov(e, RBP, TEMP_COUNT);
}
