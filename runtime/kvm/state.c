/* SPDX-License-Identifier: MIT */
/* A vCPU's state, moved between struct vcpu and the kernel. What is moved stands in tables; what KVM keeps for itself
 * (host-side caches, dirty bits) has no architectural meaning. (Linux Documentation/virt/kvm/api.rst) */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <x86intrin.h>

#include "runtime/cpuid.h"
#include "runtime/interrupts.h"
#include "runtime/kvm/kvm.h"
#include "runtime/kvmclock.h"
#include "runtime/soft/tlb.h"

#define MSR_TSC 0x10u

int kvm_cpu_ioctl(struct kvm_cpu *cpu, unsigned long request, void *argument, const char *name,
                  struct error *err)
{
    cpu->kvm->ioctls++;
    int result = ioctl(cpu->fd, request, argument);
    if (result < 0)
        return fail(err, HVRUN_HOST, "KVM: vCPU %u: %s: %s", cpu->vcpu->index, name,
                    strerror(errno));
    return result;
}
#define IOCTL(request, argument) kvm_cpu_ioctl(cpu, request, argument, #request, err)

/* ---- general registers ---- */
static const struct {
    uint16_t theirs;
    uint8_t ours;
} registers[] = {
#define REGISTER(name, number)                                                                     \
    {                                                                                              \
        offsetof(struct kvm_regs, name), number                                                    \
    }
    REGISTER(rax, RAX), REGISTER(rcx, RCX), REGISTER(rdx, RDX), REGISTER(rbx, RBX),
    REGISTER(rsp, RSP), REGISTER(rbp, RBP), REGISTER(rsi, RSI), REGISTER(rdi, RDI),
    REGISTER(r8, R8),   REGISTER(r9, R9),   REGISTER(r10, R10), REGISTER(r11, R11),
    REGISTER(r12, R12), REGISTER(r13, R13), REGISTER(r14, R14), REGISTER(r15, R15),
#undef REGISTER
};
#define REGISTERS (sizeof registers / sizeof registers[0])

int kvm_pull_registers(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_regs regs;
    if (IOCTL(KVM_GET_REGS, &regs) < 0)
        return -1;
    for (size_t n = 0; n < REGISTERS; n++)
        memcpy(&cpu->vcpu->r[registers[n].ours], (char *)&regs + registers[n].theirs, 8);
    cpu->vcpu->rip = regs.rip;
    vcpu_set_rflags(cpu->vcpu, regs.rflags);
    return 0;
}

static int push_registers(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_regs regs = {.rip = cpu->vcpu->rip, .rflags = vcpu_rflags(cpu->vcpu)};
    for (size_t n = 0; n < REGISTERS; n++)
        memcpy((char *)&regs + registers[n].theirs, &cpu->vcpu->r[registers[n].ours], 8);
    if (IOCTL(KVM_SET_REGS, &regs) < 0)
        return -1;
    if (!(regs.rflags & RFLAGS_VM))
        return 0;
    /* software KVM drops it without a word */
    if (IOCTL(KVM_GET_REGS, &regs) == 0 && !(regs.rflags & RFLAGS_VM))
        return fail(err, HVRUN_HOST, "KVM: has no virtual-8086 mode; use --engine soft");
    return err->code ? -1 : 0;
}

/* ---- segments and control registers ---- */
static const uint16_t segments[SEGS] = {
    [SEG_ES] = offsetof(struct kvm_sregs, es),    [SEG_CS] = offsetof(struct kvm_sregs, cs),
    [SEG_SS] = offsetof(struct kvm_sregs, ss),    [SEG_DS] = offsetof(struct kvm_sregs, ds),
    [SEG_FS] = offsetof(struct kvm_sregs, fs),    [SEG_GS] = offsetof(struct kvm_sregs, gs),
    [SEG_LDTR] = offsetof(struct kvm_sregs, ldt), [SEG_TR] = offsetof(struct kvm_sregs, tr),
};

