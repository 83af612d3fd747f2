/* SPDX-License-Identifier: MIT */
/* Model-specific registers, one row each: those that kernels touch on this processor, with what the manuals have
 * checked on writing (SDM 4, APM 2 A). A register without a row is #GP. */
#include <stddef.h>
#include <stdlib.h>

#include "hvstub/hvstub.h"
#include "runtime/cpuid.h"
#include "runtime/interrupts.h"
#include "runtime/kvmclock.h"
#include "runtime/soft/tlb.h"
#include "runtime/stub_devices.h"
#include "runtime/vm.h"

#define MSR_TSC_DEADLINE PV_MSR_TSC_DEADLINE

/* What a row does. A row without `write` is read-only unless `writable` has bits; one without `read`
 * gives the field, or `value` if it has no field. */
struct msr_row {
    uint32_t first, last;
    uint16_t field;  /* offset in struct vcpu of the first one's value; 0 = none */
    bool constant;   /* reading gives `value`, always */
    bool ignored;    /* writing does nothing, and is no fault */
    bool canonical;  /* an address */
    uint8_t feature; /* enum cpu_feature that must be offered; 0 = none */
    uint64_t value;
    uint64_t writable; /* bits that may be set; others are #GP */
    bool (*read)(struct vcpu *cpu, uint32_t msr, uint64_t *value);
    bool (*write)(struct vcpu *cpu, uint32_t msr, uint64_t value);
};

static bool canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << (64 - LINEAR_BITS)) >> (64 - LINEAR_BITS)) == address;
}

/* ---- time-stamp counter ---- */
static bool read_tsc(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
    (void)msr;
    *value = clock_ticks(&cpu->vm->clock, clock_now(&cpu->vm->clock)) + cpu->tsc_offset;
    return true;
}

/* What a patched guest has left in its state page comes first, and what it finds there follows. */
static void take_posted(const struct vcpu *cpu)
{
    if (cpu->vm->stub)
        stub_devices_take(cpu->vm);
}

static void show_change(const struct vcpu *cpu)
{
    if (cpu->vm->stub)
        stub_devices_changed(cpu->vm);
}

/* The counter and IA32_TSC_ADJUST are both 0 at reset and each write to one moves the other by as much
 * (SDM 3B 18.17.3): the offset is the adjustment. A deadline that waits is one of the new counter. */
static bool set_tsc_offset(struct vcpu *cpu, uint64_t offset)
{
    uint64_t deadline = 0;
    take_posted(cpu);
    bool armed = lapic_read_msr(cpu, MSR_TSC_DEADLINE, &deadline) == 0 && deadline != 0;
    cpu->tsc_offset = offset;
    if (armed)
        lapic_write_msr(cpu, MSR_TSC_DEADLINE, deadline);
    kvmclock_tsc_changed(cpu);
    show_change(cpu);
    return true;
}

static bool write_tsc(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    (void)msr;
    return set_tsc_offset(cpu, value - clock_ticks(&cpu->vm->clock, clock_now(&cpu->vm->clock)));
}

static bool write_tsc_adjust(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    (void)msr;
    return set_tsc_offset(cpu, value);
}

/* Bits 63-32 are ignored (APM 2 3.2.9, and what processors do). */
static bool write_tsc_aux(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    (void)msr;
    cpu->tsc_aux = (uint32_t)value;
    return true;
}

/* ---- long mode, system calls, segment bases ---- */
static bool write_efer(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    (void)msr;
    uint64_t changed = value ^ cpu->efer;
    if (changed & EFER_LME && cpu->cr0 & CR0_PG)
        return false;
    cpu->efer = (value & ~(uint64_t)EFER_LMA) | (cpu->efer & EFER_LMA);
    if (changed & EFER_NXE)
        tlb_flush(cpu);
    vcpu_mode_changed(cpu);
    return true;
}

static bool read_segment_base(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
    *value = cpu->segment[msr == 0xc0000100 ? SEG_FS : SEG_GS].base;
    return true;
}

static bool write_segment_base(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    int segment = msr == 0xc0000100 ? SEG_FS : SEG_GS;
    if (!canonical(value))
        return false;
    cpu->segment[segment].base = cpu->base[segment] = value;
    return true;
}

/* ---- memory types: kept, without effect ---- */
static bool is_memory_type(uint64_t type)
{
    return type == 0 || type == 1 || (type >= 4 && type <= 6);
}

static bool write_pat(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    (void)msr;
    for (unsigned n = 0; n < 8; n++)
        if (!is_memory_type(value >> 8 * n & 0xff) && (value >> 8 * n & 0xff) != 7)
            return false;
    cpu->pat = value;
    return true;
}

