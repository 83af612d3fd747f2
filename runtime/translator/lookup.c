/* SPDX-License-Identifier: MIT */
/* Guest memory from translated code: the address of an operand, and the look-up that finds it in the host.
 *
 * A look-up ends in a comparison, which in any usual form changes the flags, and the guest's are the host's. That
 * nobody reads them any more is not enough to let them go: where the page is not known the interpreter takes over, and
 * a page fault shows the flags to the guest. So there are three kinds:
 * - before an instruction that sets all flags and can do nothing else to be seen (group.c lets look-ups begin there), a
 *   look-up compares and branches: whoever takes over sets all flags first;
 * - otherwise it changes none: SHRX and JRCXZ;
 * - without BMI2, thus without SHRX, or if the flags are in the vCPU anyhow (flags.c), it compares and branches, too.
 *
 * What was tried, on a Zen 3, in ns for a round of multi-word arithmetic (two look-ups; native 1.0): all as the second
 * kind 2.0; all as the first, which would not be exact, 1.8; one of each, as it is, 1.85. JRCXZ is taken where the page
 * is found; LOOP, which could fall through, is slower (2.4). PEXT for SHRX and MOVZX gains 4 % here and loses as much
 * elsewhere. With traces (trace_code.c), which look up less often, the first kind still saves 5 % of a copy's cycles,
 * and nothing that can be measured of a boot's. */
#include "runtime/memory.h"
#include "runtime/translator/translation.h"

#define CONDITION_ABOVE 7

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

static bool in_host(const ZydisDecodedOperand *o)
{
    return o->mem.base != ZYDIS_REGISTER_NONE && o->mem.index != ZYDIS_REGISTER_NONE &&
           host_register(guest_number(o->mem.base)) != IN_MEMORY &&
           host_register(guest_number(o->mem.index)) != IN_MEMORY;
}

void emit_effective_address(struct generator *g, unsigned to)
{
    const ZydisDecodedOperand *o = &g->item->operand[g->item->memory];
    struct emit *e = &g->emit;
    if (o->mem.base == ZYDIS_REGISTER_RIP) {
        emit_constant(e, to, g->item->next + (uint64_t)o->mem.disp.value);
    } else if (o->mem.base == ZYDIS_REGISTER_NONE && o->mem.index == ZYDIS_REGISTER_NONE) {
        emit_constant(e, to, (uint64_t)o->mem.disp.value);
    } else if (to != TEMP_ADDRESS && o->mem.disp.value && in_host(o)) {
        /* all three at once take a cycle longer; the index often has been there for a while */
        struct host_rm rm = operand_of(g, o);
        unsigned base = rm.base;
        rm.base = NO_REGISTER;
        emit_lea(e, TEMP_ADDRESS, rm.scale ? rm : RM_MEMORY(rm.index, rm.disp));
        emit_lea(e, to, RM_INDEXED(base, TEMP_ADDRESS, 0, 0));
    } else {
        emit_lea(e, to, operand_of(g, o));
    }
}

void emit_address(struct generator *g)
{
    const ZydisDecodedOperand *o = &g->item->operand[g->item->memory];
    struct emit *e = &g->emit;
    emit_effective_address(g, TEMP_ADDRESS);
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.type != ZYDIS_MEMOP_TYPE_AGEN &&
        in_segment(o)) {
        int32_t base =
            o->mem.segment == ZYDIS_REGISTER_FS ? OF_VCPU(base[SEG_FS]) : OF_VCPU(base[SEG_GS]);
        emit_load(e, TEMP_ADDEND, RM_MEMORY(RSP, base));
        emit_lea(e, TEMP_ADDRESS, RM_INDEXED(TEMP_ADDRESS, TEMP_ADDEND, 0, 0));
    }
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

void prepare_lookup(struct generator *g)
{
    if (!g->bmi2 && !g->item->sets_flags)
        flags_to_vcpu(g);
}

/* The slot is that of the last byte's page; `first` is the first byte's address. Its offset in the page of the slot
 * is less than a page only if both are in it. The addend goes to `to`. */
static void find_page(struct generator *g, struct host_rm first, uint32_t again, unsigned size,
                      bool write, unsigned to)
{
    struct emit *e = &g->emit;
    unsigned table = g->t->table;
    int32_t page = write ? OF_FAST(page[0][FAST_WRITE]) : OF_FAST(page[0][FAST_READ]);
    page += (int32_t)(table * FAST_ACCESSES * FAST_SLOTS * sizeof(uint64_t));
    int32_t addend = OF_FAST(addend) + (int32_t)(table * FAST_SLOTS * sizeof(uint64_t));
    prepare_lookup(g);
    bool keep_flags = g->bmi2 && !g->item->sets_flags && !g->flags_saved;
    int32_t last = first.disp + (int32_t)size - 1;
    if (last || !keep_flags)
        emit_lea(e, TEMP_COUNT, RM_MEMORY(first.base, last));
    if (keep_flags)
        emit_shift_by_12(e, TEMP_COUNT, last ? TEMP_COUNT : first.base);
    else
        emit_shift_right(e, TEMP_COUNT, 12);
    emit_zero_extend16(e, TEMP_COUNT, TEMP_COUNT);
    emit_load(e, to, RM_INDEXED(RSP, TEMP_COUNT, 3, addend));
    emit_load(e, TEMP_COUNT, RM_INDEXED(RSP, TEMP_COUNT, 3, page));
    emit_lea(e, TEMP_COUNT, RM_INDEXED(first.base, TEMP_COUNT, 0, first.disp));
    struct exit_point *exit = lookup_exit(g, again, size, write);
    if (keep_flags) {
        emit_shift_by_12(e, TEMP_COUNT, TEMP_COUNT);
        uint32_t found = emit_jump_if_zero(e);
        exit_jump(g, exit);
        emit_here_short(e, found);
    } else {
        emit_compare(e, TEMP_COUNT, PAGE_SIZE - 1);
        exit_jump_if(g, CONDITION_ABOVE, exit);
    }
}

void emit_lookup(struct generator *g, uint32_t again, unsigned size, bool write)
{
    find_page(g, RM_MEMORY(TEMP_ADDRESS, 0), again, size, write, TEMP_ADDEND);
    if (g->item->needs_flags)
        flags_to_host(g);
}

static unsigned addend_of(const struct item *item)
{
    return item->second ? TEMP_ADDRESS : TEMP_ADDEND;
}

void emit_group_lookup(struct generator *g)
{
    struct access_range range = group_rest(g->items, g->position);
    struct host_rm first = RM_MEMORY(host_register(range.base), range.disp);
    find_page(g, first, g->emit.used, (unsigned)range.bytes, range.write, addend_of(g->item));
    if (!g->emit.failed) {
        g->stubs[g->stub_count - 1].exit->group = true;
        g->stubs[g->stub_count - 1].has_address = true;
        g->stubs[g->stub_count - 1].address = first;
    }
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
    if (item->needs_flags)
        flags_to_host(g);
    return RM_INDEXED(host_register(item->access.base), addend_of(item), 0, item->access.disp);
}