static struct segment our_segment(const struct kvm_segment *s)
{
    uint32_t rights = (s->type & 15u) | (s->s ? RIGHTS_S : 0) | (s->dpl & 3u) << 5 |
                      (s->present ? RIGHTS_P : 0) | (s->avl ? RIGHTS_AVL : 0) |
                      (s->l ? RIGHTS_L : 0) | (s->db ? RIGHTS_DB : 0) | (s->g ? RIGHTS_G : 0) |
                      (s->unusable ? RIGHTS_UNUSABLE : 0);
    return (struct segment){s->selector, rights, s->limit, s->base};
}

static struct kvm_segment their_segment(const struct segment *s)
{
    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = s->rights & RIGHTS_TYPE,
        .s = !!(s->rights & RIGHTS_S),
        .dpl = RIGHTS_DPL(s->rights),
        .present = !!(s->rights & RIGHTS_P) && !(s->rights & RIGHTS_UNUSABLE),
        .avl = !!(s->rights & RIGHTS_AVL),
        .l = !!(s->rights & RIGHTS_L),
        .db = !!(s->rights & RIGHTS_DB),
        .g = !!(s->rights & RIGHTS_G),
        .unusable = !!(s->rights & RIGHTS_UNUSABLE),
    };
}

/* The two structures are the same but for their ends: the newer one has the PDPTE registers there, which in PAE paging
 * are state of their own. */
union system {
    struct kvm_sregs old;
    struct kvm_sregs2 new;
};

static int get_system(struct kvm_cpu *cpu, union system *s, struct error *err)
{
    *s = (union system){.new = {.flags = 0}};
    if (cpu->has_pdptes)
        return IOCTL(KVM_GET_SREGS2, &s->new);
    int result = IOCTL(KVM_GET_SREGS, &s->old);
    memset(s->old.interrupt_bitmap, 0, sizeof s->old.interrupt_bitmap); /* kvm_vcpu_events has it */
    return result;
}

static int set_system(struct kvm_cpu *cpu, union system *s, struct error *err)
{
    return cpu->has_pdptes ? IOCTL(KVM_SET_SREGS2, &s->new) : IOCTL(KVM_SET_SREGS, &s->old);
}

static int pull_system(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *v = cpu->vcpu;
    union system both;
    if (get_system(cpu, &both, err) < 0)
        return -1;
    const struct kvm_sregs s = both.old;
    for (unsigned n = 0; n < SEGS; n++)
        v->segment[n] = our_segment((void *)((char *)&s + segments[n]));
    v->gdt_base = s.gdt.base;
    v->gdt_limit = s.gdt.limit;
    v->idt_base = s.idt.base;
    v->idt_limit = s.idt.limit;
    v->cr0 = s.cr0;
    v->cr2 = s.cr2;
    v->cr3 = s.cr3;
    v->cr4 = s.cr4;
    v->efer = s.efer;
    v->pdpte_from = 0; /* not loaded: read from memory when needed */
    if (cpu->has_pdptes && both.new.flags &KVM_SREGS2_FLAGS_PDPTRS_VALID) {
        memcpy(v->pdpte, both.new.pdptrs, sizeof v->pdpte);
        v->pdpte_from = v->cr3 + 1;
    }
    return 0;
}

/* PAE paging outside long mode: the only one with PDPTE registers. */
static bool pae_paging(const struct vcpu *v)
{
    return v->cr0 & CR0_PG && v->cr4 & CR4_PAE && !(v->efer & EFER_LMA);
}

/* INVLPG and its kind on the soft processor are not known to the kernel, whose translations may be older. There is no
 * request to drop them; a change of CR0.WP does. */
static int drop_translations(struct kvm_cpu *cpu, union system *both, struct error *err)
{
    if (!cpu->translations_stale || !(both->old.cr0 & CR0_PG))
        return 0;
    union system other = *both;
    other.old.cr0 ^= CR0_WP;
    return set_system(cpu, &other, err);
}

