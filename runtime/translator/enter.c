/* SPDX-License-Identifier: MIT */
/* The way from C into translated code and back: the only code that is always the same. Emitted, for it shares the
 * layout. */
#include "runtime/translator/translation.h"

#include <string.h>

/* Flags and registers of the guest from the vCPU, RAX last: it carries the flags. */
static void emit_reload(struct emit *e)
{
    emit_load_status(e);
    emit_flags_from_rax(e);
    for (unsigned n = R15 + 1; n-- > RAX;)
        if (host_register(n) != IN_MEMORY)
            emit_load(e, host_register(n), RM_MEMORY(RSP, OF_REGISTER(n)));
}

/* Two ways in, of which the second finds the flags saved; returns the offset of that. */
static uint32_t emit_save(struct emit *e)
{
    emit_store(e, RM_MEMORY(RSP, OF_REGISTER(RAX)), RAX);
    emit_flags_to_rax(e);
    emit_store_status(e);
    uint32_t common = emit_jump(e), saved = e->used;
    emit_store(e, RM_MEMORY(RSP, OF_REGISTER(RAX)), RAX);
    emit_here(e, common);
    for (unsigned n = RAX + 1; n <= R15; n++)
        if (host_register(n) != IN_MEMORY)
            emit_store(e, RM_MEMORY(RSP, OF_REGISTER(n)), host_register(n));
    return saved;
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

bool enter_create(struct code_cache *code, struct emit *e, struct ways *ways)
{
    e->base = code_cache_next(code);
    e->used = 0;
    e->failed = false;
    emit_endbr(e);
    EMIT_RAW(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41,
             0x57);                      /* push what C wants back */
    EMIT_RAW(e, 0x48, 0x83, 0xec, 0x08); /* sub $8, %rsp */
    emit_store(e, RM_MEMORY(RDI, offsetof(struct vcpu, host_stack)), RSP);
    emit_lea(e, RSP, RM_MEMORY(RDI, STACK_BIAS));
    emit_mov(e, TEMP_ADDRESS, RSI);
    uint32_t reload = e->used;
    emit_reload(e);
    EMIT_RAW(e, 0x3e, 0x41, 0xff, 0xe6); /* notrack jmp *%r14: also to where no ENDBR64 is */

    uint32_t out = e->used;
    uint32_t out_saved = emit_save(e);
    emit_call_leave(e);
    EMIT_RAW(e, 0x48, 0x85, 0xc0); /* test %rax, %rax */
    uint32_t done = emit_jump_if(e, 4);
    emit_mov(e, TEMP_ADDRESS, RAX);
    emit_lea(e, RSP, RM_MEMORY(RBX, STACK_BIAS));
    emit_jump_to(e, e->base + reload);
    emit_here(e, done);
    EMIT_RAW(e, 0x48, 0x83, 0xc4, 0x08, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b,
             0xc3);
    if (e->failed || !code_cache_put(code, e->bytes, e->used))
        return false;
    memcpy(&ways->enter, &e->base, sizeof ways->enter);
    ways->leave = e->base + out;
    ways->leave_saved = e->base + out_saved;
    return true;
}
