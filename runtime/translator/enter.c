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

bool enter_create(struct code_cache *code, struct emit *e, enter_fn **enter, const void **leave)
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
    emit_save(e);
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
    memcpy(enter, &e->base, sizeof *enter);
    *leave = e->base + out;
    return true;
}
