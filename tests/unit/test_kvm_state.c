/* SPDX-License-Identifier: MIT */
/* A vCPU's state goes into the kernel and comes back, nothing lost (needs /dev/kvm). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "runtime/cpuid.h"
#include "runtime/kvm/kvm.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define ROUNDS 200

static struct vm vm;
static bool usable, has_v86, has_paging32;
static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint64_t random_address(void)
{
    return (uint64_t)((int64_t)(random64() << 16) >> 16); /* canonical */
}

static bool v86_works(void)
{
    struct kvm_regs regs = {.rip = 0x1000, .rflags = RFLAGS_VM | RFLAGS_IOPL | RFLAGS_ONE};
    int fd = vm.kvm->cpus[0].fd;
    return ioctl(fd, KVM_SET_REGS, &regs) == 0 && ioctl(fd, KVM_GET_REGS, &regs) == 0 &&
           regs.rflags & RFLAGS_VM;
}

static bool paging32_works(void)
{
    struct kvm_sregs s;
    int fd = vm.kvm->cpus[0].fd;
    bool good = ioctl(fd, KVM_GET_SREGS, &s) == 0;
    s.cr0 = CR0_PE | CR0_PG | CR0_ET;
    return good && ioctl(fd, KVM_SET_SREGS, &s) == 0 && ioctl(fd, KVM_GET_SREGS, &s) == 0 &&
           s.cr0 & CR0_PG;
}

static int open_vm(void **state)
{
    (void)state;
    struct error err = {0};
    struct kvm_quality quality;
    if (kvm_probe(&quality, &err) < 0 || kvm_limit_features(&quality, &err) < 0) {
        print_message("# no usable KVM: %s\n", err.text);
        return 0;
    }
    vm.config.memory = 16 << 20;
    vm.config.smp = 2;
    vm.engine = &kvm_engine;
    usable = vm_create(&vm, &err) == 0;
    if (!usable)
        print_message("# no usable KVM: %s\n", err.text);
    if (usable && !(has_v86 = v86_works()))
        print_message("# states of virtual-8086 mode are left out: this KVM has none\n");
    if (usable && !(has_paging32 = paging32_works()))
        print_message("# states of 32-bit paging are left out: this KVM has none\n");
    return 0;
}

static int close_vm(void **state)
{
    (void)state;
    if (usable)
        vm_destroy(&vm);
    return 0;
}

static void random_segment(struct segment *s, uint32_t type)
{
    *s = (struct segment){.selector = (uint16_t)(random64() & 0xfff8),
                          .rights = RIGHTS_P | RIGHTS_S | RIGHTS_G | type,
                          .limit = 0xffffffff};
}

/* ---- modes ---- */
/* Whatever may be loaded in this mode: code of its kind at some privilege level, data segments or null selectors. */
static void random_code(struct vcpu *v, uint32_t code, unsigned level)
{
    uint32_t dpl = level << 5;
    for (unsigned n = SEG_ES; n <= SEG_GS; n++)
        random_segment(&v->segment[n], dpl | RIGHTS_DB | RIGHTS_WRITABLE | RIGHTS_ACCESSED);
    random_segment(&v->segment[SEG_CS],
                   dpl | code | RIGHTS_CODE | RIGHTS_WRITABLE | RIGHTS_ACCESSED);
    if (random64() & 1)
        v->segment[SEG_ES] = (struct segment){.selector = 0, .rights = RIGHTS_UNUSABLE};
    v->cpl = (uint8_t)level;
}

/* Real mode and virtual-8086 mode: bases are 16 times the selectors. */
static void random_paragraphs(struct vcpu *v, uint32_t rights)
{
    for (unsigned n = SEG_ES; n <= SEG_GS; n++) {
        uint16_t selector = (uint16_t)random64();
        v->segment[n] = (struct segment){.selector = selector,
                                         .rights = RIGHTS_P | RIGHTS_S | rights | 3,
                                         .limit = 0xffff,
                                         .base = (uint64_t)selector << 4};
    }
}

enum mode { LONG_KERNEL, LONG_USER, COMPATIBILITY, PAE, PAGED32, FLAT32, CODE16, REAL, V86, MODES };

