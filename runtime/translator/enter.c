/* SPDX-License-Identifier: MIT */
/* The way from C into translated code and back: the only code that is always the same. Emitted, for it shares the
 * layout. */
#include "runtime/soft/fpu.h"
#include "runtime/translator/translation.h"
#include "runtime/translator/vectors.h"

#include <string.h>

static void emit_registers(struct emit *e)
{
    for (unsigned n = R15 + 1; n-- > RAX;)
        if (host_register(n) != IN_MEMORY)
            emit_load(e, host_register(n), RM_MEMORY(RSP, OF_REGISTER(n)));
}

/* Flags and registers of the guest from the vCPU, RAX last: it carries the flags. */
static void emit_reload(struct emit *e)
{
    emit_load_status(e);
    emit_flags_from_rax(e);
    emit_registers(e);
}

static void emit_save_registers(struct emit *e)
{
    for (unsigned n = RAX; n <= R15; n++)
        if (host_register(n) != IN_MEMORY)
            emit_store(e, RM_MEMORY(RSP, OF_REGISTER(n)), host_register(n));
}

/* Two ways in, of which the second finds the flags saved; returns the offset of that. */
static uint32_t emit_save(struct emit *e)
{
    emit_store(e, RM_MEMORY(RSP, OF_REGISTER(RAX)), RAX);
    emit_flags_to_rax(e);
    emit_store_status(e);
    emit_load(e, RAX, RM_MEMORY(RSP, OF_REGISTER(RAX)));
    uint32_t saved = e->used;
    emit_save_registers(e);
    return saved;
}

/* ---- vector registers (vectors.h) ---- */
/* Forward jump unless vcpu.vectors has one of these. */
static uint32_t emit_unless(struct emit *e, unsigned vectors)
{
    struct host_insn insn = {.opcode = 0xf6, /* testb $vectors, vectors */
                             .rm = RM_MEMORY(RSP, OF_VCPU(vectors)),
                             .immediate_size = 1,
                             .immediate = {(uint8_t)vectors}};
    emit_insn(e, &insn, false);
    return emit_jump_if(e, 4);
}

static void emit_xmm(struct emit *e, uint8_t opcode, unsigned n)
{
    struct host_insn insn = {.map = 1, /* movaps */
                             .opcode = opcode,
                             .reg = (uint8_t)n,
                             .rm = RM_MEMORY(RSP, OF_VCPU(fpu.legacy) + 160 + 16 * (int32_t)n)};
    emit_insn(e, &insn, false);
}

static void emit_ymm_high(struct emit *e, uint8_t opcode, unsigned n)
{
    struct host_insn insn = {.vex = true, /* vinsertf128 $1, vextractf128 $1 */
                             .vex_long = true,
                             .vex_prefix = 1,
                             .map = 3,
                             .opcode = opcode,
                             .reg = (uint8_t)n,
                             .vex_register = opcode == 0x18 ? (uint8_t)n : 0,
                             .rm = RM_MEMORY(RSP, OF_VCPU(fpu.ymm_high) + 16 * (int32_t)n),
                             .immediate_size = 1,
                             .immediate = {1}};
    emit_insn(e, &insn, false);
}

static void emit_mxcsr(struct emit *e, unsigned extension, int32_t at)
{
    struct host_insn insn = {
        .map = 1, .opcode = 0xae, .reg = (uint8_t)extension, .rm = RM_MEMORY(RSP, at)};
    emit_insn(e, &insn, false);
}
enum { LDMXCSR = 2, STMXCSR = 3 };
#define OF_MXCSR (OF_VCPU(fpu.legacy) + 24)

/* ---- x87 (x87.c): XMM registers and MXCSR come with it ---- */
#define OF_X87 OF_VCPU(fpu.legacy)

static void emit_fxsave(struct emit *e, unsigned extension)
{
    struct host_insn insn = {.wide = true,
                             .map = 1,
                             .opcode = 0xae,
                             .reg = (uint8_t)extension,
                             .rm = RM_MEMORY(RSP, OF_X87)};
    emit_insn(e, &insn, false);
}
enum { FXSAVE64, FXRSTOR64 };

