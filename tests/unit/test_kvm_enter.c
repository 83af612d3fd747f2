/* SPDX-License-Identifier: MIT */
/* VM entries that KVM makes, and how the vCPU moves between it and the soft processor (needs /dev/kvm). */
#include "tests/unit/step_lab.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/kvm/kvm.h"
#include "runtime/soft/engine.h"

#include <cmocka.h>

#define HIGH 0xffffff8000000000ull /* the same memory again, where kernels are */

static bool usable;
static struct kvm_debug debug;

static void probe_debug(struct kvm_debug *found)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    kvm_probe_debug(fd, found);
    close(fd);
}

static int find_kvm(void **state)
{
    struct kvm_quality quality;
    struct error err = {0};
    (void)state;
    usable = kvm_probe(&quality, &err) == 0;
    if (usable)
        probe_debug(&debug);
    else
        print_message("# no usable KVM: %s\n", err.text);
    if (usable && !debug.ring0)
        print_message("# breakpoints are left out: this KVM has none\n");
    return 0;
}

static int open_lab(void **state)
{
    if (!usable)
        return 0;
    if (step_lab_open_kvm(state) < 0)
        return -1;
    struct step_lab *lab = *state;
    uint64_t pdpt = one_insn_get(lab->cpu, ONE_INSN_PAGES, 8);
    one_insn_put(lab->cpu, ONE_INSN_PAGES + 8 * 511, 8, pdpt);
    lab->vmcs->single_step = false;
    return 0;
}

static int close_lab(void **state)
{
    return usable ? step_lab_close(state) : 0;
}

static struct step_lab *lab_of(void **state)
{
    if (!usable)
        skip();
    return *state;
}

/* Has KVM run the guest, and the soft processor no more than so many instructions of it? */
static void ran_on_kvm(const struct step_lab *lab, uint64_t most)
{
    assert_true(lab->vm.kvm->runs > 0);
    assert_true(lab->vm.soft->executed <= most);
}

STEP_ASM(loop, "1: inc %rax; cmp $1000, %rax; jne 1b; hlt");
static void an_entry_without_controls_is_kvms(void **state)
{
    struct step_lab *lab = lab_of(state);
    STEP_LOAD(lab, loop);
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN);
    assert_int_equal(lab->vm.shutdown, SHUTDOWN_HALT);
    assert_int_equal(lab->cpu->r[RAX], 1000);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_HLT);
    ran_on_kvm(lab, 0);
}

static void steps_in_a_row_cost_no_ioctl(void **state)
{
    struct step_lab *lab = lab_of(state);
    STEP_LOAD(lab, loop);
    lab->vmcs->single_step = true;
    uint64_t ioctls = lab->vm.kvm->ioctls;
    for (unsigned n = 0; n < 300; n++)
        assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_STEP);
    assert_int_equal(lab->vm.kvm->ioctls, ioctls);
    assert_int_equal(lab->cpu->r[RAX], 100);
    lab->vmcs->single_step = false; /* and on from there */
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN);
    assert_int_equal(lab->cpu->r[RAX], 1000);
    ran_on_kvm(lab, 300);
}

/* Code that the soft processor has decoded is changed while KVM runs the guest. */
STEP_ASM(modifies, "nop; nop; nop; movl $0x90c3ff48, 0x8000; hlt"); /* inc %rbx; nop */
static void what_kvm_changes_the_soft_processor_sees(void **state)
{
    struct step_lab *lab = lab_of(state);
    STEP_LOAD(lab, modifies);
    lab->vmcs->single_step = true;
    STEPS_TO(STEP_BEHIND(1));
    lab->vmcs->single_step = false;
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN);
    lab->vm.shutdown = SHUTDOWN_NONE;
    lab->vmcs->activity = ACTIVITY_ACTIVE;
    lab->vmcs->single_step = true;
    lab->cpu->rip = STEP_CODE;
    STEPS_TO(STEP_BEHIND(3));
    assert_int_equal(lab->cpu->r[RBX], 1);
}