static void random_mode(struct vcpu *v, enum mode mode)
{
    bool long_mode = mode <= COMPATIBILITY, paging = mode <= PAGED32 || mode == V86;
    v->cr0 = CR0_ET | CR0_NE | (random64() & (CR0_MP | CR0_WP | CR0_TS | CR0_AM));
    v->cr0 |= (mode == REAL ? 0 : CR0_PE) | (paging ? CR0_PG : 0);
    v->cr4 = CR4_OSFXSR | (random64() & (CR4_PGE | CR4_DE | CR4_OSXMMEXCPT | CR4_TSD));
    v->cr4 |= long_mode || mode == PAE ? CR4_PAE : 0;
    v->efer = (long_mode ? EFER_LME | EFER_LMA : 0) | (random64() & (EFER_SCE | EFER_NXE));
    v->pdpte_from = 0;
    if (mode == PAE && vm.kvm->cpus[0].has_pdptes) {
        for (unsigned n = 0; n < 4; n++)
            v->pdpte[n] = (random64() & 0xfff000) | 1;
        v->pdpte_from = v->cr3 + 1;
    }
    vcpu_set_rflags(v, (random64() & (RFLAGS_STATUS | RFLAGS_IF | RFLAGS_DF)) | RFLAGS_ONE);
    if (mode == REAL || mode == V86)
        random_paragraphs(v, mode == V86 ? 3u << 5 : 0);
    else
        random_code(v,
                    long_mode && mode != COMPATIBILITY ? RIGHTS_L
                    : mode == CODE16                   ? 0
                                                       : RIGHTS_DB,
                    mode == LONG_USER || mode == COMPATIBILITY ? 3 : 0);
    if (mode == V86) {
        v->cpl = 3;
        vcpu_set_rflags(v, vcpu_rflags(v) | RFLAGS_VM | RFLAGS_IOPL);
    }
    if (long_mode) {
        v->segment[SEG_FS].base = random_address();
        v->segment[SEG_GS].base = random_address();
    } else {
        v->rip = (uint32_t)v->rip;
    }
}

/* The register file of x87, SSE and AVX, each component with something in it or as after power-on. */
static void random_fpu(struct fpu *fpu)
{
    uint64_t in_use = 0;
    *fpu = (struct fpu){.legacy = {0x7f, 0x03}};
    FPU_MXCSR(fpu) = 0x1f80;
    if (random64() & 1) {
        in_use |= XSTATE_X87;
        for (unsigned n = 32; n < 160; n++)
            fpu->legacy[n] = n % 16 < 10 ? (uint8_t)random64() : 0;
        fpu->legacy[0] = 0x7f & (uint8_t)(random64() | 0x40); /* masks of exceptions */
        fpu->legacy[4] = (uint8_t)random64();                 /* tags */
    }
    if (random64() & 1) {
        in_use |= XSTATE_SSE;
        for (unsigned n = 0; n < 256; n++)
            FPU_XMM(fpu, 0)[n] = (uint8_t)random64();
        FPU_MXCSR(fpu) = (uint32_t)random64() & 0xffbf;
    }
    if (cpuid_offers(FEATURE_AVX) && random64() & 1) {
        in_use |= XSTATE_AVX;
        for (unsigned n = 0; n < sizeof fpu->ymm_high; n++)
            fpu->ymm_high[n / 16][n % 16] = (uint8_t)random64();
    }
    memcpy(fpu->header, &in_use, 8);
}

/* What KVM had begun to deliver: at most one, and never what the mode cannot have. */
static void random_event(struct kvm_cpu *cpu)
{
    cpu->queued = (struct kvm_vcpu_events){.flags = 0};
    switch (random64() % 5) {
    case 0:
        cpu->queued.exception.injected = 1;
        cpu->queued.exception.nr = EXC_PF;
        cpu->queued.exception.has_error_code = 1;
        cpu->queued.exception.error_code = (uint32_t)random64() & 7;
        break;
    case 1:
        cpu->queued.interrupt.injected = 1;
        cpu->queued.interrupt.nr = (uint8_t)(32 + random64() % 224);
        break;
    case 2:
        cpu->queued.nmi.injected = 1;
    }
}

static void random_state(struct vcpu *v)
{
    for (unsigned n = 0; n < 16; n++)
        v->r[n] = random64();
    v->rip = random_address();
    v->segment[SEG_TR] = (struct segment){.selector = 0x40, .rights = RIGHTS_P | 11, .limit = 0x67};
    v->segment[SEG_TR].base = random_address();
    v->segment[SEG_LDTR] = (struct segment){.rights = RIGHTS_P | 2, .limit = 0xffff};
    v->gdt_base = random_address();
    v->idt_base = random_address();
    v->gdt_limit = (uint16_t)random64();
    v->idt_limit = (uint16_t)random64();
    v->cr2 = random64();
    v->cr3 = random64() & 0xfff000;
    enum mode mode;
    do
        mode = (enum mode)(random64() % MODES);
    while ((mode == V86 && !(has_v86 && has_paging32)) ||
           ((mode == PAE || mode == PAGED32) && !has_paging32));
    random_mode(v, mode);
    for (unsigned n = 0; n < 4; n++)
        v->dr[n] = random_address();
    v->dr[6] = 0xffff0ff0 | (random64() & 0xf);
    v->dr[7] = 0x400 | (random64() & 0xff);
    uint64_t *addresses[] = {&v->lstar, &v->cstar, &v->kernel_gs_base, &v->sysenter_esp,
                             &v->sysenter_eip};
    for (size_t n = 0; n < sizeof addresses / sizeof addresses[0]; n++)
        *addresses[n] = random_address();
    v->star = random64();
    v->fmask = (uint32_t)random64();
    v->sysenter_cs = (uint16_t)random64();
    v->nmi_blocked = random64() & 1;
    v->shadow = (uint8_t[]){0, SHADOW_STI, SHADOW_MOVSS}[random64() % 3];
    v->tsc_offset = random64() >> 24;
    v->pat = 0x0007040600070406 ^ (random64() & 1);
    v->events = random64() & 1 ? VCPU_EVENT_NMI : 0;
    random_fpu(&v->fpu);
    vcpu_mode_changed(v);
}