/* FOP to RAX and FIP to RBX: as they were, or those of an instruction executed since (x87.c). */
static void emit_x87_place(struct emit *e)
{
    const struct host_rm last = RM_MEMORY(RSP, OF_VCPU(x87_last));
    struct host_insn opcode = {.map = 1,
                               .opcode = 0xb7, /* movzwl */
                               .reg = RAX,
                               .rm = RM_MEMORY(RSP, OF_X87 + 6)};
    emit_load(e, RDX, last);
    emit_insn(e, &opcode, false);
    emit_load(e, RBX, RM_MEMORY(RSP, OF_X87 + 8));
    EMIT_RAW(e, 0x48, 0x85, 0xd2); /* test %rdx, %rdx */
    uint32_t none = emit_jump_if(e, 4);
    opcode.rm = RM_MEMORY(RDX, offsetof(struct x87_place, opcode));
    emit_insn(e, &opcode, false);
    emit_load(e, RBX, RM_MEMORY(RDX, offsetof(struct x87_place, rip)));
    emit_store_immediate(e, last, 0);
    emit_here(e, none);
}

/* All but FOP, FIP, FDP and the mask of MXCSR, which are not the host's. C finds the control word that it knows, and an
 * empty stack. */
static void emit_x87_save(struct emit *e)
{
    uint32_t none = emit_unless(e, VECTOR_X87);
    emit_x87_place(e);
    emit_load(e, RDX, RM_MEMORY(RSP, OF_X87 + 16));
    emit_mov_sized(e, false, RSI, RM_MEMORY(RSP, OF_X87 + 28));
    emit_fxsave(e, FXSAVE64);
    struct host_insn opcode = {
        .operand16 = true, .opcode = 0x89, .reg = RAX, .rm = RM_MEMORY(RSP, OF_X87 + 6)};
    emit_insn(e, &opcode, false);
    emit_store(e, RM_MEMORY(RSP, OF_X87 + 8), RBX);
    emit_store(e, RM_MEMORY(RSP, OF_X87 + 16), RDX);
    struct host_insn mask = {.opcode = 0x89, .reg = RSI, .rm = RM_MEMORY(RSP, OF_X87 + 28)};
    emit_insn(e, &mask, false);
    struct host_insn control = {.map = 1, .opcode = 0xb7, .reg = RAX, .rm = RM_MEMORY(RSP, OF_X87)};
    emit_insn(e, &control, false);
    EMIT_RAW(e, 0x3d, (uint8_t)FCW_INITIAL, FCW_INITIAL >> 8, 0, 0); /* cmp $0x37f, %eax */
    uint32_t other = emit_jump_if(e, 5);
    EMIT_RAW(e, 0x0f, 0x77); /* emms */
    uint32_t done = emit_jump(e);
    emit_here(e, other);
    EMIT_RAW(e, 0xdb, 0xe3); /* fninit */
    emit_here(e, done);
    emit_here(e, none);
}

static void emit_vectors_reload(struct emit *e)
{
    uint32_t no_x87 = emit_unless(e, VECTOR_X87);
    emit_fxsave(e, FXRSTOR64);
    emit_here(e, no_x87);
    uint32_t none = emit_unless(e, VECTOR_SSE | VECTOR_AVX);
    for (unsigned n = 0; n < 16; n++)
        emit_xmm(e, 0x28, n);
    uint32_t no_avx = emit_unless(e, VECTOR_AVX);
    for (unsigned n = 0; n < 16; n++)
        emit_ymm_high(e, 0x18, n);
    emit_here(e, no_avx);
    uint32_t no_mxcsr = emit_unless(e, VECTOR_MXCSR);
    emit_mxcsr(e, LDMXCSR, OF_MXCSR);
    emit_here(e, no_mxcsr);
    emit_here(e, none);
}

/* Flags in the host's MXCSR mean nothing to C; control bits do. */
static void emit_mxcsr_save(struct emit *e)
{
    uint32_t no_mxcsr = emit_unless(e, VECTOR_MXCSR | VECTOR_X87);
    emit_mxcsr(e, STMXCSR, OF_MXCSR);
    struct host_insn insn = {.opcode = 0xf7, /* testl $control, mxcsr */
                             .rm = RM_MEMORY(RSP, OF_MXCSR),
                             .immediate_size = 4};
    memcpy(insn.immediate, &(const uint32_t){MXCSR_CONTROL}, 4);
    emit_insn(e, &insn, false);
    uint32_t usual = emit_jump_if(e, 4);
    emit_store_immediate(e, RM_MEMORY(RSP, OF_VCPU(translator_temp)), MXCSR_INITIAL);
    emit_mxcsr(e, LDMXCSR, OF_VCPU(translator_temp));
    emit_here(e, usual);
    emit_here(e, no_mxcsr);
}