/* Asked for the third time or later, and the guest, which counts in memory, has run. */
struct asked {
    const volatile uint64_t *counted;
    unsigned times;
};
static bool ask(void *context)
{
    struct asked *asked = context;
    return ++asked->times >= 3 && *asked->counted;
}
#define COUNTED ONE_INSN_DATA
STEP_ASM(for_ever, "1: inc %rax; mov %rax, 0x10000; jmp 1b");
static void a_request_ends_it(void **state)
{
    struct step_lab *lab = lab_of(state);
    struct asked asked = {(const volatile uint64_t *)(lab->vm.memory.host + COUNTED), 0};
    STEP_LOAD(lab, for_ever);
    vmcs_interrupt(&lab->vm);
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_REQUEST);
    vmcs_poll(&lab->vm, -1, ask, &asked);
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_REQUEST);
    assert_true(asked.times >= 3 && lab->cpu->r[RAX] > 0);
    ran_on_kvm(lab, 0);
}

STEP_ASM(dies, "lidt 0x10000; ud2");
static void a_triple_fault_is_an_exit_of_its_own(void **state)
{
    struct step_lab *lab = lab_of(state);
    STEP_LOAD(lab, dies);
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_TRIPLE_FAULT);
    assert_int_equal(lab->vmcs->activity, ACTIVITY_SHUTDOWN);
    assert_int_equal(lab->vm.shutdown, SHUTDOWN_NONE);
    ran_on_kvm(lab, 0);
}

STEP_ASM(halts, "nop; hlt");
static void an_injected_event_arrives_then_kvm_goes_on(void **state)
{
    static const uint8_t counts[] = {0x48, 0xff, 0xc3, 0x48, 0xcf}; /* inc %rbx; iretq */
    struct step_lab *lab = lab_of(state);
    STEP_LOAD(lab, halts);
    step_load(lab, STEP_HANDLER(0x40), counts, counts + sizeof counts);
    lab->vmcs->entry_event = (struct vmcs_event){.valid = true, .vector = 0x40};
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN);
    assert_int_equal(lab->cpu->r[RBX], 1);
    assert_false(lab->vmcs->entry_event.valid);
    assert_int_equal(lab->vmcs->steps, 0);
    ran_on_kvm(lab, 1);
}

static void a_halted_guest_waits_for_its_nmi(void **state)
{
    struct step_lab *lab = lab_of(state);
    STEP_LOAD(lab, halts);
    lab->vmcs->activity = ACTIVITY_HLT;
    vmcs_raise_nmi(lab->vmcs);
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN); /* NMI, IRET, NOP, HLT */
    assert_int_equal(lab->cpu->rip, STEP_CODE + 2);
    assert_false(lab->cpu->events & VCPU_EVENT_NMI);
}

/* What KVM had taken and not delivered when its state was pulled. */
static void an_interrupt_that_kvm_has_taken_is_not_lost(void **state)
{
    struct step_lab *lab = lab_of(state);
    struct kvm_cpu *cpu = &lab->vm.kvm->cpus[0];
    struct kvm_interrupt interrupt = {.irq = 0x50};
    struct error err = {0};
    STEP_LOAD(lab, halts);
    assert_int_equal(kvm_push(cpu, &err), 0);
    assert_int_equal(kvm_cpu_ioctl(cpu, KVM_INTERRUPT, &interrupt, "KVM_INTERRUPT", &err), 0);
    assert_int_equal(kvm_pull(cpu, &err), 0);
    assert_true(kvm_event_queued(cpu));
    kvm_settle(cpu);
    assert_false(kvm_event_queued(cpu));
    assert_int_equal(lab->cpu->rip, STEP_HANDLER(0x50));
    assert_int_equal(step_stack(lab, 0), STEP_CODE);
}

/* ---- breakpoints ---- */
static void breakpoints_are_met_at_full_speed(void **state)
{
    struct step_lab *lab = lab_of(state);
    struct error err;
    if (!debug.ring0)
        skip();
    STEP_LOAD(lab, loop);
    lab->cpu->rip = HIGH + STEP_CODE;
    assert_int_equal(vmcs_break(&lab->vm, HIGH + STEP_CODE + 3, &err), 0);
    for (unsigned n = 1; n < 5; n++) {
        assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_BREAKPOINT);
        assert_int_equal(lab->cpu->rip, HIGH + STEP_CODE + 3);
        assert_int_equal(lab->vmcs->qualification, HIGH + STEP_CODE + 3);
        assert_int_equal(lab->cpu->r[RAX], n);
    }
    ran_on_kvm(lab, 4); /* those at the breakpoint, which an entry passes over */
    assert_int_equal(lab->cpu->dr[7], 0x400);
    vmcs_unbreak(&lab->vm, HIGH + STEP_CODE + 3);
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN);
    assert_int_equal(lab->cpu->r[RAX], 1000);
}

