/* SPDX-License-Identifier: MIT */
/* The second pass: code for each item, one after the other. */
#include "runtime/translator/translation.h"

#include <string.h>

/* ---- exits ---- */
struct exit_point *exit_make(struct generator *g, enum translator_exit reason)
{
    struct exit_point *exit = code_cache_data(g->code, sizeof *exit);
    if (!exit) {
        g->emit.failed = true;
        return NULL;
    }
    exit->of = g->t;
    exit->reason = (uint8_t)reason;
    exit->position = (uint8_t)g->position;
    return exit;
}

void exit_jump(struct generator *g, struct exit_point *exit)
{
    if (!exit || g->stub_count == sizeof g->stubs / sizeof g->stubs[0]) {
        g->emit.failed = true;
        return;
    }
    g->stubs[g->stub_count++] = (struct stub){.jump = emit_jump(&g->emit), .exit = exit};
}

void exit_stubs(struct generator *g)
{
    struct emit *e = &g->emit;
    for (unsigned n = 0; n < g->stub_count; n++) {
        struct exit_point *exit = g->stubs[n].exit;
        if (exit->reason == TRANSLATOR_CHAIN) { /* comes through its slot: an indirect jump */
            exit->host = exit->stub = e->base + e->used;
            emit_endbr(e);
        } else {
            emit_here(e, g->stubs[n].jump);
        }
        if (g->stubs[n].has_address)
            emit_lea(e, TEMP_ADDRESS, g->stubs[n].address);
        emit_lea_of(e, TEMP_COUNT, exit);
        emit_jump_to(e, g->leave);
    }
}

/* ---- instructions that are copied ---- */
static const ZydisDecodedOperand *register_operand(const struct item *item, unsigned n)
{
    return n == NO_OPERAND ? NULL : &item->operand[n];
}

static bool reads(const struct item *item, const ZydisDecodedOperand *o)
{
    /* what is written in part keeps the rest; and processors keep all of it where BSF and BSR find no bit */
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_READ || o->size < 32 ||
           o->actions & ZYDIS_OPERAND_ACTION_CONDWRITE || item->z.mnemonic == ZYDIS_MNEMONIC_BSF ||
           item->z.mnemonic == ZYDIS_MNEMONIC_BSR;
}
static bool writes(const ZydisDecodedOperand *o)
{
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

/* The number by which the copy names a register. */
static uint8_t number_of(const ZydisDecodedOperand *o, unsigned host)
{
    ZydisRegister reg = o->reg.value;
    if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH)
        return (uint8_t)(4 + (reg - ZYDIS_REGISTER_AH));
    return (uint8_t)host;
}

