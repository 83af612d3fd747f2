/* SPDX-License-Identifier: MIT */
/* Ends of blocks: jumps, calls and returns.
 *
 * A jump within its page leads through a slot, which is linked to the target's code once that is known. All others look
 * into the vCPU's table of RIPs, for what a page shows changes with the page tables. In a trace, branches that go on as
 * they did when it was watched lead nowhere: the address of a return or an indirect branch is compared in line.
 *
 * What was tried beside the table, where no trace is (guest instructions a host cycle on an EPYC of the Zen 3 kind):
 * - a stack of return addresses with their code, as a ring of 16 behind the vCPU: recursion 0.37 instead of 0.40, other
 *   calls 0.55 instead of 0.59, a boot of Linux takes 2 to 4 % longer. The table takes two loads and no store; a ring
 *   takes three stores more, and has a top that each call and return waits for. As a trace recursion comes to 1.4.
 * - the host's own prediction of returns needs CALL and RET of the host's, and a stack for them: translated code has
 *   none, for its stack pointer is the vCPU; so this was not tried.
 * - the address seen last beside each indirect branch: recursion 0.35 instead of 0.39, indirect calls 0.3 instead of
 *   0.5, the boot takes as long. The host predicts the table's jump as well, and each branch has 50 bytes more. */
#include "runtime/soft/access.h"
#include "runtime/translator/translation.h"

bool usual_branch(const struct item *item)
{
    return item->z.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR && item->z.operand_width == 64;
}

bool access_call(const struct item *item, struct access_range *access)
{
    *access = (struct access_range){RSP, true, -8, 8};
    return is_relative(item) || (item->inner && item->memory == NO_OPERAND);
}

bool access_return(const struct item *item, struct access_range *access)
{
    (void)item;
    *access = (struct access_range){RSP, false, 0, 8};
    return true;
}

static int32_t rip_table(const struct generator *g)
{
    return OF_FAST(rip) + (int32_t)(g->t->table * FAST_SLOTS * sizeof(uint64_t));
}
static int32_t code_table(const struct generator *g)
{
    return OF_FAST(code) + (int32_t)(g->t->table * FAST_SLOTS * sizeof(uint64_t));
}

/* To a known RIP in another page. */
static void end_elsewhere(struct generator *g, uint64_t target)
{
    struct emit *e = &g->emit;
    int32_t slot = (int32_t)((uint16_t)target * sizeof(uint64_t));
    struct exit_point *exit = exit_make(g, TRANSLATOR_JUMP);
    emit_load(e, TEMP_COUNT, RM_MEMORY(RSP, rip_table(g) + slot));
    emit_constant(e, TEMP_ADDRESS, target);
    emit_lea(e, TEMP_COUNT, RM_INDEXED(TEMP_COUNT, TEMP_ADDRESS, 0, 0));
    uint32_t found = emit_jump_if_zero(e);
    if (exit)
        exit->target = target;
    exit_jump(g, exit);
    emit_here_short(e, found);
    emit_jump_memory(e, RM_MEMORY(RSP, code_table(g) + slot));
}

void generate_end(struct generator *g, uint64_t target)
{
    flags_to_host(g);
    if ((target ^ g->t->rip) >= PAGE_SIZE) {
        end_elsewhere(g, target);
        return;
    }
    struct exit_point *exit = exit_make(g, TRANSLATOR_CHAIN);
    if (!exit || g->stub_count == sizeof g->stubs / sizeof g->stubs[0]) {
        g->emit.failed = true;
        return;
    }
    exit->target = target;
    emit_jump_slot(&g->emit, &exit->host);
    g->stubs[g->stub_count++] = (struct stub){.exit = exit};
}

/* Goes on if TEMP_ADDRESS, a RIP, is known, with its code in TEMP_ADDEND; else the interpreter executes the whole
 * instruction, and finds out whether that is an address at all. */
static void find_code(struct generator *g)
{
    struct emit *e = &g->emit;
    emit_zero_extend16(e, TEMP_COUNT, TEMP_ADDRESS);
    emit_load(e, TEMP_ADDEND, RM_INDEXED(RSP, TEMP_COUNT, 3, code_table(g)));
    emit_load(e, TEMP_COUNT, RM_INDEXED(RSP, TEMP_COUNT, 3, rip_table(g)));
    emit_lea(e, TEMP_COUNT, RM_INDEXED(TEMP_COUNT, TEMP_ADDRESS, 0, 0));
    uint32_t found = emit_jump_if_zero(e);
    exit_jump(g, exit_make(g, TRANSLATOR_INDIRECT));
    emit_here_short(e, found);
}