static void more_than_the_processor_has_are_met_all_the_same(void **state)
{
    struct step_lab *lab = lab_of(state);
    struct error err;
    STEP_LOAD(lab, loop);
    lab->cpu->rip = HIGH + STEP_CODE;
    for (unsigned n = 0; n < 5; n++)
        assert_int_equal(vmcs_break(&lab->vm, HIGH + 0x100000 + n, &err), 0);
    assert_int_equal(vmcs_break(&lab->vm, HIGH + STEP_CODE + 3, &err), 0);
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_BREAKPOINT);
    assert_int_equal(lab->vm.kvm->runs, 0);
    assert_int_equal(lab->cpu->r[RAX], 1);
}

STEP_ASM(traps, "pushf; orl $0x100, (%rsp); popf; nop; nop; hlt");
static void the_guests_own_trap_flag_stays_its_own(void **state)
{
    static const uint8_t counts[] = {
        0x48, 0xff, 0xc3, 0x81, 0x64, 0x24, 0x10,
        0xff, 0xfe, 0xff, 0xff, 0x48, 0xcf}; /* inc; andl $~TF, 16(%rsp); iretq */
    struct step_lab *lab = lab_of(state);
    struct error err;
    if (!debug.ring0)
        skip();
    STEP_LOAD(lab, traps);
    step_load(lab, STEP_HANDLER(EXC_DB), counts, counts + sizeof counts);
    assert_int_equal(vmcs_break(&lab->vm, HIGH + 0x100000, &err), 0); /* nobody comes there */
    lab->cpu->rip = HIGH + STEP_CODE;
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN);
    assert_int_equal(lab->cpu->r[RBX], 1);
    assert_int_equal(lab->cpu->dr[6] & DR6_BS, DR6_BS);
}

static void a_guest_with_breakpoints_of_its_own_has_them(void **state)
{
    static const uint8_t counts[] = {0x48, 0xff, 0xc3, 0x31, 0xc0, 0x0f,
                                     0x23, 0xf8, 0x48, 0xcf}; /* inc; xor; mov %rax, %dr7; iretq */
    struct step_lab *lab = lab_of(state);
    struct error err;
    STEP_LOAD(lab, halts);
    step_load(lab, STEP_HANDLER(EXC_DB), counts, counts + sizeof counts);
    lab->cpu->dr[0] = HIGH + STEP_CODE;
    lab->cpu->dr[7] = 0x402;
    lab->cpu->rip = HIGH + STEP_CODE;
    assert_int_equal(vmcs_break(&lab->vm, HIGH + 0x100000, &err), 0);
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN);
    assert_int_equal(lab->cpu->r[RBX], 1);
}

/* ---- the same code here, there, and half and half ---- */
static uint64_t seed = 0x2545f4914f6cdd1d;
static unsigned random_below(unsigned limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)((seed >> 16) % limit);
}

/* Instructions whose result is the same on every processor; DATA is in RSI. */
static size_t put_instruction(uint8_t *p)
{
    static const uint8_t two[] = {0x01, 0x29, 0x31, 0x11,
                                  0x19, 0x89, 0x39, 0x87}; /* add … xchg r, r */
    unsigned a = random_below(4), b = random_below(4);     /* RAX, RCX, RDX, RBX */
    switch (random_below(5)) {
    case 0:
    case 1:
        p[0] = 0x48, p[1] = two[random_below(sizeof two)], p[2] = (uint8_t)(0xc0 | a << 3 | b);
        return 3;
    case 2: /* to and from memory */
        p[0] = 0x48, p[1] = random_below(2) ? 0x89 : 0x03;
        p[2] = (uint8_t)(0x46 | a << 3), p[3] = (uint8_t)(8 * b);
        return 4;
    case 3: /* movups to and from */
        p[0] = 0x0f, p[1] = random_below(2) ? 0x10 : 0x11;
        p[2] = (uint8_t)(0x46 | a << 3), p[3] = (uint8_t)(16 * b);
        return 4;
    default:
        p[0] = (uint8_t)(0x50 | a), p[1] = (uint8_t)(0x58 | b); /* push, pop */
        return 2;
    }
}