static int push_system(struct kvm_cpu *cpu, struct error *err)
{
    const struct vcpu *v = cpu->vcpu;
    union system both;
    if (get_system(cpu, &both, err) < 0) /* for what of it is not ours */
        return -1;
    struct kvm_sregs s = both.old;
    for (unsigned n = 0; n < SEGS; n++) {
        struct kvm_segment theirs = their_segment(&v->segment[n]);
        memcpy((char *)&s + segments[n], &theirs, sizeof theirs);
    }
    s.gdt = (struct kvm_dtable){.base = v->gdt_base, .limit = v->gdt_limit};
    s.idt = (struct kvm_dtable){.base = v->idt_base, .limit = v->idt_limit};
    s.cr0 = v->cr0;
    s.cr2 = v->cr2;
    s.cr3 = v->cr3;
    s.cr4 = v->cr4;
    s.efer = v->efer;
    s.cr8 = lapic_get_tpr(cpu->vcpu);
    uint64_t base;
    if (lapic_read_msr(cpu->vcpu, 0x1b, &base) == 0)
        s.apic_base = base;
    memcpy(&both, &s, offsetof(struct kvm_sregs, interrupt_bitmap));
    if (cpu->has_pdptes) {
        bool loaded = pae_paging(v) && v->pdpte_from == v->cr3 + 1;
        both.new.flags = loaded ? KVM_SREGS2_FLAGS_PDPTRS_VALID : 0;
        memcpy(both.new.pdptrs, v->pdpte, sizeof v->pdpte);
    }
    if (drop_translations(cpu, &both, err) < 0 || set_system(cpu, &both, err) < 0)
        return -1;
    cpu->translations_stale = false;
    if (!(v->cr0 & CR0_PG) || v->efer & EFER_LMA)
        return 0;
    /* software KVM may know no paging but long mode's, and drops the bit */
    if (get_system(cpu, &both, err) == 0 && !(both.old.cr0 & CR0_PG))
        return fail(err, HVRUN_HOST, "KVM: has no 32-bit paging; use --engine soft");
    return err->code ? -1 : 0;
}

/* ---- debug registers ---- */
static int pull_debug(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_debugregs d;
    if (IOCTL(KVM_GET_DEBUGREGS, &d) < 0)
        return -1;
    memcpy(cpu->vcpu->dr, d.db, sizeof d.db);
    cpu->vcpu->dr[6] = d.dr6;
    cpu->vcpu->dr[7] = d.dr7;
    return 0;
}

static int push_debug(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_debugregs d = {.dr6 = cpu->vcpu->dr[6], .dr7 = cpu->vcpu->dr[7]};
    memcpy(d.db, cpu->vcpu->dr, sizeof d.db);
    return IOCTL(KVM_SET_DEBUGREGS, &d);
}

/* ---- x87, SSE, AVX: the standard XSAVE format, which both use ---- */
static int pull_fpu(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *v = cpu->vcpu;
    struct kvm_xsave x;
    if (IOCTL(KVM_GET_XSAVE, &x) < 0)
        return -1;
    const char *area = (const char *)x.region;
    memcpy(v->fpu.legacy, area, sizeof v->fpu.legacy);
    memcpy(v->fpu.header, area + sizeof v->fpu.legacy, sizeof v->fpu.header);
    memcpy(v->fpu.ymm_high, area + XSTATE_AVX_OFFSET, sizeof v->fpu.ymm_high);
    uint64_t in_use;
    memcpy(&in_use, v->fpu.header, 8);
    if (!(in_use & XSTATE_AVX))
        memset(v->fpu.ymm_high, 0, sizeof v->fpu.ymm_high);
    if (cpuid_offers(FEATURE_PKU)) {
        v->pkru = 0;
        if (in_use & XSTATE_PKRU)
            memcpy(&v->pkru, area + XSTATE_PKRU_OFFSET, 4);
    }
    in_use &= cpuid_xcr0_mask();
    memcpy(v->fpu.header, &in_use, 8);
    return 0;
}

static bool all_zero(const uint8_t *bytes, size_t count)
{
    while (count && !*bytes)
        bytes++, count--;
    return !count;
}

