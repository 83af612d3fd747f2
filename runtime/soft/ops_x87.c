/* SPDX-License-Identifier: MIT */
/* x87 instructions: the host executes them between FXRSTOR64 and FXSAVE64 of the guest's image. Exceptions that the
 * guest has not masked stay so: an x87 exception becomes pending and is only raised by the next waiting instruction
 * (SDM 1 8.7), which the stub does not contain. So the results and flags are the processor's own. */
#include "runtime/interrupts.h"
#include "runtime/soft/fpu.h"

/* ---- exceptions ---- */
void x87_summarize(struct fpu *fpu)
{
    uint16_t status = FPU_FSW(fpu) & (uint16_t) ~(FSW_ES | FSW_B);
    if (status & ~FPU_FCW(fpu) & FSW_EXCEPTIONS)
        status |= FSW_ES | FSW_B;
    FPU_FSW(fpu) = status;
}

bool x87_pending(struct vcpu *cpu, const struct insn *i)
{
    if (likely(!(FPU_FSW(&cpu->fpu) & ~FPU_FCW(&cpu->fpu) & FSW_EXCEPTIONS)))
        return false;
    if (cpu->cr0 & CR0_NE)
        cpu_raise(cpu, i, EXC_MF);
    /* FERR# makes the chipset raise IRQ 13 and ignore the error from then on (IGNNE#). The interrupt is latched, so
     * that port 0xf0, by which handlers release the line, has nothing to do. */
    irq_set(cpu->vm, 13, true);
    irq_set(cpu->vm, 13, false);
    return true;
}

bool x87_wait(struct vcpu *cpu, const struct insn *i)
{
    if (unlikely(cpu->cr0 & (CR0_EM | CR0_TS)))
        cpu_raise(cpu, i, EXC_NM);
    return x87_pending(cpu, i);
}

/* ---- the register stack ---- */
void x87_set_top(struct fpu *fpu, unsigned top)
{
    uint8_t old[128];
    unsigned by = (top - FPU_TOP(fpu)) & 7;
    memcpy(old, FPU_ST(fpu, 0), sizeof old);
    for (unsigned n = 0; by && n < 8; n++)
        memcpy(FPU_ST(fpu, n), old + 16 * ((n + by) & 7), 16);
    FPU_FSW(fpu) = (uint16_t)((FPU_FSW(fpu) & ~FSW_TOP) | top << 11);
}

void x87_init(struct fpu *fpu)
{
    x87_set_top(fpu, 0);
    FPU_FCW(fpu) = FCW_INITIAL;
    FPU_FSW(fpu) = 0;
    FPU_FTW(fpu) = 0;
    FPU_FOP(fpu) = 0;
    FPU_FIP(fpu) = FPU_FDP(fpu) = 0;
}

/* ---- execution ---- */
/* insn.dst = ModRM, insn.src = opcode: FOP. */
static void run(struct vcpu *cpu, const struct insn *i, void *memory, bool ignore)
{
    static _Thread_local _Alignas(64) uint8_t image[512];
    static const uint32_t mxcsr = MXCSR_INITIAL;
    const struct assist *a = i->data;
    struct fpu *fpu = &cpu->fpu;
    uint16_t control = FPU_FCW(fpu);
    if (ignore)
        FPU_FCW(fpu) |= FSW_EXCEPTIONS;
    /* Nothing is pending here, or the FCW masks it: this cannot trap on the host either. */
    FPU_FSW(fpu) &= (uint16_t) ~(FSW_ES | FSW_B);
    memcpy(image, fpu->legacy, 8);
    memcpy(image + 24, &mxcsr, sizeof mxcsr);
    memcpy(image + 32, FPU_ST(fpu, 0), 128);
    a->run(cpu, memory, image);
    memcpy(fpu->legacy, image, 6);
    memcpy(FPU_ST(fpu, 0), image + 32, 128);
    if (ignore) {
        FPU_FCW(fpu) = control;
        x87_summarize(fpu);
    }
    bool flat = vcpu_code64(cpu);
    FPU_FOP(fpu) = (uint16_t)((i->src & 7) << 8 | i->dst);
    FPU_FIP(fpu) = flat
                       ? insn_rip(cpu, i)
                       : (uint32_t)insn_rip(cpu, i) | (uint64_t)cpu->segment[SEG_CS].selector << 32;
}

static void set_data_pointer(struct vcpu *cpu, const struct insn *i, uint64_t address)
{
    uint64_t offset = address - cpu->base[i->segment];
    FPU_FDP(&cpu->fpu) = vcpu_code64(cpu)
                             ? offset
                             : (uint32_t)offset | (uint64_t)cpu->segment[i->segment].selector << 32;
}

OP(x87)
{
    bool ignore = x87_wait(cpu, i);
    run(cpu, i, NULL, ignore);
    NEXT;
}

OP(x87_load)
{
    bool ignore = x87_wait(cpu, i);
    const struct assist *a = i->data;
    uint64_t address = linear(cpu, i, a->size, false);
    uint8_t copy[16] = {0};
    load_bytes(cpu, i, address, copy, a->size);
    run(cpu, i, copy, ignore);
    set_data_pointer(cpu, i, address);
    NEXT_SLOW;
}

OP(x87_store)
{
    bool ignore = x87_wait(cpu, i);
    const struct assist *a = i->data;
    uint64_t address = linear(cpu, i, a->size, true);
    uint8_t copy[16] = {0};
    probe_write(cpu, i, address, a->size);
    run(cpu, i, copy, ignore);
    set_data_pointer(cpu, i, address);
    /* An exception that is not masked keeps the operand from being stored, but for an inexact result. */
    if (ignore || !(FPU_FSW(&cpu->fpu) & ~FPU_FCW(&cpu->fpu) & (FSW_EXCEPTIONS & ~FSW_PE)))
        store_bytes(cpu, i, address, copy, a->size);
    NEXT_SLOW;
}

static insn_fn *choose(struct decoded *d, struct insn *out, unsigned how)
{
    static insn_fn *const by_memory[] = {x87, x87_load, x87_store};
    const struct assist *a = assist_find(d, how);
    if (!a || a->class != ASSIST_CLASS_X87)
        return NULL;
    out->data = a;
    out->dst = d->bytes[d->zydis->raw.modrm.offset];
    out->src = d->zydis->opcode;
    return by_memory[a->memory];
}

insn_fn *select_x87(struct decoded *d, struct insn *out)
{
    return choose(d, out, 0);
}
insn_fn *select_x87_flags(struct decoded *d, struct insn *out)
{
    return choose(d, out, ASSIST_FLAGS);
}