static bool write_mtrr_def_type(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    (void)msr;
    if (!is_memory_type(value & 0xff))
        return false;
    cpu->mtrr_def_type = value;
    return true;
}

#define MTRR_VARIABLE 8u /* pairs */
static bool write_mtrr_variable(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    bool mask = msr & 1;
    uint64_t address = ((1ull << PHYSICAL_BITS) - 1) & ~PAGE_OFFSET;
    if (value & ~(address | (mask ? 0x800 : 0xff)) || (!mask && !is_memory_type(value & 0xff)))
        return false;
    cpu->mtrr[msr - 0x200] = value;
    return true;
}

static unsigned mtrr_fixed_index(uint32_t msr)
{
    return 2 * MTRR_VARIABLE + (msr == 0x250 ? 0 : msr < 0x268 ? msr - 0x257 : msr - 0x265);
}

static bool read_mtrr_fixed(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
    *value = cpu->mtrr[mtrr_fixed_index(msr)];
    return true;
}

static bool write_mtrr_fixed(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    for (unsigned n = 0; n < 8; n++)
        if (!is_memory_type(value >> 8 * n & 0xff))
            return false;
    cpu->mtrr[mtrr_fixed_index(msr)] = value;
    return true;
}

/* Bits of IA32_MISC_ENABLE that say what the processor is: 7, 11, 12 (SDM 4 2.1). */
static bool write_misc_enable(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    (void)msr;
    const uint64_t told = 0x1880;
    cpu->misc_enable = (value & ~told) | (cpu->misc_enable & told);
    return true;
}

/* ---- those that the local APIC keeps ---- */
static bool read_apic(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
    take_posted(cpu);
    return lapic_read_msr(cpu, msr, value) == 0;
}

static bool write_apic(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    take_posted(cpu);
    bool done = lapic_write_msr(cpu, msr, value) == 0;
    show_change(cpu);
    return done;
}

/* ---- the table, sorted ---- */
#define FIELD(name) .field = offsetof(struct vcpu, name)
#define KEPT(n)     .field = offsetof(struct vcpu, msr_kept) + 8 * (n)
#define ALL         .writable = ~0ull
#define ADDRESS     .canonical = true, .writable = ~0ull
#define LOW32       .writable = 0xffffffff