/* Components that hold something, whether the guest's XSTATE_BV says so or not: the kernel takes those that are not in
 * use for initialized (SDM 1 13.6). */
static uint64_t not_initial(const struct fpu *fpu)
{
    static const uint8_t x87[24] = {0x7f, 0x03};
    uint64_t in_use = 0;
    if (memcmp(fpu->legacy, x87, sizeof x87) != 0 || !all_zero(fpu->legacy + 32, 128))
        in_use |= XSTATE_X87;
    if (FPU_MXCSR(fpu) != 0x1f80 || !all_zero(FPU_XMM(fpu, 0), 256))
        in_use |= XSTATE_SSE;
    if (!all_zero(fpu->ymm_high[0], sizeof fpu->ymm_high))
        in_use |= XSTATE_AVX;
    return in_use;
}

static int push_fpu(struct kvm_cpu *cpu, struct error *err)
{
    const struct vcpu *v = cpu->vcpu;
    struct kvm_xsave x;
    if (IOCTL(KVM_GET_XSAVE, &x) < 0) /* for what of it is not the guest's */
        return -1;
    char *area = (char *)x.region;
    uint64_t in_use;
    memcpy(&in_use, v->fpu.header, 8);
    in_use |= not_initial(&v->fpu);
    if (cpuid_offers(FEATURE_PKU)) {
        in_use |= XSTATE_PKRU;
        memcpy(area + XSTATE_PKRU_OFFSET, &v->pkru, 4);
    }
    memcpy(area, v->fpu.legacy, sizeof v->fpu.legacy);
    memset(area + sizeof v->fpu.legacy, 0, sizeof v->fpu.header);
    memcpy(area + sizeof v->fpu.legacy, &in_use, 8);
    memcpy(area + XSTATE_AVX_OFFSET, v->fpu.ymm_high, sizeof v->fpu.ymm_high);
    return IOCTL(KVM_SET_XSAVE, &x);
}

static int pull_xcr0(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_xcrs x;
    if (!cpuid_offers(FEATURE_XSAVE))
        return 0;
    if (IOCTL(KVM_GET_XCRS, &x) < 0)
        return -1;
    if (x.nr_xcrs && x.xcrs[0].xcr == 0)
        cpu->vcpu->xcr0 = x.xcrs[0].value;
    return 0;
}

static int push_xcr0(struct kvm_cpu *cpu, struct error *err)
{
    struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = cpu->vcpu->xcr0}}};
    return cpuid_offers(FEATURE_XSAVE) ? IOCTL(KVM_SET_XCRS, &x) : 0;
}

/* ---- MSRs that KVM keeps; the others are exits, and msr.c's ---- */
static const struct {
    uint32_t msr;
    uint16_t field;
    uint8_t feature; /* enum cpu_feature; 0 = none */
} msrs[] = {
#define MSR(number, name, feature)                                                                 \
    {                                                                                              \
        number, offsetof(struct vcpu, name), feature                                               \
    }
    MSR(0x174, sysenter_cs, 0),
    MSR(0x175, sysenter_esp, 0),
    MSR(0x176, sysenter_eip, 0),
    MSR(0x277, pat, 0),
    MSR(0xc0000081, star, 0),
    MSR(0xc0000082, lstar, 0),
    MSR(0xc0000083, cstar, 0),
    MSR(0xc0000084, fmask, 0),
    MSR(0xc0000102, kernel_gs_base, 0),
    MSR(0xc0000103, tsc_aux, FEATURE_RDTSCP),
    MSR(MSR_KVM_WALL_CLOCK, kvm_wall_clock, 0),
    MSR(MSR_KVM_SYSTEM_TIME, kvm_system_time, 0),
#undef MSR
};
#define MSRS (sizeof msrs / sizeof msrs[0])

union msr_list {
    struct kvm_msrs head;
    char space[sizeof(struct kvm_msrs) + MSRS * sizeof(struct kvm_msr_entry)];
};

