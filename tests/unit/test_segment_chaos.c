/* SPDX-License-Identifier: MIT */
/* Segment instructions and events on tables full of random descriptors: whatever they do, a fault leaves the processor
 * as it was, and nothing breaks its invariants. */
#include "tests/unit/one_insn.h"

#include "runtime/soft/events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define ROUNDS 60000
#define LDT    0x5000u

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static uint64_t below(uint64_t limit)
{
    return (random_bits() >> 11) % limit;
}

static uint16_t random_selector(void)
{
    return (uint16_t)(below(32) == 0 ? random_bits() : (below(24) << 3 | below(8)));
}

/* Mostly something a processor could take: present, a sensible size, any type. */
static uint64_t random_descriptor(void)
{
    static const uint64_t shapes[] = {0x00af9a000000ffff, 0x00cf9a000000ffff, 0x00cf92000000ffff,
                                      0x00009a000000ffff, 0x0000890000000fff, 0x00008200000000ff,
                                      0x00008c0000000000, 0x0000850000000000, 0x00008e0000000000};
    uint64_t d = shapes[below(sizeof shapes / sizeof *shapes)];
    if (below(3) == 0)
        d ^= 1ull << (40 + below(16));
    if (below(3) == 0)
        d |= below(4) << 45;
    unsigned type = d >> 40 & 0x1f;
    if (type == TYPE_TSS || type == TYPE_TSS_BUSY)
        return d | (uint64_t)ONE_INSN_TSS << 16;
    if (type == TYPE_LDT)
        return d | (uint64_t)LDT << 16;
    if (type < 0x10)
        return d | (uint64_t)random_selector() << 16 | below(0x10000) | below(4) << 32;
    return below(8) == 0 ? d | (random_bits() & 0xff00ffffff0000) : d;
}

static void random_tables(struct vcpu *cpu)
{
    for (unsigned n = 1; n < 24; n++)
        if (n > 10 || below(4) == 0)
            one_insn_put(cpu, ONE_INSN_GDT + 8 * n, 8, random_descriptor());
    for (unsigned n = 0; n < 64; n++)
        one_insn_put(cpu, ONE_INSN_IDT + 8 * n, 8, random_descriptor());
    for (unsigned n = 0; n < 24; n++)
        one_insn_put(cpu, LDT + 8 * n, 8, random_descriptor());
    for (unsigned n = 0; n < 104; n += 4)
        one_insn_put(cpu, ONE_INSN_TSS + n, 4,
                     n >= 72 || n == 8 || n == 0 ? random_selector() : below(0x50000));
    for (unsigned n = 0; n < 256; n += 8)
        one_insn_put(cpu, ONE_INSN_STACK - 128 + n, 8,
                     below(2) ? random_selector()
                              : random_bits() >> (below(8) == 0 ? 0 : 44 + below(20)));
    for (unsigned n = 0; n < 64; n++)
        one_insn_put(cpu, ONE_INSN_DATA + n, 1, random_bits() & 0xff);
    one_insn_put(cpu, ONE_INSN_DATA + 2 * below(8), 2, random_selector());
}

static void random_processor(struct vcpu *cpu)
{
    one_insn_mode(cpu, (enum one_insn_mode)below(6), below(2));
    for (unsigned n = 0; n < 16; n++)
        cpu->r[n] = below(2) ? random_selector() : random_bits();
    cpu->r[RBX] = ONE_INSN_DATA;
    cpu->r[RSP] = ONE_INSN_STACK - 8 * below(16);
    cpu->rip = ONE_INSN_CODE;
    cpu->star = random_bits();
    cpu->sysenter_cs = random_selector();
    cpu->idt_limit = (uint16_t)below(0x200);
    cpu->segment[SEG_LDTR] =
        (struct segment){.selector = 8, .rights = 0x82, .base = LDT, .limit = 24 * 8 - 1};
    cpu->rflags |= random_bits() & (RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_IOPL);
    if (below(16) == 0)
        cpu->rflags |= RFLAGS_NT;
    if (below(16) == 0)
        cpu->segment[SEG_TR].limit = (uint32_t)below(0x70);
    if (below(16) == 0 && cpu->cr0 & CR0_PG) {
        uint64_t page = below(0x32);
        if (page != ONE_INSN_CODE >> PAGE_SHIFT)
            *one_insn_pte(cpu, page << PAGE_SHIFT) &= ~(uint64_t)(1 + below(3));
    }
    one_insn_flush(cpu);
    vcpu_mode_changed(cpu);
}

static void repair_pages(struct vcpu *cpu)
{
    for (uint64_t page = 0; page < ONE_INSN_RAM >> PAGE_SHIFT; page++)
        *one_insn_pte(cpu, page << PAGE_SHIFT) = page << PAGE_SHIFT | 0x67;
}

struct before {
    uint64_t r[REGS], rip, rflags, cr0, cr3;
    struct segment segment[SEGS];
    uint8_t cpl;
};

static struct before remember(const struct vcpu *cpu)
{
    struct before b = {.rip = cpu->rip,
                       .rflags = vcpu_rflags(cpu),
                       .cr0 = cpu->cr0,
                       .cr3 = cpu->cr3,
                       .cpl = cpu->cpl};
    memcpy(b.r, cpu->r, sizeof b.r);
    memcpy(b.segment, cpu->segment, sizeof b.segment);
    return b;
}