static struct host_insn shape_of(const struct item *item)
{
    const ZydisDecodedInstruction *z = &item->z;
    struct host_insn insn = {.opcode = z->opcode,
                             .wide = z->raw.rex.W,
                             .map = z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? 0
                                    : z->opcode_map == ZYDIS_OPCODE_MAP_0F    ? 1
                                                                              : 2,
                             .reg = z->raw.modrm.reg};
    for (unsigned n = 0; n < z->raw.prefix_count; n++) {
        uint8_t value = z->raw.prefixes[n].value;
        if (value == 0x66)
            insn.operand16 = true;
        if ((value == 0xf2 || value == 0xf3) &&
            z->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            insn.repeat = value;
    }
    insn.no_modrm = !(z->attributes & ZYDIS_ATTRIB_HAS_MODRM);
    if (insn.no_modrm) { /* the low bits may be a register */
        insn.reg = z->opcode & 7;
        insn.opcode &= 0xf8;
    }
    /* SPL to DIL, and what replaces them, need a REX prefix; any register of 8 bits may have one but AH to BH */
    for (unsigned n = 0; n < z->operand_count_visible; n++)
        if (item->operand[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(item->operand[n].reg.value) == ZYDIS_REGCLASS_GPR8 &&
            !item->legacy_high)
            insn.rex = true;
    return insn;
}

/* Immediates as they stand in the original: its last bytes. */
static void take_immediate(const struct generator *g, struct host_insn *insn)
{
    const ZydisDecodedInstruction *z = &g->item->z;
    for (unsigned n = 0; n < 2; n++) {
        if (!z->raw.imm[n].size)
            continue;
        unsigned size = z->raw.imm[n].size / 8u;
        uint64_t value = z->raw.imm[n].value.u;
        memcpy(insn->immediate + insn->immediate_size, &value, size);
        insn->immediate_size = (uint8_t)(insn->immediate_size + size);
    }
}

/* A register operand of the copy: where it is, and how it gets there and back. */
struct place {
    unsigned guest,
        host;   /* host == IN_MEMORY: the operand is the guest's register in memory itself */
    bool store; /* into memory, behind the instruction */
};

static struct place bring(struct generator *g, const ZydisDecodedOperand *o, unsigned temp)
{
    struct place place = {.guest = guest_number(o->reg.value)};
    place.host = host_register(place.guest);
    if (place.host != IN_MEMORY)
        return place;
    place.host = temp;
    place.store = writes(o);
    if (reads(g->item, o))
        emit_load(&g->emit, temp, RM_MEMORY(RSP, OF_REGISTER(place.guest)));
    return place;
}

static void send_back(struct generator *g, const struct place *place)
{
    if (place->store)
        emit_store(&g->emit, RM_MEMORY(RSP, OF_REGISTER(place->guest)), place->host);
}

/* A register in ModRM.rm may be replaced by its place in memory, but where 32 bits are written: that clears the
 * rest. */
static bool stays_in_memory(const struct item *item, const ZydisDecodedOperand *o)
{
    bool bit_number =
        item->z.mnemonic == ZYDIS_MNEMONIC_BT || item->z.mnemonic == ZYDIS_MNEMONIC_BTS ||
        item->z.mnemonic == ZYDIS_MNEMONIC_BTR || item->z.mnemonic == ZYDIS_MNEMONIC_BTC;
    return host_register(guest_number(o->reg.value)) == IN_MEMORY && !bit_number &&
           !(writes(o) && o->size == 32);
}

/* A group's addend survives instructions between its members (group.c asks the same). */
static unsigned second_temp(const struct item *item)
{
    return item->count_in_cl ? TEMP_ADDEND : TEMP_COUNT;
}

static void copy_registers(struct generator *g)
{
    const struct item *item = g->item;
    struct host_insn insn = shape_of(item);
    const ZydisDecodedOperand *reg = register_operand(item, item->reg);
    const ZydisDecodedOperand *rm = register_operand(item, item->rm);
    struct place first = {0}, second = {0};
    bool same = reg && rm && guest_number(reg->reg.value) == guest_number(rm->reg.value);
    if (item->count_in_cl)
        emit_mov(&g->emit, TEMP_COUNT, HOST_OF_RCX);
    if (reg) {
        first = bring(g, reg, TEMP_ADDRESS);
        insn.reg = number_of(reg, first.host);
    }
    if (rm && same && host_register(first.guest) == IN_MEMORY) {
        if (!reads(item, reg) && reads(item, rm))
            emit_load(&g->emit, TEMP_ADDRESS, RM_MEMORY(RSP, OF_REGISTER(first.guest)));
        first.store |= writes(rm);
        insn.rm = RM_REGISTER(first.host);
    } else if (rm && stays_in_memory(item, rm)) {
        insn.rm = RM_MEMORY(RSP, OF_REGISTER(guest_number(rm->reg.value)));
    } else if (rm) {
        second = bring(g, rm, second_temp(item));
        insn.rm = RM_REGISTER(number_of(rm, second.host));
    }
    take_immediate(g, &insn);
    if (!emit_insn(&g->emit, &insn, item->legacy_high))
        g->emit.failed = true;
    send_back(g, &first);
    send_back(g, &second);
}

static void copy_memory(struct generator *g)
{
    const struct item *item = g->item;
    const ZydisDecodedOperand *memory = &item->operand[item->memory];
    const ZydisDecodedOperand *reg = register_operand(item, item->reg);
    struct host_insn insn = shape_of(item);
    struct place place = {0};
    insn.rm = emit_operand(g, memory->size / 8u, writes(memory));
    if (item->count_in_cl)
        emit_mov(&g->emit, TEMP_COUNT, HOST_OF_RCX);
    if (reg) {
        place = bring(g, reg, TEMP_COUNT);
        insn.reg = number_of(reg, place.host);
    }
    take_immediate(g, &insn);
    if (!emit_insn(&g->emit, &insn, item->legacy_high))
        g->emit.failed = true;
    send_back(g, &place);
}

static void copy_lea(struct generator *g)
{
    const struct item *item = g->item;
    const ZydisDecodedOperand *reg = &item->operand[item->reg];
    unsigned guest = guest_number(reg->reg.value), host = host_register(guest);
    bool known = host != IN_MEMORY && reg->size == 64;
    emit_address(g);
    if (known)
        emit_mov(&g->emit, host, TEMP_ADDRESS);
    else if (reg->size == 64)
        emit_store(&g->emit, RM_MEMORY(RSP, OF_REGISTER(guest)), TEMP_ADDRESS);
    else if (reg->size == 32) {
        emit_lea32(&g->emit, host == IN_MEMORY ? TEMP_ADDRESS : host, RM_MEMORY(TEMP_ADDRESS, 0));
        if (host == IN_MEMORY)
            emit_store(&g->emit, RM_MEMORY(RSP, OF_REGISTER(guest)), TEMP_ADDRESS);
    } else { /* 16 bits: mov */
        struct host_insn insn = {.operand16 = true, .opcode = 0x89, .reg = TEMP_ADDRESS};
        insn.rm = host == IN_MEMORY ? RM_MEMORY(RSP, OF_REGISTER(guest)) : RM_REGISTER(host);
        emit_insn(&g->emit, &insn, false);
    }
}

/* With the upper half zero the quotient fits, whatever the divisor is but zero: both can be seen without a flag. */
static void copy_divide(struct generator *g)
{
    struct emit *e = &g->emit;
    const ZydisDecodedOperand *divisor = &g->item->operand[0];
    bool wide = divisor->size == 64;
    emit_mov_sized(e, wide, TEMP_COUNT, RM_REGISTER(RDX));
    uint32_t small = emit_jump_if_zero(e);
    uint32_t odd = e->used;
    exit_jump(g, exit_make(g, TRANSLATOR_INTERPRET));
    emit_here_short(e, small);
    struct host_rm from = RM_FOUND;
    if (g->item->memory != NO_OPERAND) {
        uint32_t again = e->used;
        emit_address(g);
        emit_lookup(g, again, divisor->size / 8u, false);
    } else {
        unsigned guest = guest_number(divisor->reg.value), host = host_register(guest);
        from = host == IN_MEMORY ? RM_MEMORY(RSP, OF_REGISTER(guest)) : RM_REGISTER(host);
    }
    emit_mov_sized(e, wide, TEMP_COUNT, from);
    emit_jump_if_zero_back(e, odd);
    struct host_insn insn = {.wide = wide, .opcode = 0xf7, .reg = 6, .rm = RM_REGISTER(TEMP_COUNT)};
    emit_insn(e, &insn, false);
}

/* ---- the stack ---- */
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

static void copy_push(struct generator *g)
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

static void copy_pop(struct generator *g)
{
    struct emit *e = &g->emit;
    unsigned guest = guest_number(g->item->operand[0].reg.value), host = host_register(guest);
    struct host_rm from = emit_operand(g, 8, false);
    emit_load(e, host == IN_MEMORY ? TEMP_COUNT : host, from);
    if (host == IN_MEMORY)
        emit_store(e, RM_MEMORY(RSP, OF_REGISTER(guest)), TEMP_COUNT);
    emit_lea(e, HOST_OF_RSP, RM_MEMORY(HOST_OF_RSP, 8));
}

static void copy_leave(struct generator *g)
{
    struct emit *e = &g->emit;
    emit_load(e, TEMP_COUNT, emit_operand(g, 8, false));
    emit_lea(e, HOST_OF_RSP, RM_MEMORY(RBP, 8));
    emit_mov(e, RBP, TEMP_COUNT);
}

/* ---- a block ---- */
static void generate_item(struct generator *g)
{
    switch (g->item->class) {
    case CLASS_INTERPRET:
        exit_jump(g, exit_make(g, TRANSLATOR_INTERPRET));
        break;
    case CLASS_COPY:
        if (g->item->memory != NO_OPERAND)
            copy_memory(g);
        else
            copy_registers(g);
        break;
    case CLASS_LEA:
        copy_lea(g);
        break;
    case CLASS_DIVIDE:
        copy_divide(g);
        break;
    case CLASS_PUSH:
        copy_push(g);
        break;
    case CLASS_POP:
        copy_pop(g);
        break;
    case CLASS_LEAVE:
        copy_leave(g);
        break;
    case CLASS_JUMP:
    case CLASS_JUMP_IF:
    case CLASS_CALL:
    case CLASS_RETURN:
        generate_control(g);
        break;
    case CLASS_NOTHING:
    case CLASSES:
        break;
    }
}

/* Entries from other blocks take the block's instructions out of the budget, and leave where it is not enough; the
 * stub stands before so that the usual way falls through. */
static uint32_t generate_entry(struct generator *g)
{
    struct emit *e = &g->emit;
    struct exit_point *exit = exit_make(g, TRANSLATOR_BUDGET);
    uint32_t spent = e->used;
    if (!exit)
        return 0;
    emit_lea_of(e, TEMP_COUNT, exit);
    emit_jump_to(e, g->leave);
    uint32_t entry = e->used;
    emit_endbr(e);
    emit_load(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(budget)));
    emit_lea(e, TEMP_COUNT, RM_MEMORY(TEMP_COUNT, -(int32_t)g->t->block->count));
    emit_store(e, RM_MEMORY(RSP, OF_VCPU(budget)), TEMP_COUNT);
    /* the highest byte is 0, or -1 if the budget is below zero */
    emit_load_sign(e, TEMP_COUNT, RM_MEMORY(RSP, OF_VCPU(budget) + 7));
    emit_lea32(e, TEMP_COUNT, RM_MEMORY(TEMP_COUNT, 1));
    emit_jump_if_zero_back(e, spent);
    return entry;
}

static bool falls_through(const struct item *item)
{
    return item->class != CLASS_INTERPRET && item->class < CLASS_JUMP;
}

/* Whoever comes back from the interpreter into the middle of a group looks up the rest of it, out of line. */
static void generate_returns(struct generator *g, uint32_t *at)
{
    for (unsigned n = 0; n < g->t->block->count; n++) {
        if (!g->items[n].grouped || g->items[n].first == n)
            continue;
        g->position = n;
        g->item = &g->items[n];
        uint32_t back = g->emit.used;
        emit_group_lookup(g);
        emit_jump_back(&g->emit, at[n]);
        at[n] = back;
    }
}

bool generate_block(struct generator *g, const struct item *items)
{
    const struct block *block = g->t->block;
    uint32_t at[BLOCK_MAX];
    g->items = items;
    g->emit.base = code_cache_next(g->code);
    g->emit.used = 0;
    g->emit.failed = false;
    g->stub_count = 0;
    g->position = 0;
    uint32_t entry = generate_entry(g);
    for (unsigned n = 0; n < block->count; n++) {
        g->position = n;
        g->item = &items[n];
        at[n] = g->emit.used;
        generate_item(g);
    }
    if (falls_through(&items[block->count - 1]))
        generate_end(g, items[block->count - 1].next);
    generate_returns(g, at);
    exit_stubs(g);
    if (g->emit.failed || !code_cache_put(g->code, g->emit.bytes, g->emit.used))
        return false;
    g->t->entry = g->emit.base + entry;
    for (unsigned n = 0; n < block->count; n++)
        g->t->at[n] = items[n].class == CLASS_INTERPRET ? 0 : at[n] - entry;
    return true;
}
