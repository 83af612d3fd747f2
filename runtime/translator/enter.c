/* SPDX-License-Identifier: MIT */
/* The way from C into translated code and back: the only code that is always the same. Emitted, for it shares the
 * layout. */
#include "runtime/translator/translation.h"

#include <string.h>

static void emit_status(struct emit *e, bool store)
{
    /* mov %ax, status; movzwl status, %eax */
    struct host_insn insn = {.operand16 = store,
                             .map = store ? 0 : 1,
                             .opcode = store ? 0x89 : 0xb7,
                             .reg = RAX,
                             .rm = RM_MEMORY(RSP, OF_VCPU(status))};
    emit_insn(e, &insn, false);
}

/* Flags and registers of the guest from the vCPU, RAX last: it carries the flags. */
static void emit_reload(struct emit *e)
{
    emit_status(e, false);
    EMIT_RAW(e, 0x04, 0x7f, 0x9e); /* add $0x7f, %al: OF as it was; sahf */
    for (unsigned n = R15 + 1; n-- > RAX;)
        if (host_register(n) != IN_MEMORY)
            emit_load(e, host_register(n), RM_MEMORY(RSP, OF_REGISTER(n)));
}

static void emit_save(struct emit *e)
{
    for (unsigned n = RAX; n <= R15; n++) {
        if (host_register(n) == IN_MEMORY)
            continue;
        emit_store(e, RM_MEMORY(RSP, OF_REGISTER(n)), host_register(n));
        if (n == RAX) {
            EMIT_RAW(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto %al */
            emit_status(e, true);
        }
    }
}

static void emit_call_leave(struct emit *e)
{
    emit_lea(e, RDI, RM_MEMORY(RSP, -STACK_BIAS));
    emit_mov(e, RSI, TEMP_COUNT);
    emit_mov(e, RDX, TEMP_ADDRESS);
    emit_mov(e, RBX, RDI);
    emit_load(e, RSP, RM_MEMORY(RDI, offsetof(struct vcpu, host_stack)));
    emit_constant(e, RAX, (uint64_t)(uintptr_t)translator_leave);
    EMIT_RAW(e, 0xff, 0xd0); /* call *%rax */
}

/* One instruction by the interpreter's function, in the middle of translated code, which goes on behind the call of
 * this. RCX is the call point; C keeps RBX, R14 and R15. `elsewhere`: jumps for what does not go on there, with RAX as
 * the function returned it. */
static void emit_call_interpreter(struct emit *e, uint64_t *count)
{
    const struct host_insn call = {
        .opcode = 0xff, .reg = 2, .rm = RM_MEMORY(R15, offsetof(struct call_point, run))};
    EMIT_RAW(e, 0x41, 0x5e); /* pop %r14: where to go on */
    emit_save(e);
    emit_lea(e, RDI, RM_MEMORY(RSP, -STACK_BIAS));
    emit_mov(e, RBX, RDI);
    emit_mov(e, R15, TEMP_COUNT);
    emit_load(e, RSP, RM_MEMORY(RDI, offsetof(struct vcpu, host_stack)));
    emit_constant(e, RAX, (uint64_t)(uintptr_t)count);
    EMIT_RAW(e, 0x48, 0xff, 0x00); /* incq (%rax) */
    emit_load(e, RAX, RM_MEMORY(R15, offsetof(struct call_point, rip)));
    emit_store(e, RM_MEMORY(RDI, offsetof(struct vcpu, rip)), RAX);
    emit_load(e, RAX, RM_MEMORY(R15, offsetof(struct call_point, block)));
    emit_store(e, RM_MEMORY(RDI, offsetof(struct vcpu, block)), RAX);
    emit_load(e, RSI, RM_MEMORY(R15, offsetof(struct call_point, insn)));
    emit_store_immediate(e, RM_MEMORY(RDI, offsetof(struct vcpu, link)), 0);
    emit_store_byte(e, RM_MEMORY(RDI, offsetof(struct vcpu, translator_called)), 1);
    emit_insn(e, &call, false);
    emit_store_byte(e, RM_MEMORY(RBX, offsetof(struct vcpu, translator_called)), 0);
}

/* Back behind the call if the function returned the next instruction, and if memory is seen as it was (STAC, POPF). */
static void emit_return(struct emit *e, uint32_t elsewhere[2])
{
    emit_load(e, RCX, RM_MEMORY(R15, offsetof(struct call_point, insn)));
    emit_lea(e, RCX, RM_MEMORY(RCX, sizeof(struct insn)));
    EMIT_RAW(e, 0x48, 0x39, 0xc1); /* cmp %rax, %rcx */
    elsewhere[0] = emit_jump_if(e, 5);
    emit_load(e, RCX, RM_MEMORY(RBX, offsetof(struct vcpu, tlb)));
    emit_load(e, RDX, RM_MEMORY(R15, offsetof(struct call_point, tlb)));
    emit_lea(e, RDX, RM_INDEXED(RDX, RBX, 0, 0));
    EMIT_RAW(e, 0x48, 0x39, 0xd1); /* cmp %rdx, %rcx */
    elsewhere[1] = emit_jump_if(e, 5);
    emit_lea(e, RSP, RM_MEMORY(RBX, STACK_BIAS));
    emit_reload(e);
    EMIT_RAW(e, 0x41, 0x56, 0xc3); /* push %r14; ret */
}

/* Goes on where translator_resume says. The return address is not used: nor is it to be on a shadow stack. */
static void emit_resume(struct emit *e)
{
    emit_mov(e, RDI, RBX);
    emit_mov(e, RSI, RAX);
    EMIT_RAW(e, 0x31, 0xc0, 0xf3, 0x48, 0x0f, 0x1e,
             0xc8,                         /* xor %eax, %eax; rdsspq %rax: 0 without one */
             0x48, 0x85, 0xc0, 0x74, 0x0a, /* test %rax, %rax; jz over */
             0xb8, 0x01, 0x00, 0x00, 0x00, 0xf3, 0x48, 0x0f, 0xae,
             0xe8); /* mov $1, %eax; incsspq %rax */
    emit_constant(e, RAX, (uint64_t)(uintptr_t)translator_resume);
    EMIT_RAW(e, 0xff, 0xd0); /* call *%rax */
}

bool enter_create(struct code_cache *code, struct emit *e, struct fixed_code *fixed,
                  uint64_t *calls)
{
    /* where translated code calls C that enters translated code */
    const struct host_insn push = {
        .opcode = 0xff, .reg = 6, .rm = RM_MEMORY(RDI, offsetof(struct vcpu, host_stack))};
    const struct host_insn pop = {
        .opcode = 0x8f, .reg = 0, .rm = RM_MEMORY(RBX, offsetof(struct vcpu, host_stack))};
    uint32_t elsewhere[2];
    e->base = code_cache_next(code);
    e->used = 0;
    e->failed = false;
    emit_endbr(e);
    EMIT_RAW(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41,
             0x57); /* push what C wants back */
    emit_insn(e, &push, false);
    emit_store(e, RM_MEMORY(RDI, offsetof(struct vcpu, host_stack)), RSP);
    emit_lea(e, RSP, RM_MEMORY(RDI, STACK_BIAS));
    emit_mov(e, TEMP_ADDRESS, RSI);
    uint32_t reload = e->used;
    emit_reload(e);
    EMIT_RAW(e, 0x3e, 0x41, 0xff, 0xe6); /* notrack jmp *%r14: also to where no ENDBR64 is */

    uint32_t call_out = e->used;
    emit_call_interpreter(e, calls);
    emit_return(e, elsewhere);
    emit_here(e, elsewhere[0]);
    emit_here(e, elsewhere[1]);
    emit_resume(e);
    uint32_t resumed = emit_jump(e);

    uint32_t out = e->used;
    emit_save(e);
    emit_call_leave(e);
    emit_here(e, resumed);
    EMIT_RAW(e, 0x48, 0x85, 0xc0); /* test %rax, %rax */
    uint32_t done = emit_jump_if(e, 4);
    emit_mov(e, TEMP_ADDRESS, RAX);
    emit_lea(e, RSP, RM_MEMORY(RBX, STACK_BIAS));
    emit_jump_to(e, e->base + reload);
    emit_here(e, done);
    emit_insn(e, &pop, false);
    EMIT_RAW(e, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
    if (e->failed || !code_cache_put(code, e->bytes, e->used))
        return false;
    memcpy(&fixed->enter, &e->base, sizeof fixed->enter);
    fixed->leave = e->base + out;
    fixed->call = e->base + call_out;
    return true;
}