static void assert_same(const struct vcpu *cpu, const struct before *b)
{
    assert_memory_equal(cpu->r, b->r, sizeof b->r);
    for (unsigned n = 0; n < SEGS; n++) {
        assert_int_equal(cpu->segment[n].selector, b->segment[n].selector);
        assert_int_equal(cpu->segment[n].rights, b->segment[n].rights);
        assert_int_equal(cpu->segment[n].base, b->segment[n].base);
        assert_int_equal(cpu->segment[n].limit, b->segment[n].limit);
    }
    assert_int_equal(cpu->rip, b->rip);
    assert_int_equal(vcpu_rflags(cpu), b->rflags);
    assert_int_equal(cpu->cr0, b->cr0);
    assert_int_equal(cpu->cr3, b->cr3);
    assert_int_equal(cpu->cpl, b->cpl);
}

static void assert_sane(const struct vcpu *cpu)
{
    assert_int_equal(cpu->r[REG_ZERO], 0);
    assert_true(cpu->cpl <= 3);
    assert_ptr_equal(cpu->tlb == tlb_none ? cpu->tlb_table[cpu->mode] : cpu->tlb,
                     cpu->tlb_table[cpu->mode]);
    assert_int_equal(cpu->mode == TLB_USER, cpu->cpl == 3);
    if (vcpu_v86(cpu))
        assert_int_equal(cpu->cpl, 3);
    if (vcpu_code64(cpu))
        assert_true(canonical(cpu->rip) || cpu->cpl == 3);
}

static struct one_insn_result random_instruction(struct vcpu *cpu)
{
    uint8_t low = (uint8_t)below(256), high = (uint8_t)below(256);
    uint8_t segment = (uint8_t)(0x03 | below(6) << 3);
    uint8_t size = (uint8_t)(vcpu_code64(cpu) ? 0x48 : 0x66);
    uint8_t table = (uint8_t)(0x03 | below(6) << 3);
    switch (below(14)) {
    case 0:
        return ONE_INSN(cpu, 0xcf);
    case 1:
        return ONE_INSN(cpu, size, 0xcf);
    case 2:
        return ONE_INSN(cpu, 0xcb);
    case 3:
        return ONE_INSN(cpu, size, 0xca, low, 0);
    case 4:
        return ONE_INSN(cpu, 0xff, (uint8_t)(below(2) ? 0x2b : 0x1b));
    case 5:
        return ONE_INSN(cpu, 0xcd, low);
    case 6:
        return ONE_INSN(cpu, 0x8e, segment);
    case 7:
        return ONE_INSN(cpu, 0x0f, 0x00, table);
    case 8:
        return ONE_INSN(cpu, 0x0f, (uint8_t)(0x02 + below(2)), 0x0b);
    case 9:
        return ONE_INSN(cpu, 0x0f, (uint8_t)(0x05 + 2 * below(2)));
    case 10:
        return ONE_INSN(cpu, 0x0f, (uint8_t)(0x34 + below(2)));
    case 11:
        return ONE_INSN(cpu, 0x0f, (uint8_t)(0xb2 + below(4)), 0x03);
    case 12:
        if (vcpu_code64(cpu))
            return ONE_INSN(cpu, 0x48, 0xff, (uint8_t)(below(2) ? 0x2b : 0x1b));
        return ONE_INSN(cpu, (uint8_t)(below(2) ? 0xea : 0x9a), low, high, (uint8_t)below(0xc0), 0,
                        (uint8_t)below(0xc0), 0);
    default:
        return ONE_INSN(cpu, size, 0x0f, 0x07);
    }
}

static void quiet(struct vcpu *cpu)
{
    cpu->vm->shutdown = SHUTDOWN_NONE;
    cpu->activity = ACTIVITY_ACTIVE;
    cpu->pending_db = 0;
    cpu->shadow = 0;
    repair_pages(cpu);
}

static void instructions_that_fault_change_nothing(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    unsigned done = 0, faults = 0;
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        random_tables(cpu);
        random_processor(cpu);
        struct before before = remember(cpu);
        struct one_insn_result r = random_instruction(cpu);
        assert_sane(cpu);
        if (r.fault) {
            faults++;
            assert_same(cpu, &before);
        } else {
            done++;
        }
        quiet(cpu);
    }
    /* a test that only ever sees one of the two proves nothing */
    assert_true(done > ROUNDS / 20);
    assert_true(faults > ROUNDS / 20);
    one_insn_free(cpu);
}

struct request {
    enum event_type type;
    int vector;
    bool has_error;
};

static void deliver_once(struct vcpu *cpu, void *context)
{
    const struct request *request = context;
    event_deliver_once(cpu, request->type, request->vector, request->has_error, 0x55);
}

static void events_that_cannot_be_delivered_change_nothing(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    unsigned done = 0, faults = 0;
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct request request = {(enum event_type)below(6), (int)below(36), below(2)};
        random_tables(cpu);
        random_processor(cpu);
        struct before before = remember(cpu);
        uint16_t task = cpu->segment[SEG_TR].selector;
        struct one_insn_result r = one_insn_catch(cpu, deliver_once, &request);
        assert_sane(cpu);
        if (r.fault)
            faults++;
        else
            done++;
        /* what fails in a new task is reported there */
        if (r.fault && cpu->segment[SEG_TR].selector == task && !(cpu->cr0 & CR0_TS))
            assert_same(cpu, &before);
        quiet(cpu);
    }
    assert_true(done > ROUNDS / 20);
    assert_true(faults > ROUNDS / 20);
    one_insn_free(cpu);
}

int main(void)
{
    /* tasks that cannot start end in triple faults, each with its register dump */
    if (!freopen("/dev/null", "w", stderr))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(instructions_that_fault_change_nothing),
        cmocka_unit_test(events_that_cannot_be_delivered_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