/* The clock is KVM's where the chips are. */
static bool transferred(const struct kvm *kvm, size_t n)
{
    if (msrs[n].msr == MSR_KVM_WALL_CLOCK || msrs[n].msr == MSR_KVM_SYSTEM_TIME)
        return kvm->chips == &kvm_kernel_chips;
    return !msrs[n].feature || cpuid_offers(msrs[n].feature);
}

/* Writing the clock's MSRs writes guest memory: only when the guest did so on the soft processor. */
static bool as_it_was(const struct kvm_cpu *cpu, size_t n)
{
    if (msrs[n].msr == MSR_KVM_WALL_CLOCK)
        return cpu->vcpu->kvm_wall_clock == cpu->clock_msrs[0];
    return msrs[n].msr == MSR_KVM_SYSTEM_TIME && cpu->vcpu->kvm_system_time == cpu->clock_msrs[1];
}

static int move_msrs(struct kvm_cpu *cpu, bool push, struct error *err)
{
    union msr_list list = {0};
    uint16_t fields[MSRS];
    unsigned count = 0;
    for (size_t n = 0; n < MSRS; n++) {
        if (!transferred(cpu->kvm, n) || (push && as_it_was(cpu, n)))
            continue;
        fields[count] = msrs[n].field;
        list.head.entries[count].index = msrs[n].msr;
        memcpy(&list.head.entries[count++].data, (char *)cpu->vcpu + msrs[n].field, 8);
    }
    list.head.nmsrs = count;
    int done = push ? IOCTL(KVM_SET_MSRS, &list) : IOCTL(KVM_GET_MSRS, &list);
    if (done < 0)
        return -1;
    if ((unsigned)done < count)
        return fail(err, HVRUN_HOST, "KVM: vCPU %u: MSR 0x%x cannot be %s", cpu->vcpu->index,
                    list.head.entries[done].index, push ? "set" : "read");
    for (unsigned n = 0; !push && n < count; n++)
        memcpy((char *)cpu->vcpu + fields[n], &list.head.entries[n].data, 8);
    cpu->clock_msrs[0] = cpu->vcpu->kvm_wall_clock;
    cpu->clock_msrs[1] = cpu->vcpu->kvm_system_time;
    return 0;
}

/* ---- events ---- */
/* What KVM had begun to deliver stays as it is until it is pushed back, or the soft processor delivers it. */
static int pull_events(struct kvm_cpu *cpu, struct error *err)
{
    struct vcpu *v = cpu->vcpu;
    struct kvm_vcpu_events e;
    if (IOCTL(KVM_GET_VCPU_EVENTS, &e) < 0)
        return -1;
    v->nmi_blocked = e.nmi.masked;
    if (e.nmi.pending)
        v->events |= VCPU_EVENT_NMI;
    v->shadow = (e.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? SHADOW_STI : 0) |
                (e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOVSS : 0);
    cpu->queued = (struct kvm_vcpu_events){.flags = 0};
    cpu->queued.exception = e.exception;
    cpu->queued.interrupt = e.interrupt;
    cpu->queued.nmi.injected = e.nmi.injected;
    v->fault.vector = -1;
    return 0;
}

static int push_events(struct kvm_cpu *cpu, struct error *err)
{
    const struct vcpu *v = cpu->vcpu;
    struct kvm_vcpu_events e = cpu->queued;
    e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    e.nmi.masked = v->nmi_blocked;
    e.interrupt.shadow = (v->shadow & SHADOW_STI ? KVM_X86_SHADOW_INT_STI : 0) |
                         (v->shadow & SHADOW_MOVSS ? KVM_X86_SHADOW_INT_MOV_SS : 0);
    cpu->queued = (struct kvm_vcpu_events){.flags = 0};
    return IOCTL(KVM_SET_VCPU_EVENTS, &e);
}

/* ---- all of it ---- */
int kvm_pull(struct kvm_cpu *cpu, struct error *err)
{
    if (cpu->pulled)
        return 0;
    /* events first: an exception that waits gets its CR2 and DR6 by being looked at */
    if (pull_events(cpu, err) < 0 || pull_system(cpu, err) < 0 ||
        kvm_pull_registers(cpu, err) < 0 || pull_debug(cpu, err) < 0 || pull_fpu(cpu, err) < 0 ||
        pull_xcr0(cpu, err) < 0 || move_msrs(cpu, false, err) < 0)
        return -1;
    vcpu_mode_changed(cpu->vcpu);
    cpu->kvm->pulls++;
    cpu->pulled = true;
    return 0;
}

