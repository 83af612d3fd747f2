/* SPDX-License-Identifier: MIT */
/* System instructions: MSRs, CPUID, time-stamp counter, TLB and cache control, HLT, no-operations, undefined opcodes. */
#include <sys/random.h>

#include "runtime/cpuid.h"
#include "runtime/hypercall.h"
#include "runtime/soft/engine.h"
#include "runtime/soft/system.h"
#include "runtime/stub.h"

#define PUT32(reg, value) SET32(offsetof(struct vcpu, r[reg]), value)

static void put_edx_eax(struct vcpu *cpu, uint64_t value)
{
    PUT32(RAX, value);
    PUT32(RDX, value >> 32);
}

/* ---- what the processor is ---- */
OP(cpuid)
{
    count_exit(cpu, i, EXIT_KIND_CPUID);
    struct cpuid_answer answer = cpuid_answer(cpu, (uint32_t)cpu->r[RAX], (uint32_t)cpu->r[RCX]);
    PUT32(RAX, answer.eax);
    PUT32(RBX, answer.ebx);
    PUT32(RCX, answer.ecx);
    PUT32(RDX, answer.edx);
    NEXT_SLOW;
}

OP(rdmsr)
{
    uint64_t value = 0;
    REQUIRE_CPL0();
    cpu->current = i;
    count_exit(cpu, i, EXIT_KIND_MSR);
    if (!msr_read(cpu, (uint32_t)cpu->r[RCX], &value))
        RAISE_GP();
    put_edx_eax(cpu, value);
    NEXT_SLOW;
}

OP(wrmsr)
{
    REQUIRE_CPL0();
    cpu->current = i;
    count_exit(cpu, i, EXIT_KIND_MSR);
    uint64_t next = insn_next_rip(cpu, i);
    uint64_t value = (uint32_t)cpu->r[RAX] | cpu->r[RDX] << 32;
    if (!msr_write(cpu, (uint32_t)cpu->r[RCX], value))
        RAISE_GP();
    return insn_leave(cpu, i, next);
}

/* ---- time-stamp counter ---- */
static uint64_t read_tsc(struct vcpu *cpu, const struct insn *i)
{
    if (unlikely(cpu->cpl != 0 && cpu->cr4 & CR4_TSD))
        RAISE_GP();
    cpu->current = i;
    return clock_ticks(&cpu->vm->clock, clock_now(&cpu->vm->clock)) + cpu->tsc_offset;
}

OP(rdtsc)
{
    put_edx_eax(cpu, read_tsc(cpu, i));
    NEXT;
}

OP(rdtscp)
{
    put_edx_eax(cpu, read_tsc(cpu, i));
    PUT32(RCX, cpu->tsc_aux);
    NEXT;
}

OP(rdpid)
{
    REG64(i->dst) = (uint32_t)cpu->tsc_aux;
    NEXT;
}

/* The four counters of this family (APM 2 13.2.1), which stand still. */
OP(rdpmc)
{
    if (cpu->cpl != 0 && !(cpu->cr4 & CR4_PCE))
        RAISE_GP();
    count_exit(cpu, i, EXIT_KIND_OTHER_LISTED);
    if ((uint32_t)cpu->r[RCX] >= 4)
        RAISE_GP();
    put_edx_eax(cpu, 0);
    NEXT;
}

/* ---- caches and the TLB ---- */
OP(wbinvd)
{
    REQUIRE_CPL0();
    count_exit(cpu, i, EXIT_KIND_OTHER_LISTED);
    NEXT;
}

/* As a load of a byte (SDM 2A CLFLUSH), but a device does not notice. */
OP(clflush)
{
    bool device;
    uint64_t address = linear(cpu, i, 1, false);
    if (!host_read(cpu, address, 1))
        tlb_fill(cpu, i, address, ACCESS_READ, cpu->mode, &device);
    NEXT_SLOW;
}

/* No exit: with nested paging hypervisors let the guest do it. The block ends, for the code may be behind that page. */
OP(invlpg)
{
    REQUIRE_CPL0();
    uint64_t address = ea(cpu, i) + cpu->base[i->segment];
    if (i->flags & INSN_LEGACY)
        address = (uint32_t)address;
    if (canonical(address))
        tlb_flush_page(cpu, address);
    return insn_leave(cpu, i, insn_next_rip(cpu, i));
}

/* SDM 2A INVPCID. PCIDs are not told apart, so that more is flushed than asked for, which is allowed. */
OP(invpcid)
{
    enum { ONE_ADDRESS, ONE_CONTEXT, ALL_WITH_GLOBAL, ALL };
    uint64_t descriptor[2], next = insn_next_rip(cpu, i);
    REQUIRE_CPL0();
    uint64_t type = i->flags & INSN_LEGACY ? REG32(i->dst) : REG64(i->dst);
    load_bytes(cpu, i, linear(cpu, i, 16, false), descriptor, 16);
    uint64_t pcid = descriptor[0] & 0xfff;
    if (type > ALL || descriptor[0] >> 12)
        RAISE_GP();
    if (type <= ONE_CONTEXT && pcid != 0 && !(cpu->cr4 & CR4_PCIDE))
        RAISE_GP();
    if (type == ONE_ADDRESS && !canonical(descriptor[1]))
        RAISE_GP();
    if (type == ONE_ADDRESS)
        tlb_flush_page(cpu, descriptor[1]);
    else
        tlb_flush(cpu);
    return insn_leave(cpu, i, next);
}