static const struct msr_row rows[] = {
    {0x10, 0x10, .read = read_tsc, .write = write_tsc, ALL},
    {MSR_KVM_OLD_WALL_CLOCK, MSR_KVM_OLD_WALL_CLOCK, FIELD(kvm_wall_clock),
     .write = kvmclock_write_msr, ALL},
    {MSR_KVM_OLD_SYSTEM_TIME, MSR_KVM_OLD_SYSTEM_TIME, FIELD(kvm_system_time),
     .write = kvmclock_write_msr, ALL},
    {0x1b, 0x1b, .read = read_apic, .write = write_apic, ALL},
    {0x3b, 0x3b, FIELD(tsc_offset), .feature = FEATURE_TSC_ADJUST, .write = write_tsc_adjust, ALL},
    {0x8b, 0x8b, .constant = true, .ignored = true},                /* microcode: none */
    {0xfe, 0xfe, .constant = true, .value = 0x500 | MTRR_VARIABLE}, /* MTRRcap: fixed, WC */
    {0x174, 0x174, FIELD(sysenter_cs), LOW32},
    {0x175, 0x175, FIELD(sysenter_esp), ADDRESS},
    {0x176, 0x176, FIELD(sysenter_eip), ADDRESS},
    {0x179, 0x179, .constant = true},       /* MCG_CAP: no banks, no MCG_CTL */
    {0x17a, 0x17a, KEPT(0), .writable = 7}, /* MCG_STATUS */
    {0x1a0, 0x1a0, FIELD(misc_enable), .write = write_misc_enable, ALL},
    {0x1d9, 0x1d9, FIELD(debugctl), .writable = 0x3f},
    {0x1db, 0x1de, .constant = true}, /* last branch and exception: never recorded */
    {0x200, 0x20f, FIELD(mtrr), .write = write_mtrr_variable, ALL},
    {0x250, 0x250, .read = read_mtrr_fixed, .write = write_mtrr_fixed, ALL},
    {0x258, 0x259, .read = read_mtrr_fixed, .write = write_mtrr_fixed, ALL},
    {0x268, 0x26f, .read = read_mtrr_fixed, .write = write_mtrr_fixed, ALL},
    {0x277, 0x277, FIELD(pat), .write = write_pat, ALL},
    {0x2ff, 0x2ff, FIELD(mtrr_def_type), .write = write_mtrr_def_type, .writable = 0xcff},
    {MSR_TSC_DEADLINE, MSR_TSC_DEADLINE, .read = read_apic, .write = write_apic, ALL},
    {0x800, 0x8ff, .read = read_apic, .write = write_apic, ALL}, /* x2APIC */
    {0xda0, 0xda0, FIELD(xss), .feature = FEATURE_XSAVES, .writable = CPU_XSS_MASK},
    {MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK, FIELD(kvm_wall_clock), .write = kvmclock_write_msr,
     ALL},
    {MSR_KVM_SYSTEM_TIME, MSR_KVM_SYSTEM_TIME, FIELD(kvm_system_time), .write = kvmclock_write_msr,
     ALL},
    {0xc0000080, 0xc0000080, FIELD(efer), .write = write_efer,
     .writable = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE},
    {0xc0000081, 0xc0000081, FIELD(star), ALL},
    {0xc0000082, 0xc0000082, FIELD(lstar), ADDRESS},
    {0xc0000083, 0xc0000083, FIELD(cstar), ADDRESS},
    {0xc0000084, 0xc0000084, FIELD(fmask), LOW32},
    {0xc0000100, 0xc0000101, .read = read_segment_base, .write = write_segment_base, ALL},
    {0xc0000102, 0xc0000102, FIELD(kernel_gs_base), ADDRESS},
    {0xc0000103, 0xc0000103, FIELD(tsc_aux), .feature = FEATURE_RDTSCP, .write = write_tsc_aux,
     ALL},
    {0xc0010000, 0xc0010007, .constant = true,
     .ignored = true},                                       /* performance counters: stand still */
    {0xc0010010, 0xc0010010, KEPT(1), .writable = 0x7fffff}, /* SYSCFG */
    {0xc0010015, 0xc0010015, KEPT(2), .writable = 0x7fffffff},   /* HWCR */
    {0xc0010016, 0xc0010019, .constant = true, .ignored = true}, /* IORR: none */
    {0xc001001a, 0xc001001a, KEPT(3), ALL},                      /* TOP_MEM */
    {0xc001001d, 0xc001001d, KEPT(4), ALL},                      /* TOP_MEM2 */
    {0xc001001f, 0xc001001f, KEPT(5), ALL},                      /* NB_CFG */
    {0xc0010020, 0xc0010020, .constant = true, .ignored = true}, /* microcode loader */
    {0xc0010055, 0xc0010055, KEPT(6), LOW32}, /* interrupt pending message: no C1E */
    {0xc0011020, 0xc0011023, KEPT(7), ALL},   /* LS_CFG, IC_CFG, DC_CFG, BU_CFG */
    {0xc0011029, 0xc0011029, KEPT(11), ALL},  /* DE_CFG */
};

/* The row and, in *field, where its value is; NULL: no such register. */
static const struct msr_row *find(struct vcpu *cpu, uint32_t msr, uint64_t **field)
{
    size_t low = 0, high = sizeof rows / sizeof rows[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct msr_row *row = &rows[middle];
        if (msr < row->first) {
            high = middle;
        } else if (msr > row->last) {
            low = middle + 1;
        } else {
            if (row->feature && !cpuid_offers(row->feature))
                return NULL;
            *field = cpu && row->field ? (uint64_t *)((char *)cpu + row->field) + (msr - row->first)
                                       : NULL;
            return row;
        }
    }
    return NULL;
}

bool msr_read(struct vcpu *cpu, uint32_t msr, uint64_t *value)
{
    uint64_t *field;
    const struct msr_row *row = find(cpu, msr, &field);
    if (!row)
        return false;
    if (row->read)
        return row->read(cpu, msr, value);
    *value = field ? *field : row->value;
    return true;
}

bool msr_write(struct vcpu *cpu, uint32_t msr, uint64_t value)
{
    uint64_t *field;
    const struct msr_row *row = find(cpu, msr, &field);
    if (!row)
        return false;
    if (row->ignored)
        return true;
    if (row->constant || value & ~row->writable || (row->canonical && !canonical(value)))
        return false;
    if (row->write)
        return row->write(cpu, msr, value);
    *field = value;
    return true;
}

bool msr_constant(uint32_t msr, uint64_t *value)
{
    uint64_t *field;
    const struct msr_row *row = find(NULL, msr, &field);
    if (!row || !row->constant)
        return false;
    *value = row->value;
    return true;
}