static void put_code(struct step_lab *lab, unsigned instructions)
{
    uint8_t code[512];
    size_t length = 0;
    for (unsigned n = 0; n < instructions; n++)
        length += put_instruction(code + length);
    code[length++] = 0xf4;
    step_load(lab, STEP_CODE, code, code + length);
}

/* A run from the same start: so many instructions on the soft processor, the rest in KVM. */
static void run(struct step_lab *lab, const struct vcpu *start, uint64_t steps, struct vcpu *end,
                uint8_t data[64])
{
    const size_t size = offsetof(struct vcpu, activity) - offsetof(struct vcpu, segment);
    memcpy(lab->cpu->r, start->r, sizeof start->r);
    memcpy(&lab->cpu->segment, &start->segment, size);
    lab->cpu->rip = STEP_CODE;
    vcpu_set_rflags(lab->cpu, RFLAGS_ONE);
    memset(one_insn_at(lab->cpu, ONE_INSN_DATA), 0x3c, 64);
    lab->vm.shutdown = SHUTDOWN_NONE;
    lab->vmcs->activity = ACTIVITY_ACTIVE;
    lab->vmcs->single_step = true;
    for (uint64_t n = 0; n < steps && lab->vmcs->activity == ACTIVITY_ACTIVE; n++)
        assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_STEP);
    lab->vmcs->single_step = false;
    assert_int_equal(vm_enter(lab->vmcs), VMCS_EXIT_SHUTDOWN);
    memcpy(end, lab->cpu, sizeof *end);
    memcpy(data, one_insn_at(lab->cpu, ONE_INSN_DATA), 64);
}

static void same(const struct vcpu *a, const struct vcpu *b)
{
    assert_memory_equal(a->r, b->r, 16 * sizeof a->r[0]);
    assert_int_equal(a->rip, b->rip);
    assert_int_equal(vcpu_rflags(a), vcpu_rflags(b));
    assert_memory_equal(FPU_XMM(&a->fpu, 0), FPU_XMM(&b->fpu, 0), 256);
    assert_int_equal(a->cr0, b->cr0);
    assert_memory_equal(&a->segment[SEG_CS], &b->segment[SEG_CS], sizeof a->segment[0]);
}

static void the_same_code_does_the_same_on_each_side_and_across(void **state)
{
    enum { ROUNDS = 40, INSTRUCTIONS = 60 };
    struct step_lab *lab = lab_of(state);
    struct vcpu *copies = aligned_alloc(64, 4 * sizeof *copies);
    uint8_t data[3][64];
    for (unsigned round = 0; round < ROUNDS; round++) {
        put_code(lab, INSTRUCTIONS);
        memcpy(&copies[3], lab->cpu, sizeof copies[3]);
        for (unsigned n = 0; n < 4; n++)
            copies[3].r[n] = seed * (n + 3);
        copies[3].r[RSI] = ONE_INSN_DATA;
        copies[3].r[RSP] = STEP_STACK;
        run(lab, &copies[3], 1000, &copies[0], data[0]);
        run(lab, &copies[3], 0, &copies[1], data[1]);
        run(lab, &copies[3], random_below(INSTRUCTIONS), &copies[2], data[2]);
        same(&copies[0], &copies[1]);
        same(&copies[0], &copies[2]);
        assert_memory_equal(data[0], data[1], 64);
        assert_memory_equal(data[0], data[2], 64);
    }
    free(copies);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, open_lab, close_lab)
    const struct CMUnitTest tests[] = {
        T(an_entry_without_controls_is_kvms),
        T(steps_in_a_row_cost_no_ioctl),
        T(what_kvm_changes_the_soft_processor_sees),
        T(a_request_ends_it),
        T(a_triple_fault_is_an_exit_of_its_own),
        T(an_injected_event_arrives_then_kvm_goes_on),
        T(a_halted_guest_waits_for_its_nmi),
        T(an_interrupt_that_kvm_has_taken_is_not_lost),
        T(breakpoints_are_met_at_full_speed),
        T(more_than_the_processor_has_are_met_all_the_same),
        T(the_guests_own_trap_flag_stays_its_own),
        T(a_guest_with_breakpoints_of_its_own_has_them),
        T(the_same_code_does_the_same_on_each_side_and_across),
    };
    return cmocka_run_group_tests(tests, find_kvm, NULL);
}