/* ---- waiting ---- */
OP(hlt)
{
    REQUIRE_CPL0();
    count_exit(cpu, i, EXIT_KIND_HLT);
    cpu->activity = ACTIVITY_HLT;
    return insn_leave(cpu, i, insn_next_rip(cpu, i));
}

/* With one vCPU a no-operation; else whom this one waits for should run. */
OP(pause_yield)
{
    const struct insn *next = insn_leave(cpu, i, insn_next_rip(cpu, i));
    soft_yield(cpu);
    return next;
}

/* ---- SMAP's flag ---- */
OP(stac)
{
    if (unlikely(cpu->cpl != 0))
        RAISE_UD();
    cpu->rflags |= RFLAGS_AC;
    vcpu_mode_changed(cpu);
    NEXT;
}

OP(clac)
{
    if (unlikely(cpu->cpl != 0))
        RAISE_UD();
    cpu->rflags &= ~RFLAGS_AC;
    vcpu_mode_changed(cpu);
    NEXT;
}

/* ---- random numbers ---- */
/* Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014: SplitMix64. */
static uint64_t next_random(struct vcpu *cpu)
{
    uint64_t z = cpu->random += 0x9e3779b97f4a7c15ull + cpu->index;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* RDRAND and RDSEED: CF says that a number was there; without one the destination is 0. */
OP(random_number)
{
    uint64_t value = 0;
    bool there = true;
    if (cpu->vm->config.deterministic)
        value = next_random(cpu);
    else
        there = getrandom(&value, sizeof value, GRND_NONBLOCK) == (ssize_t)sizeof value;
    if (!there)
        value = 0;
    if (i->aux == 2)
        REG16(i->dst) = (uint16_t)value;
    else if (i->aux == 4)
        SET32(i->dst, value);
    else
        REG64(i->dst) = value;
    cpu->status = RFLAGS_ONE << 8 | (there ? STATUS_CF : 0);
    NEXT_SLOW;
}

/* ---- hypercalls ---- */
/* VMMCALL is the one of this vendor. The block ends: an interrupt may have been sent to this very processor. */
OP(vmmcall)
{
    uint64_t next = insn_next_rip(cpu, i);
    count_exit(cpu, i, EXIT_KIND_OTHER_LISTED);
    if (cpu->cpl != 0)
        RAISE_UD();
    cpu->current = i;
    int64_t result = hypercall(cpu);
    if (vcpu_code64(cpu))
        cpu->r[RAX] = (uint64_t)result;
    else
        PUT32(RAX, result);
    return insn_leave(cpu, i, next);
}

OP(vmcall)
{
    count_exit(cpu, i, EXIT_KIND_OTHER_LISTED);
    RAISE_UD();
}

/* ---- undefined on purpose, and nothing at all ---- */
OP(ud)
{
    RAISE_UD();
}

OP(ud1)
{
    uint64_t next = insn_next_rip(cpu, i);
    cpu->current = i;
    if (!cpu->vm->stub || !stub_ud1(cpu, i, &next))
        RAISE_UD();
    return insn_leave(cpu, i, next);
}

OP(nop)
{
    NEXT;
}

/* ---- rows ---- */
SELECT(cpuid, cpuid)
SELECT(rdmsr, rdmsr)
static insn_fn *select_wrmsr(struct decoded *d, struct insn *out)
{
    d->ends_block = true;
    out->aux = 1; /* an exit tells it from RDMSR by that */
    return wrmsr;
}
SELECT(rdtsc, rdtsc)
SELECT(rdtscp, rdtscp)
SELECT(rdpid, rdpid)
SELECT(rdpmc, rdpmc)
SELECT(wbinvd, wbinvd)
SELECT(clflush, clflush)
SELECT_LAST(invlpg, invlpg)
SELECT_LAST(invpcid, invpcid)
SELECT_LAST(hlt, hlt)
SELECT(stac, stac)
SELECT(clac, clac)
SELECT_LAST(vmmcall, vmmcall)
SELECT_LAST(vmcall, vmcall)
SELECT_LAST(ud, ud)
SELECT(nop, nop)

static insn_fn *select_pause(struct decoded *d, struct insn *out)
{
    (void)out;
    if (d->cpu->vm->vcpu_count == 1)
        return nop;
    d->ends_block = true;
    return pause_yield;
}

static insn_fn *select_random(struct decoded *d, struct insn *out)
{
    out->aux = (uint8_t)(d->operands[0].size / 8);
    return random_number;
}

/* The encodings of hvstub.h, PV_BREAK_*: the index goes to insn.imm. */
static insn_fn *select_ud1(struct decoded *d, struct insn *out)
{
    d->ends_block = true;
    out->aux = STUB_UD1_PLAIN;
    if (d->code_bits == 16 || d->bytes[0] != 0x0f)
        return ud1;
    if (d->zydis->length == 4 && (d->bytes[2] & 0xc7) == 0x40) {
        out->aux = STUB_UD1_BREAK;
        out->imm = (uint64_t)(d->bytes[2] >> 3 & 7) << 8 | d->bytes[3];
    } else if (d->zydis->length == 7 && (d->bytes[2] == 0x80 || d->bytes[2] == 0x81)) {
        uint32_t index;
        memcpy(&index, d->bytes + 3, 4);
        out->aux = d->bytes[2] == 0x80 ? STUB_UD1_BREAK : STUB_UD1_BARE;
        out->imm = index;
    }
    return ud1;
}

insn_fn *select_mov_system(struct decoded *d, struct insn *out)
{
    for (unsigned k = 0; k < 2; k++)
        if (d->operands[k].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(d->operands[k].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return select_mov_segment(d, out);
    return select_mov_control(d, out);
}

const struct op_row ops_system[] = {
    {ZYDIS_MNEMONIC_CPUID, select_cpuid},
    {ZYDIS_MNEMONIC_RDMSR, select_rdmsr},
    {ZYDIS_MNEMONIC_WRMSR, select_wrmsr},
    {ZYDIS_MNEMONIC_RDTSC, select_rdtsc},
    {ZYDIS_MNEMONIC_RDTSCP, select_rdtscp},
    {ZYDIS_MNEMONIC_RDPID, select_rdpid},
    {ZYDIS_MNEMONIC_RDPMC, select_rdpmc},
    {ZYDIS_MNEMONIC_CLTS, select_clts},
    {ZYDIS_MNEMONIC_LMSW, select_lmsw},
    {ZYDIS_MNEMONIC_SMSW, select_smsw},
    {ZYDIS_MNEMONIC_WBINVD, select_wbinvd},
    {ZYDIS_MNEMONIC_INVD, select_wbinvd},
    {ZYDIS_MNEMONIC_INVLPG, select_invlpg},
    {ZYDIS_MNEMONIC_INVPCID, select_invpcid},
    {ZYDIS_MNEMONIC_CLFLUSH, select_clflush},
    {ZYDIS_MNEMONIC_CLFLUSHOPT, select_clflush},
    {ZYDIS_MNEMONIC_CLWB, select_clflush},
    {ZYDIS_MNEMONIC_HLT, select_hlt},
    {ZYDIS_MNEMONIC_PAUSE, select_pause},
    {ZYDIS_MNEMONIC_STAC, select_stac},
    {ZYDIS_MNEMONIC_CLAC, select_clac},
    {ZYDIS_MNEMONIC_RDRAND, select_random},
    {ZYDIS_MNEMONIC_RDSEED, select_random},
    {ZYDIS_MNEMONIC_VMMCALL, select_vmmcall},
    {ZYDIS_MNEMONIC_VMCALL, select_vmcall},
    {ZYDIS_MNEMONIC_UD0, select_ud},
    {ZYDIS_MNEMONIC_UD1, select_ud1},
    {ZYDIS_MNEMONIC_UD2, select_ud},
    {ZYDIS_MNEMONIC_NOP, select_nop},
    {ZYDIS_MNEMONIC_LFENCE, select_nop},
    {ZYDIS_MNEMONIC_MFENCE, select_nop},
    {ZYDIS_MNEMONIC_SFENCE, select_nop},
    {ZYDIS_MNEMONIC_PREFETCH, select_nop},
    {ZYDIS_MNEMONIC_PREFETCHW, select_nop},
    {ZYDIS_MNEMONIC_PREFETCHNTA, select_nop},
    {ZYDIS_MNEMONIC_PREFETCHT0, select_nop},
    {ZYDIS_MNEMONIC_PREFETCHT1, select_nop},
    {ZYDIS_MNEMONIC_PREFETCHT2, select_nop},
    /* no-operations of processors without the feature: prefetch hints, CET, MPX, CLDEMOTE */
    {ZYDIS_MNEMONIC_PREFETCHWT1, select_nop},
    {ZYDIS_MNEMONIC_ENDBR32, select_nop},
    {ZYDIS_MNEMONIC_ENDBR64, select_nop},
    {ZYDIS_MNEMONIC_RDSSPD, select_nop},
    {ZYDIS_MNEMONIC_RDSSPQ, select_nop},
    {ZYDIS_MNEMONIC_CLDEMOTE, select_nop},
    {ZYDIS_MNEMONIC_BNDCL, select_nop},
    {ZYDIS_MNEMONIC_BNDCU, select_nop},
    {ZYDIS_MNEMONIC_BNDCN, select_nop},
    {ZYDIS_MNEMONIC_BNDMK, select_nop},
    {ZYDIS_MNEMONIC_BNDMOV, select_nop},
    {ZYDIS_MNEMONIC_BNDLDX, select_nop},
    {ZYDIS_MNEMONIC_BNDSTX, select_nop},
    {0, NULL},
};
