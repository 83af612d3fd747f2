/* SPDX-License-Identifier: MIT */
/* What happens when a routine rings: by its index the host finds the instruction that it stands
 * for, made ready when it first rang, and executes it on the guest's own registers (D2, D5, D10).
 * Nothing is fetched from the guest but the frame that hvstub.h describes. */
#include <stdlib.h>

#include "runtime/soft/access.h"
#include "runtime/stub.h"

/* Iterations of one INS or OUTS before the guest goes on with the native instruction: interrupts
 * may wait. */
#define ITERATIONS_MAX 4096u

/* Executes the block, whose only instruction is at `at`. */
static void execute(struct vcpu *cpu, struct block *block, uint64_t at)
{
    cpu->rip = at;
    cpu->block = block;
    for (const struct insn *i = block->insns; i;)
        i = i->run(cpu, i);
}

/* INT, SYSCALL and CALL push the address behind them. */
static bool pushes_rip(unsigned kind)
{
    return kind == PV_KIND_INT || kind == PV_KIND_SYSCALL || kind == PV_KIND_CALL_FAR;
}

/* Executes what `r` stands for. The guest's RAX and RSP are in place. A fault is the native
 * instruction's: it finds all registers as they were and RIP at `native`. Returns the RIP to go on
 * at. */
static uint64_t ring(struct vcpu *cpu, const struct stub_routine *r, struct block *block,
                     uint64_t native, uint64_t tail)
{
    struct block *under_execution = cpu->block;
    const struct insn *current = cpu->current;
    uint64_t rip = cpu->rip, at = native;
    unsigned length = block->insns[0].length;
    if (r->flags & PV_ROUTINE_STI) /* STI; HLT: both at once */
        cpu->rflags |= RFLAGS_IF;
    if (pushes_rip(r->kind))
        at = tail - length;
    execute(cpu, block, at);
    for (unsigned n = 1; cpu->rip == at && n < ITERATIONS_MAX && cpu->budget > 0; n++) {
        cpu->budget--;
        execute(cpu, block, at);
    }
    uint64_t next = cpu->rip == at + length ? tail : cpu->rip;
    cpu->rip = rip;
    cpu->block = under_execution;
    cpu->current = current;
    return next;
}

static struct block *block_of(struct vcpu *cpu, struct stub_routine *r)
{
    if (!r->block)
        r->block = doorbell_block(cpu, r->kind, r->operand);
    return r->block;
}

static void count(struct vcpu *cpu, const struct stub_routine *r, uint64_t rip, bool host_call)
{
    struct stats *stats = &cpu->vm->stats;
    stats->routine_calls++;
    stats->host_calls += host_call;
    stats->by_form[r->form]++;
    stats_exit(stats, EXIT_KIND_DOORBELL, rip);
}

/* The routine of this index, if it is one that may ring with these flags and `rip` is in its
 * emulation path. *base is where the header is for code there. */
static struct stub_routine *ringing(const struct vcpu *cpu, uint64_t rip, uint32_t index,
                                    unsigned flags, uint64_t *base)
{
    const struct stub *stub = cpu->vm->stub;
    if (index >= stub->routine_count || cpu->cpl != 0 || !vcpu_code64(cpu))
        return NULL;
    struct stub_routine *r = &stub->routines[index];
    *base = stub_header_for(stub, rip, r->emulation_offset);
    return r->linked && (r->flags & flags) == flags &&
                   rip - *base - (uint64_t)r->emulation_offset < r->emulation_size
               ? r
               : NULL;
}

/* The frame is read whole before anything changes. */
bool stub_doorbell(struct vcpu *cpu, const struct insn *i, uint64_t *next_rip)
{
    uint64_t base, rip = insn_rip(cpu, i), rsp = cpu->r[RSP];
    struct stub_routine *r = ringing(cpu, rip, (uint32_t)cpu->r[RAX], PV_ROUTINE_DOORBELL, &base);
    struct block *block = r && !(r->flags & PV_ROUTINE_BARE) ? block_of(cpu, r) : NULL;
    if (!block)
        return false;
    unsigned frame = r->operand & PV_OPERAND_MEMORY ? 16 : 8;
    uint64_t rax = load(cpu, i, rsp, 8);
    if (frame == 16)
        cpu->r[REG_OPERAND] = load(cpu, i, rsp + 8, 8);
    count(cpu, r, rip, true);
    cpu->r[RAX] = rax;
    cpu->r[RSP] = rsp + frame;
    *next_rip =
        ring(cpu, r, block, base + (uint64_t)r->native_offset, base + (uint64_t)r->tail_offset);
    return true;
}

/* The routine table is the guest's, and may have changed (D5): an entry is an address to go to. */
static bool take_break(struct vcpu *cpu, uint64_t rip, uint32_t index, uint64_t *next_rip)
{
    const struct stub *stub = cpu->vm->stub;
    uint64_t target;
    if (index >= stub->routine_count || cpu->cpl != 0 || !vcpu_code64(cpu))
        return false;
    const struct stub_routine *r = &stub->routines[index];
    uint64_t base = stub_header_for(stub, rip, r->window_offset);
    if (r->form != PV_FORM_BREAK || rip != base + (uint64_t)r->window_offset ||
        !memory_read(&cpu->vm->memory, stub->table_physical + 8ull * index, &target, 8))
        return false;
    count(cpu, r, rip, false);
    /* The table holds linked addresses: at the identity address the routine is as far from its
     * own. */
    *next_rip = target + (base - stub->header_linear);
    return true;
}

bool stub_ud1(struct vcpu *cpu, const struct insn *i, uint64_t *next_rip)
{
    uint64_t base, rip = insn_rip(cpu, i);
    if (i->aux == STUB_UD1_BREAK)
        return take_break(cpu, rip, (uint32_t)i->imm, next_rip);
    if (i->aux != STUB_UD1_BARE)
        return false;
    struct stub_routine *r =
        ringing(cpu, rip, (uint32_t)i->imm, PV_ROUTINE_DOORBELL | PV_ROUTINE_BARE, &base);
    struct block *block = r ? block_of(cpu, r) : NULL;
    if (!block)
        return false;
    count(cpu, r, rip, true);
    *next_rip =
        ring(cpu, r, block, base + (uint64_t)r->native_offset, base + (uint64_t)r->tail_offset);
    return true;
}
