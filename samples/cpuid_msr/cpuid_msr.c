/* SPDX-License-Identifier: MIT */
/* CPUID and MSRs: what they answer, and in loops, so that the cost of each answer can be seen. */
#include "samples/kernel/kernel.h"

enum { LOOPS = 10000 };

enum { /* MSR numbers (SDM 4, chapter 2) */
       SYSENTER_CS = 0x174,
       SYSENTER_ESP = 0x175,
       SYSENTER_EIP = 0x176,
       PAT = 0x277,
       EFER = 0xc0000080,
       STAR = 0xc0000081,
       LSTAR = 0xc0000082,
       CSTAR = 0xc0000083,
       FMASK = 0xc0000084,
       FS_BASE = 0xc0000100,
       GS_BASE = 0xc0000101,
       KERNEL_GS_BASE = 0xc0000102,
};

static bool same(struct cpuid x, struct cpuid y)
{
    return x.a == y.a && x.b == y.b && x.c == y.c && x.d == y.d;
}

void cpuid_leaves(void)
{
    enum {
        FPU = 1 << 0,
        TSC = 1 << 4,
        MSR = 1 << 5,
        PAE = 1 << 6,
        CX8 = 1 << 8,
        APIC = 1 << 9,
        SSE2 = 1 << 26
    };
    enum { NEEDED = FPU | TSC | MSR | PAE | CX8 | APIC | SSE2, LONG_MODE = 1 << 29, NX = 1 << 20 };
    struct cpuid r = cpuid(0, 0);
    bool letters = true;
    uint32_t name[3] = {r.b, r.d, r.c};
    for (unsigned i = 0; i < 12; i++) {
        char c = ((const char *)name)[i];
        letters = letters && c > ' ' && c <= '~';
    }
    check(r.a >= 1 && letters, "leaf 0 has a highest leaf and a vendor's name");
    check((cpuid(1, 0).d & NEEDED) == NEEDED, "leaf 1 names what every 64-bit processor has");
    check(cpuid(1, 0).b >> 24 == 0, "leaf 1 gives the boot processor's APIC id");
    check(cpuid(0x80000000, 0).a >= 0x80000008, "there are extended leaves");
    check((cpuid(0x80000001, 0).d & (LONG_MODE | NX)) == (LONG_MODE | NX),
          "long mode and no-execute are named");
    uint32_t physical = cpuid(0x80000008, 0).a & 0xff;
    check(physical >= 36 && physical <= 52, "leaf 0x80000008 gives a width of physical addresses");
    check((cpuid(0x80000008, 0).a >> 8 & 0xff) >= 48, "and one of linear addresses");
}

void cpuid_registers(void)
{
    uint64_t a = 0xffffffff00000000, b = ~0ull, c = 0xffffffff00000000, d = ~0ull;
    __asm__ volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d));
    check(!((a | b | c | d) >> 32), "CPUID clears the upper halves of its four registers");
    uint64_t before, after;
    __asm__ volatile("pushf\n\tpopq %0\n\txor %%eax, %%eax\n\tcpuid\n\tpushf\n\tpopq %1"
                     : "=&r"(before), "=&r"(after)
                     :
                     : "rax", "rbx", "rcx", "rdx");
    /* XOR sets ZF and PF and clears the rest: CPUID leaves it so */
    check((after & 0x8d5) == 0x44, "CPUID leaves the flags alone");
}

void cpuid_loop(void)
{
    static const uint32_t leaves[] = {0, 1, 0x80000000, 0x80000001, 0x80000002, 0x80000008};
    struct cpuid first[6];
    bool stable = true;
    for (unsigned i = 0; i < 6; i++)
        first[i] = cpuid(leaves[i], 0);
    for (unsigned n = 0; n < LOOPS; n++)
        stable = stable && same(first[n % 6], cpuid(leaves[n % 6], 0));
    check(stable, "10000 CPUIDs answer the same as the first");
}

bool keeps(uint32_t msr, uint64_t value)
{
    uint64_t before = read_msr(msr);
    write_msr(msr, value);
    uint64_t got = read_msr(msr);
    write_msr(msr, before);
    return got == value && read_msr(msr) == before;
}

void msr_values(void)
{
    check(keeps(KERNEL_GS_BASE, 0xffff800012345678), "IA32_KERNEL_GS_BASE keeps what is written");
    check(keeps(LSTAR, 0xffffffff81000000) && keeps(CSTAR, 0x1234), "LSTAR and CSTAR do");
    check(keeps(STAR, 0x0023001000000000) && keeps(FMASK, 0x47700), "STAR and FMASK do");
    check(keeps(SYSENTER_CS, 0x10) && keeps(SYSENTER_ESP, 0x7000) &&
              keeps(SYSENTER_EIP, 0xffffffff80001000),
          "the SYSENTER MSRs do");
    check(keeps(PAT, 0x0007040600070406), "IA32_PAT does");
    check((read_msr(EFER) & 0xd01) == 0xd01, "EFER has SCE, LME, LMA and NXE set");
}

void msr_bases(void)
{
    static uint64_t at_fs = 0x1111, at_gs = 0x2222;
    uint64_t fs, gs;
    write_msr(FS_BASE, (uint64_t)&at_fs);
    write_msr(GS_BASE, (uint64_t)&at_gs - 8);
    __asm__ volatile("mov %%fs:0, %0\n\tmov %%gs:8, %1" : "=&r"(fs), "=&r"(gs));
    check(fs == 0x1111 && gs == 0x2222, "FS and GS address through their base MSRs");
    write_msr(KERNEL_GS_BASE, 0x5000);
    __asm__ volatile("swapgs");
    check(read_msr(GS_BASE) == 0x5000 && read_msr(KERNEL_GS_BASE) == (uint64_t)&at_gs - 8,
          "SWAPGS exchanges the two GS bases");
}

void msr_loop(void)
{
    uint64_t sum = 0;
    for (uint64_t n = 0; n < LOOPS; n++) {
        write_msr(KERNEL_GS_BASE, n * 16);
        sum += read_msr(KERNEL_GS_BASE) / 16;
    }
    check(sum == (uint64_t)LOOPS * (LOOPS - 1) / 2, "10000 WRMSRs are each read back by RDMSR");
}

void time_stamps(void)
{
    uint64_t before = read_tsc();
    bool forward = true;
    for (unsigned n = 0; n < LOOPS; n++) {
        uint64_t now = read_tsc();
        forward = forward && now >= before;
        before = now;
    }
    check(forward, "the time-stamp counter never goes back");
}

void main(void)
{
    cpuid_leaves();
    cpuid_registers();
    cpuid_loop();
    msr_values();
    msr_bases();
    msr_loop();
    time_stamps();
    finish("cpuid_msr");
}