/* Everything up to what is only of this process. */
static void compare(const struct vcpu *a, const struct vcpu *b)
{
    assert_memory_equal(a->r, b->r, 16 * sizeof a->r[0]);
    assert_int_equal(a->rip, b->rip);
    assert_int_equal(vcpu_rflags(a), vcpu_rflags(b));
    for (unsigned n = 0; n < SEGS; n++) {
        assert_int_equal(a->segment[n].selector, b->segment[n].selector);
        assert_int_equal(a->segment[n].rights, b->segment[n].rights);
        assert_int_equal(a->segment[n].limit, b->segment[n].limit);
        assert_int_equal(a->segment[n].base, b->segment[n].base);
    }
#define SAME(field) assert_memory_equal(&a->field, &b->field, sizeof a->field)
    SAME(gdt_base);
    SAME(gdt_limit);
    SAME(idt_base);
    SAME(idt_limit);
    SAME(cr0);
    SAME(cr2);
    SAME(cr3);
    SAME(cr4);
    SAME(efer);
    SAME(dr);
    SAME(star);
    SAME(lstar);
    SAME(cstar);
    SAME(fmask);
    SAME(kernel_gs_base);
    SAME(sysenter_cs);
    SAME(sysenter_esp);
    SAME(sysenter_eip);
    SAME(pat);
    SAME(nmi_blocked);
    SAME(shadow);
    SAME(base);
    SAME(mode);
    SAME(cpl);
    SAME(tsc_offset);
    SAME(fpu.ymm_high);
    SAME(fpu.header);
    if (a->pdpte_from)
        SAME(pdpte);
    SAME(pdpte_from);
    assert_memory_equal(a->fpu.legacy, b->fpu.legacy, 28); /* behind MXCSR stands the host's mask */
    assert_memory_equal(a->fpu.legacy + 32, b->fpu.legacy + 32, 384);
#undef SAME
}

static void move(struct kvm_cpu *cpu, int (*how)(struct kvm_cpu *cpu, struct error *err))
{
    struct error err = {0};
    if (how(cpu, &err) < 0)
        fail_msg("%s", err.text);
}

/* Into the first vCPU and back, and on to the second and back. */
static void a_random_state_comes_back_as_it_went(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct kvm_cpu *cpus = vm.kvm->cpus;
    struct vcpu *v = vm.vcpus[0], *w = vm.vcpus[1], *before = aligned_alloc(64, sizeof *before);
    const size_t architectural = offsetof(struct vcpu, activity) - offsetof(struct vcpu, segment);
    assert_non_null(before);
    for (unsigned n = 0; n < ROUNDS; n++) {
        random_state(v);
        random_event(&cpus[0]);
        const struct kvm_vcpu_events events = cpus[0].queued;
        memcpy(before, v, sizeof *before);
        cpus[0].pulled = cpus[1].pulled = true;
        move(&cpus[0], kvm_push);
        assert_false(cpus[0].pulled);
        random_state(v);
        v->events = before->events; /* those that wait stay here */
        v->tsc_offset = before->tsc_offset;
        move(&cpus[0], kvm_pull);
        compare(before, v);
        assert_int_equal(v->events, before->events);

        memcpy(w->r, v->r, sizeof w->r);
        w->rip = v->rip;
        memcpy(&w->segment, &v->segment, architectural);
        w->shadow = v->shadow;
        w->nmi_blocked = v->nmi_blocked;
        vcpu_set_rflags(w, vcpu_rflags(v));
        w->cpl = v->cpl;
        vcpu_mode_changed(w);
        cpus[1].queued = cpus[0].queued;
        move(&cpus[1], kvm_push);
        random_state(w);
        w->tsc_offset = before->tsc_offset;
        move(&cpus[1], kvm_pull);
        compare(before, w);
        assert_memory_equal(&cpus[1].queued.exception, &events.exception, sizeof events.exception);
        assert_int_equal(cpus[1].queued.interrupt.injected, events.interrupt.injected);
        assert_int_equal(cpus[1].queued.interrupt.nr, events.interrupt.nr);
        assert_int_equal(cpus[1].queued.nmi.injected, events.nmi.injected);
    }
    free(before);
}

static void nothing_moves_twice(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct kvm_cpu *cpu = &vm.kvm->cpus[0];
    struct error err = {0};
    cpu->pulled = true;
    uint64_t ioctls = vm.kvm->ioctls;
    assert_int_equal(kvm_pull(cpu, &err), 0);
    assert_int_equal(vm.kvm->ioctls, ioctls);
    assert_int_equal(kvm_push(cpu, &err), 0);
    ioctls = vm.kvm->ioctls;
    assert_int_equal(kvm_push(cpu, &err), 0);
    assert_int_equal(vm.kvm->ioctls, ioctls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_random_state_comes_back_as_it_went),
        cmocka_unit_test(nothing_moves_twice),
    };
    return cmocka_run_group_tests(tests, open_vm, close_vm);
}
