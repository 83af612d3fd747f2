/* SPDX-License-Identifier: MIT */
/* Guest memory from translated code: the address of an operand, and the look-up that finds it in the host. Nothing here
 * changes a flag. */
#include "runtime/translator/translation.h"

unsigned use_register(struct generator *g, unsigned guest, unsigned temp)
{
    unsigned host = host_register(guest);
    if (host != IN_MEMORY)
        return host;
    emit_load(&g->emit, temp, RM_MEMORY(RSP, OF_REGISTER(guest)));
    return temp;
}

/* Base, index and displacement as an operand of LEA. RIP-relative operands have none of it. */
static struct host_rm operand_of(struct generator *g, const ZydisDecodedOperand *o)
{
    struct host_rm rm = {.memory = true,
                         .base = NO_REGISTER,
                         .index = NO_REGISTER,
                         .disp = (int32_t)o->mem.disp.value};
    if (o->mem.base != ZYDIS_REGISTER_NONE)
        rm.base = (uint8_t)use_register(g, guest_number(o->mem.base), TEMP_ADDRESS);
    if (o->mem.index != ZYDIS_REGISTER_NONE) {
        rm.index = (uint8_t)use_register(g, guest_number(o->mem.index), TEMP_ADDEND);
        rm.scale = (uint8_t)__builtin_ctz(o->mem.scale ? o->mem.scale : 1);
    }
    /* The host's RSP number cannot be an index: the guest's stands elsewhere, and is none either. */
    return rm;
}

static bool in_segment(const ZydisDecodedOperand *o)
{
    return o->mem.segment == ZYDIS_REGISTER_FS || o->mem.segment == ZYDIS_REGISTER_GS;
}

void emit_address(struct generator *g)
{
    const ZydisDecodedOperand *o = &g->item->operand[g->item->memory];
    struct emit *e = &g->emit;
    if (o->mem.base == ZYDIS_REGISTER_RIP)
        emit_constant(e, TEMP_ADDRESS, g->item->next + (uint64_t)o->mem.disp.value);
    else if (o->mem.base == ZYDIS_REGISTER_NONE && o->mem.index == ZYDIS_REGISTER_NONE)
        emit_constant(e, TEMP_ADDRESS, (uint64_t)o->mem.disp.value);
    else
        emit_lea(e, TEMP_ADDRESS, operand_of(g, o));
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
        in_segment(o)) {
        int32_t base =
            o->mem.segment == ZYDIS_REGISTER_FS ? OF_VCPU(base[SEG_FS]) : OF_VCPU(base[SEG_GS]);
        emit_load(e, TEMP_ADDEND, RM_MEMORY(RSP, base));
        emit_lea(e, TEMP_ADDRESS, RM_INDEXED(TEMP_ADDRESS, TEMP_ADDEND, 0, 0));
    }
}

/* The slot is that of the last byte's page, in TEMP_COUNT; `first` is the first byte's address as an operand of
 * LEA. The offset of that in the page of the slot is less than a page only if both are in it. */
static uint32_t emit_find_page(struct generator *g, bool write, struct host_rm first)
{
    struct emit *e = &g->emit;
    unsigned table = g->t->table;
    int32_t page = write ? OF_FAST(page[0][FAST_WRITE]) : OF_FAST(page[0][FAST_READ]);
    page += (int32_t)(table * FAST_ACCESSES * FAST_SLOTS * sizeof(uint64_t));
    int32_t addend = OF_FAST(addend) + (int32_t)(table * FAST_SLOTS * sizeof(uint64_t));
    emit_zero_extend16(e, TEMP_COUNT, TEMP_COUNT);
    emit_load(e, TEMP_ADDEND, RM_INDEXED(RSP, TEMP_COUNT, 3, addend));
    emit_load(e, TEMP_COUNT, RM_INDEXED(RSP, TEMP_COUNT, 3, page));
    first.index = TEMP_COUNT;
    emit_lea(e, TEMP_COUNT, first);
    emit_shift_by_12(e, TEMP_COUNT, TEMP_COUNT);
    return emit_jump_if_zero(e);
}

static struct exit_point *lookup_exit(struct generator *g, uint32_t again, unsigned size,
                                      bool write)
{
    struct exit_point *exit = exit_make(g, TRANSLATOR_LOOKUP);
    if (exit) {
        exit->host = g->emit.base + again;
        exit->size = (uint16_t)size;
        exit->write = write;
    }
    return exit;
}

void emit_lookup(struct generator *g, uint32_t again, unsigned size, bool write)
{
    struct emit *e = &g->emit;
    unsigned last = TEMP_ADDRESS;
    if (size > 1) {
        emit_lea(e, TEMP_COUNT, RM_MEMORY(TEMP_ADDRESS, (int32_t)size - 1));
        last = TEMP_COUNT;
    }
    emit_shift_by_12(e, TEMP_COUNT, last);
    uint32_t found = emit_find_page(g, write, RM_MEMORY(TEMP_ADDRESS, 0));
    exit_jump(g, lookup_exit(g, again, size, write));
    emit_here_short(e, found);
}

void emit_group_lookup(struct generator *g)
{
    struct emit *e = &g->emit;
    struct access_range range = group_rest(g->items, g->position);
    struct host_rm first = RM_MEMORY(host_register(range.base), range.disp);
    uint32_t again = e->used;
    emit_lea(e, TEMP_COUNT, RM_MEMORY(first.base, range.disp + range.bytes - 1));
    emit_shift_by_12(e, TEMP_COUNT, TEMP_COUNT);
    uint32_t found = emit_find_page(g, range.write, first);
    struct exit_point *exit = lookup_exit(g, again, (unsigned)range.bytes, range.write);
    if (exit)
        exit->group = true;
    exit_jump(g, exit);
    if (!e->failed) {
        g->stubs[g->stub_count - 1].has_address = true;
        g->stubs[g->stub_count - 1].address = first;
    }
    emit_here_short(e, found);
}

struct host_rm emit_operand(struct generator *g, unsigned bytes, bool write)
{
    const struct item *item = g->item;
    if (!item->member) {
        uint32_t again = g->emit.used;
        emit_address(g);
        emit_lookup(g, again, bytes, write);
        return RM_FOUND;
    }
    if (item->first == g->position)
        emit_group_lookup(g);
    return RM_INDEXED(host_register(item->access.base), TEMP_ADDEND, 0, item->access.disp);
}
