/* SPDX-License-Identifier: MIT */
/* What a patched guest answers by itself: the CPUID and MSR tables, filled before it starts. */
#include "hvstub/cpuid_table.h"
#include "runtime/cpuid.h"
#include "runtime/stub.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

static struct pv_cpuid_answer answer(const struct vm *vm, uint32_t leaf, uint32_t subleaf)
{
    struct cpuid_answer a = cpuid_answer(vm->vcpus[0], leaf, subleaf);
    return (struct pv_cpuid_answer){a.eax, a.ebx, a.ecx, a.edx};
}

/* Beside what never varies: what varies between vCPUs, where there is one; and what follows CR4 or XCR0 bits
 * that this guest is not offered. Some software implementations of KVM show XSAVE whatever CPUID they are given, but
 * cannot execute it: there the answer from the table is the right one, and the only one. (Leaf 1 also follows the
 * enable bit of IA32_APIC_BASE: of that it tells what it was at the start.) */
static bool constant(const struct vm *vm, uint32_t leaf, uint32_t subleaf)
{
    if (cpuid_constant(leaf, subleaf))
        return true;
    switch (leaf) {
    case 1:
        return vm->vcpu_count == 1 && !cpuid_offers(FEATURE_XSAVE);
    case 7:
        return !cpuid_offers(FEATURE_PKU);
    case 0xb:
        return vm->vcpu_count == 1;
    case 0xd:
        return !cpuid_offers(FEATURE_XSAVE);
    default:
        return false;
    }
}

static void put(const struct vm *vm, struct pv_cpuid_table *table, uint32_t leaf)
{
    struct pv_cpuid_answer plain = answer(vm, leaf, 0);
    if (constant(vm, leaf, 0))
        pv_cpuid_put(table, leaf, &plain);
}

/* A leaf whose answer depends on ECX. Kernels ask for subleaves that they know to be there. */
static void put_subleaves(const struct vm *vm, struct pv_cpuid_table *table, uint32_t leaf)
{
    enum { SUBLEAVES_MAX = 16 };
    struct pv_cpuid_answer answers[SUBLEAVES_MAX];
    bool constants[SUBLEAVES_MAX];
    uint32_t count = leaf == 0xd ? SUBLEAVES_MAX : SUBLEAVES_MAX / 2;
    for (uint32_t k = 0; k < count; k++) {
        answers[k] = answer(vm, leaf, k);
        constants[k] = constant(vm, leaf, k);
    }
    pv_cpuid_put_subleaves(table, leaf, answers, constants, count);
}

/* Leaves compete for places, so those that are there go first, then those that any kernel asks for;
 * subleaves are put where there is room. Then what Linux looks for hypervisors at, and the rest. */
void stub_fill_cpuid(const struct vm *vm, struct pv_cpuid_table *table)
{
    enum { BASIC = 0x20, RANGE = 0x30 };
    static const uint32_t ranges[] = {0, 0x40000000, 0x80000000};
    bool subleaves;
    pv_cpuid_clear(table);
    for (unsigned n = 0; n < 3; n++)
        for (uint32_t leaf = ranges[n]; leaf < ranges[n] + RANGE; leaf++)
            if (cpuid_has_leaf(leaf, &subleaves) && !subleaves)
                put(vm, table, leaf);
    for (uint32_t leaf = 0; leaf < BASIC; leaf++)
        if (!cpuid_has_leaf(leaf, &subleaves))
            put(vm, table, leaf);
    for (uint32_t leaf = 0; leaf < BASIC; leaf++)
        if (cpuid_has_leaf(leaf, &subleaves) && subleaves)
            put_subleaves(vm, table, leaf);
    for (uint32_t leaf = 0x40000100; leaf < 0x40010000; leaf += 0x100)
        put(vm, table, leaf);
    for (unsigned n = 0; n < 3; n++)
        for (uint32_t leaf = ranges[n]; leaf < ranges[n] + RANGE; leaf++)
            if (!cpuid_has_leaf(leaf, &subleaves))
                put(vm, table, leaf);
}

void stub_fill_msrs(struct pv_msr_table *table)
{
    static const uint32_t ranges[][2] = {
        {0, 0x1000}, {0xc0000000, 0xc0000200}, {0xc0010000, 0xc0012000}};
    uint64_t value;
    pv_msr_clear(table);
    for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++)
        for (uint32_t msr = ranges[k][0]; msr < ranges[k][1]; msr++)
            if (msr_constant(msr, &value))
                pv_msr_put(table, msr, value);
}