/* The operand of an indirect jump or call, into TEMP_ADDRESS. */
static void load_target(struct generator *g)
{
    struct emit *e = &g->emit;
    if (g->item->memory == NO_OPERAND) {
        unsigned guest = guest_number(g->item->operand[0].reg.value), host = host_register(guest);
        if (host == IN_MEMORY)
            emit_load(e, TEMP_ADDRESS, RM_MEMORY(RSP, OF_REGISTER(guest)));
        else
            emit_mov(e, TEMP_ADDRESS, host);
        return;
    }
    emit_load(e, TEMP_ADDRESS, emit_operand(g, 8, false));
}

static void push_return(struct generator *g)
{
    struct emit *e = &g->emit;
    uint64_t back = g->item->next;
    struct host_rm to = RM_FOUND;
    if (g->item->member) {
        to = emit_operand(g, 8, true);
    } else { /* an indirect call */
        uint32_t again = e->used;
        emit_lea(e, TEMP_ADDRESS, RM_MEMORY(HOST_OF_RSP, -8));
        emit_lookup(g, again, 8, true);
    }
    if (back == (uint64_t)(int64_t)(int32_t)back) {
        emit_store_immediate(e, to, (int32_t)back);
    } else {
        emit_constant(e, TEMP_COUNT, back);
        emit_store(e, to, TEMP_COUNT);
    }
    emit_lea(e, HOST_OF_RSP, RM_MEMORY(HOST_OF_RSP, -8));
}

bool is_relative(const struct item *item)
{
    return item->operand[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}
uint64_t relative_target(const struct item *item)
{
    return item->next + (uint64_t)item->operand[0].imm.value.s;
}

static int32_t popped(const struct item *item)
{
    return 8 + (item->z.operand_count_visible ? (uint16_t)item->operand[0].imm.value.u : 0);
}

void generate_call(struct generator *g)
{
    struct emit *e = &g->emit;
    if (is_relative(g->item)) {
        push_return(g);
        generate_end(g, relative_target(g->item));
        return;
    }
    load_target(g);
    find_code(g);
    emit_store(e, RM_MEMORY(RSP, OF_VCPU(translator_temp)), TEMP_ADDEND);
    push_return(g);
    emit_jump_memory(e, RM_MEMORY(RSP, OF_VCPU(translator_temp)));
}

void generate_return(struct generator *g)
{
    struct emit *e = &g->emit;
    emit_load(e, TEMP_ADDRESS, emit_operand(g, 8, false));
    find_code(g);
    emit_lea(e, HOST_OF_RSP, RM_MEMORY(HOST_OF_RSP, popped(g->item)));
    emit_jump_register(e, TEMP_ADDEND);
}

void generate_jump(struct generator *g)
{
    if (is_relative(g->item)) {
        generate_end(g, relative_target(g->item));
        return;
    }
    load_target(g);
    find_code(g);
    emit_jump_register(&g->emit, TEMP_ADDEND);
}

void generate_jump_if(struct generator *g)
{
    uint32_t taken = emit_jump_if(&g->emit, g->item->z.opcode & 15u);
    generate_end(g, g->item->next);
    emit_here(&g->emit, taken);
    generate_end(g, relative_target(g->item));
}

/* ---- in a trace ---- */
bool moves_inner(const struct item *item, int32_t *by)
{
    *by = item->class == CLASS_CALL ? -8 : item->class == CLASS_RETURN ? popped(item) : 0;
    return item->inner;
}

/* Goes on if TEMP_ADDRESS is where the trace goes on. */
static void expect_target(struct generator *g)
{
    struct emit *e = &g->emit;
    emit_constant(e, TEMP_COUNT, -g->item->onward);
    emit_lea(e, TEMP_COUNT, RM_INDEXED(TEMP_COUNT, TEMP_ADDRESS, 0, 0));
    uint32_t expected = emit_jump_if_zero(e);
    exit_jump(g, exit_make(g, TRANSLATOR_INDIRECT));
    emit_here_short(e, expected);
}

static void inner_jump_if(struct generator *g)
{
    unsigned condition = g->item->z.opcode & 15u;
    if (g->item->onward != g->item->next)
        condition ^= 1;
    exit_jump_if(g, condition, exit_make(g, TRANSLATOR_CHAIN));
}

void generate_inner(struct generator *g)
{
    const struct item *item = g->item;
    if (item->class == CLASS_JUMP_IF) {
        inner_jump_if(g);
        return;
    }
    if (item->class == CLASS_RETURN)
        emit_load(&g->emit, TEMP_ADDRESS, emit_operand(g, 8, false));
    else if (!is_relative(item))
        load_target(g);
    if (item->class == CLASS_RETURN || !is_relative(item))
        expect_target(g);
    if (item->class == CLASS_CALL)
        push_return(g);
    else if (item->class == CLASS_RETURN)
        emit_lea(&g->emit, HOST_OF_RSP, RM_MEMORY(HOST_OF_RSP, popped(item)));
}
