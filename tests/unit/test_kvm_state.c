/* A vCPU's state goes into the kernel and comes back, nothing lost (needs /dev/kvm). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cpuid.h"
#include "runtime/kvm/kvm.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define ROUNDS 200

static struct vm vm;
static bool usable;
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
    vm.config.smp = 1;
    vm.engine = &kvm_engine;
    usable = vm_create(&vm, &err) == 0;
    if (!usable)
        print_message("# no usable KVM: %s\n", err.text);
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

/* Long mode at level 0, anything in the rest. */
static void random_state(struct vcpu *v)
{
    for (unsigned n = 0; n < 16; n++)
        v->r[n] = random64();
    v->rip = random_address();
    for (unsigned n = SEG_ES; n <= SEG_GS; n++)
        random_segment(&v->segment[n], RIGHTS_DB | RIGHTS_WRITABLE | RIGHTS_ACCESSED);
    random_segment(&v->segment[SEG_CS], RIGHTS_L | RIGHTS_CODE | RIGHTS_WRITABLE | RIGHTS_ACCESSED);
    v->segment[SEG_FS].base = random_address();
    v->segment[SEG_GS].base = random_address();
    v->segment[SEG_TR] = (struct segment){.selector = 0x40, .rights = RIGHTS_P | 11, .limit = 0x67};
    v->segment[SEG_TR].base = random_address();
    v->segment[SEG_LDTR] = (struct segment){.rights = RIGHTS_P | 2, .limit = 0xffff};
    v->gdt_base = random_address();
    v->idt_base = random_address();
    v->gdt_limit = (uint16_t)random64();
    v->idt_limit = (uint16_t)random64();
    v->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | (random64() & (CR0_MP | CR0_WP | CR0_TS | CR0_AM));
    v->cr2 = random64();
    v->cr3 = random64() & 0xfff000;
    v->cr4 = CR4_PAE | CR4_OSFXSR | (random64() & (CR4_PGE | CR4_DE | CR4_OSXMMEXCPT | CR4_TSD));
    v->efer = EFER_LME | EFER_LMA | (random64() & (EFER_SCE | EFER_NXE));
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
    for (unsigned n = 0; n < 16; n++)
        for (unsigned k = 0; k < 16; k++)
            FPU_XMM(&v->fpu, n)[k] = (uint8_t)random64();
    FPU_MXCSR(&v->fpu) = (uint32_t)random64() & 0xffbf;
    v->fpu.header[0] = XSTATE_X87 | XSTATE_SSE;
    vcpu_mode_changed(v);
    vcpu_set_rflags(v, (random64() & (RFLAGS_STATUS | RFLAGS_IF | RFLAGS_DF)) | RFLAGS_ONE);
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
#undef SAME
    assert_memory_equal(FPU_XMM(&a->fpu, 0), FPU_XMM(&b->fpu, 0), 256);
    assert_int_equal(FPU_MXCSR(&a->fpu), FPU_MXCSR(&b->fpu));
}

static void a_random_state_comes_back_as_it_went(void **state)
{
    (void)state;
    if (!usable)
        skip();
    struct kvm_cpu *cpu = &vm.kvm->cpus[0];
    struct vcpu *v = vm.vcpus[0], *before = malloc(sizeof *before);
    assert_non_null(before);
    for (unsigned n = 0; n < ROUNDS; n++) {
        struct error err = {0};
        random_state(v);
        memcpy(before, v, sizeof *before);
        cpu->pulled = true;
        if (kvm_push(cpu, &err) < 0)
            fail_msg("%s", err.text);
        assert_false(cpu->pulled);
        random_state(v);
        if (kvm_pull(cpu, &err) < 0)
            fail_msg("%s", err.text);
        compare(before, v);
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