int kvm_push(struct kvm_cpu *cpu, struct error *err)
{
    if (!cpu->pulled)
        return 0;
    if (push_system(cpu, err) < 0 || push_registers(cpu, err) < 0 || push_xcr0(cpu, err) < 0 ||
        push_fpu(cpu, err) < 0 || move_msrs(cpu, true, err) < 0 || push_debug(cpu, err) < 0 ||
        push_events(cpu, err) < 0)
        return -1;
    if (cpu->tsc_offset != cpu->vcpu->tsc_offset && kvm_set_tsc(cpu, err) < 0)
        return -1;
    cpu->pulled = false;
    return 0;
}

/* ---- what is set once ---- */
#define LEAVES_MAX    80u
#define SUBLEAVES_MAX 16u

union cpuid_table {
    struct kvm_cpuid2 head;
    char space[sizeof(struct kvm_cpuid2) + LEAVES_MAX * sizeof(struct kvm_cpuid_entry2)];
};

static void add_leaf(union cpuid_table *table, const struct vcpu *vcpu, uint32_t leaf,
                     uint32_t subleaf, bool indexed)
{
    struct cpuid_answer a = cpuid_answer(vcpu, leaf, subleaf);
    if (table->head.nent == LEAVES_MAX)
        return;
    table->head.entries[table->head.nent++] =
        (struct kvm_cpuid_entry2){.function = leaf,
                                  .index = subleaf,
                                  .flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                                  .eax = a.eax,
                                  .ebx = a.ebx,
                                  .ecx = a.ecx,
                                  .edx = a.edx};
}

static void add_range(union cpuid_table *table, const struct vcpu *vcpu, uint32_t first)
{
    uint32_t last = cpuid_answer(vcpu, first, 0).eax;
    for (uint32_t leaf = first; leaf <= last && leaf - first < 64; leaf++) {
        bool subleaves;
        if (!cpuid_has_leaf(leaf, &subleaves))
            continue;
        for (uint32_t n = 0; n < (subleaves ? SUBLEAVES_MAX : 1); n++) {
            struct cpuid_answer a = cpuid_answer(vcpu, leaf, n);
            if (n == 0 || a.eax | a.ebx | a.edx)
                add_leaf(table, vcpu, leaf, n, subleaves);
        }
    }
}

int kvm_set_tsc(struct kvm_cpu *cpu, struct error *err)
{
    uint64_t offset = cpu->vcpu->tsc_offset - cpu->kvm->tsc_start;
    cpu->tsc_offset = cpu->vcpu->tsc_offset;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};
    if (ioctl(cpu->fd, KVM_HAS_DEVICE_ATTR, &attribute) == 0)
        return IOCTL(KVM_SET_DEVICE_ATTR, &attribute);
    union {
        struct kvm_msrs head;
        char space[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
    } tsc = {.head.nmsrs = 1};
    tsc.head.entries[0] = (struct kvm_msr_entry){.index = MSR_TSC, .data = offset + __rdtsc()};
    return IOCTL(KVM_SET_MSRS, &tsc) < 0 ? -1 : 0;
}

int kvm_set_up_cpu(struct kvm_cpu *cpu, struct error *err)
{
    static const uint32_t firsts[] = {0, 0x40000000, 0x40000100, 0x80000000};
    union cpuid_table table = {0};
    cpu->has_pdptes = ioctl(cpu->kvm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0;
    for (unsigned n = 0; n < sizeof firsts / sizeof firsts[0]; n++)
        add_range(&table, cpu->vcpu, firsts[n]);
    if (IOCTL(KVM_SET_CPUID2, &table) < 0)
        return -1;
    return kvm_set_tsc(cpu, err);
}