static void emit_vectors_save(struct emit *e)
{
    uint32_t none = emit_unless(e, VECTOR_SSE | VECTOR_AVX | VECTOR_X87);
    emit_x87_save(e);
    for (unsigned n = 0; n < 16; n++)
        emit_xmm(e, 0x29, n);
    uint32_t no_avx = emit_unless(e, VECTOR_AVX);
    for (unsigned n = 0; n < 16; n++)
        emit_ymm_high(e, 0x19, n);
    EMIT_RAW(e, 0xc5, 0xf8, 0x77); /* vzeroupper: C code has SSE in it */
    emit_here(e, no_avx);
    emit_mxcsr_save(e);
    emit_here(e, none);
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
 * this. The guest's flags are in the vCPU, before and after it. RCX is the call point; C keeps RBX, R14 and R15. `elsewhere`: jumps for what does not go on there, with RAX as
 * the function returned it. */
static void emit_call_interpreter(struct emit *e, uint64_t *count)
{
    const struct host_insn call = {
        .opcode = 0xff, .reg = 2, .rm = RM_MEMORY(R15, offsetof(struct call_point, run))};
    EMIT_RAW(e, 0x41, 0x5e); /* pop %r14: where to go on */
    emit_save_registers(e);
    emit_vectors_save(e);
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

/* Back behind the call if the function returned the next instruction, if memory is seen as it was (STAC, POPF), and if no
 * vector registers are there, which the instruction may have made unusable. */
static void emit_return(struct emit *e, uint32_t elsewhere[3])
{
    const struct host_insn vectors = {.opcode = 0x80, /* cmpb $0, vectors */
                                      .reg = 7,
                                      .rm = RM_MEMORY(RBX, offsetof(struct vcpu, vectors)),
                                      .immediate_size = 1};
    emit_load(e, RCX, RM_MEMORY(R15, offsetof(struct call_point, insn)));
    emit_lea(e, RCX, RM_MEMORY(RCX, sizeof(struct insn)));
    EMIT_RAW(e, 0x48, 0x39, 0xc1); /* cmp %rax, %rcx */
    elsewhere[0] = emit_jump_if(e, 5);
    emit_load(e, RCX, RM_MEMORY(RBX, offsetof(struct vcpu, tlb)));
    emit_load(e, RDX, RM_MEMORY(R15, offsetof(struct call_point, tlb)));
    emit_lea(e, RDX, RM_INDEXED(RDX, RBX, 0, 0));
    EMIT_RAW(e, 0x48, 0x39, 0xd1); /* cmp %rdx, %rcx */
    elsewhere[1] = emit_jump_if(e, 5);
    emit_insn(e, &vectors, false);
    elsewhere[2] = emit_jump_if(e, 5);
    emit_lea(e, RSP, RM_MEMORY(RBX, STACK_BIAS));
    emit_registers(e);
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

bool enter_create(struct code_cache *code, struct emit *e, struct ways *ways, uint64_t *calls)
{
    uint32_t elsewhere[3];
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
    emit_vectors_reload(e);
    emit_reload(e);
    EMIT_RAW(e, 0x3e, 0x41, 0xff, 0xe6); /* notrack jmp *%r14: also to where no ENDBR64 is */

    uint32_t call_out = e->used;
    emit_call_interpreter(e, calls);
    emit_return(e, elsewhere);
    for (unsigned n = 0; n < 3; n++)
        emit_here(e, elsewhere[n]);
    emit_resume(e);
    uint32_t resumed = emit_jump(e);

    uint32_t out = e->used;
    uint32_t out_saved = emit_save(e);
    emit_vectors_save(e);
    emit_call_leave(e);
    emit_here(e, resumed);
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
    ways->call = e->base + call_out;
    return true;
}
