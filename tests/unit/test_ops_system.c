/* System instructions: checks, effects, what counts as an exit. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/cpuid.h"
#include "runtime/interrupts.h"
#include "runtime/soft/decode.h"
#include "runtime/soft/engine.h"
#include "runtime/stub.h"

#define NONCANONICAL 0x0000900000000000ull
#define UNMAPPED     0x7fff0000ull

extern const struct device_type lapic_device;
static uint64_t time_now;

static uint64_t tell_time(void *context)
{
    (void)context;
    return time_now;
}

static int make_machine(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    struct error err;
    time_now = 0x100000002;
    cpu->vm->clock.source = tell_time;
    cpu->vm->device[0] = lapic_device.create(cpu->vm, &err);
    assert_non_null(cpu->vm->device[0]);
    *state = cpu;
    return 0;
}

static int free_machine(void **state)
{
    struct vcpu *cpu = *state;
    lapic_device.destroy(cpu->vm->device[0]);
    one_insn_free(cpu);
    return 0;
}

static void put(struct vcpu *cpu, uint64_t address, uint64_t value, unsigned size)
{
    memcpy(one_insn_at(cpu, address), &value, size);
}

static uint64_t at(struct vcpu *cpu, uint64_t address, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, one_insn_at(cpu, address), size);
    return value;
}

/* The code is where every mode finds it, whatever the instruction before did. */
static struct one_insn_result run(struct vcpu *cpu, const uint8_t *bytes, size_t length)
{
    cpu->rip = ONE_INSN_CODE;
    return one_insn_run(cpu, bytes, length);
}

#define RUN(...)  run(cpu, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define RUNS(...) assert_false(RUN(__VA_ARGS__).fault)
#define FAULTS(vector_, ...)                                                                       \
    do {                                                                                           \
        struct one_insn_result r = RUN(__VA_ARGS__);                                               \
        assert_true(r.fault);                                                                      \
        assert_int_equal(r.vector, vector_);                                                       \
        assert_int_equal(r.error, 0);                                                              \
        assert_int_equal(cpu->rip, ONE_INSN_CODE);                                                 \
    } while (0)

/* mov %rax, %crN and back */
static struct one_insn_result write_cr(struct vcpu *cpu, unsigned number, uint64_t value)
{
    cpu->r[RAX] = value;
    return number == 8 ? RUN(0x44, 0x0f, 0x22, 0xc0)
                       : RUN(0x0f, 0x22, (uint8_t)(0xc0 | number << 3));
}
#define WRITES(number, value) assert_false(write_cr(cpu, number, value).fault)
#define REFUSES(number, value)                                                                     \
    do {                                                                                           \
        struct one_insn_result r = write_cr(cpu, number, value);                                   \
        assert_true(r.fault);                                                                      \
        assert_int_equal(r.vector, EXC_GP);                                                        \
    } while (0)

/* ---- control registers ---- */
static void control_registers_read_what_they_hold(void **state)
{
    struct vcpu *cpu = *state;
    cpu->cr2 = 0x123456789abcdef0;
    RUNS(0x0f, 0x20, 0xc3); /* mov %cr0, %rbx */
    assert_int_equal(cpu->r[RBX], cpu->cr0);
    RUNS(0x41, 0x0f, 0x20, 0xd7); /* mov %cr2, %r15 */
    assert_int_equal(cpu->r[R15], 0x123456789abcdef0);
    RUNS(0x0f, 0x20, 0xd8);
    assert_int_equal(cpu->r[RAX], ONE_INSN_PAGES);
    RUNS(0x0f, 0x20, 0xe0);
    assert_int_equal(cpu->r[RAX], cpu->cr4);
    WRITES(8, 5);
    cpu->r[RAX] = 0;
    RUNS(0x44, 0x0f, 0x20, 0xc0);
    assert_int_equal(cpu->r[RAX], 5);
    REFUSES(8, 16);
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->r[RAX] = ~0ull;
    RUNS(0x0f, 0x20, 0xd0);
    assert_int_equal(cpu->r[RAX], 0x9abcdef0);
}

static void control_registers_that_do_not_exist_are_undefined(void **state)
{
    struct vcpu *cpu = *state;
    FAULTS(EXC_UD, 0x0f, 0x20, 0xc8);       /* CR1 */
    FAULTS(EXC_UD, 0x0f, 0x22, 0xe8);       /* CR5 */
    FAULTS(EXC_UD, 0x44, 0x0f, 0x22, 0xc8); /* CR9 */
}

static void control_registers_belong_to_the_kernel(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0x0f, 0x20, 0xc0);
    FAULTS(EXC_GP, 0x0f, 0x22, 0xd8);
    FAULTS(EXC_GP, 0x0f, 0x06);       /* CLTS */
    FAULTS(EXC_GP, 0x0f, 0x01, 0xf0); /* LMSW */
}

static void cr0_refuses_what_makes_no_sense(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t cr0 = cpu->cr0;
    REFUSES(0, cr0 | 1ull << 32);
    REFUSES(0, cr0 & ~(uint64_t)CR0_PE);
    REFUSES(0, cr0 | CR0_NW);
    REFUSES(0, cr0 & ~(uint64_t)CR0_PG); /* in 64-bit mode */
    assert_int_equal(cpu->cr0, cr0);
    WRITES(0, cr0 | CR0_NW | CR0_CD);
    WRITES(0, (cr0 | 0x100) & ~(uint64_t)CR0_ET); /* ignored */
    assert_int_equal(cpu->cr0, cr0);
}

static void paging_turns_long_mode_on_and_off(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    cpu->efer |= EFER_LME;
    cpu->cr4 &= ~(uint64_t)CR4_PAE;
    REFUSES(0, cpu->cr0 | CR0_PG); /* without PAE */
    cpu->cr4 |= CR4_PAE;
    cpu->segment[SEG_CS].rights |= RIGHTS_L;
    REFUSES(0, cpu->cr0 | CR0_PG); /* CS.L would make it 64-bit mode at once */
    cpu->segment[SEG_CS].rights &= ~RIGHTS_L;
    assert_false(cpu->efer & EFER_LMA);
    WRITES(0, cpu->cr0 | CR0_PG);
    assert_true(vcpu_long_mode(cpu));
    assert_false(vcpu_code64(cpu));
    WRITES(4, cpu->cr4 | CR4_PCIDE);
    REFUSES(0, cpu->cr0 & ~(uint64_t)CR0_PG);
    WRITES(4, cpu->cr4 & ~(uint64_t)CR4_PCIDE);
    REFUSES(4, cpu->cr4 & ~(uint64_t)CR4_PAE);
    WRITES(0, cpu->cr0 & ~(uint64_t)CR0_PG);
    assert_false(vcpu_long_mode(cpu));
}

static void pae_paging_checks_its_four_entries(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_32, false);
    for (unsigned n = 0; n < 4; n++)
        put(cpu, ONE_INSN_DATA + 8 * n, (ONE_INSN_PAGES + 0x2000) | 1, 8);
    WRITES(3, ONE_INSN_DATA);
    put(cpu, ONE_INSN_DATA + 24, 0x1 | 0x2, 8); /* reserved */
    REFUSES(0, cpu->cr0 | CR0_PG);
    put(cpu, ONE_INSN_DATA + 24, 0x2, 8); /* not present: not looked at */
    WRITES(0, cpu->cr0 | CR0_PG);
    put(cpu, ONE_INSN_DATA + 24, 1ull << 50 | 1, 8);
    REFUSES(3, ONE_INSN_DATA);
    REFUSES(4, cpu->cr4 ^ CR4_PGE);
    put(cpu, ONE_INSN_DATA + 24, 0, 8);
    WRITES(3, ONE_INSN_DATA);
    WRITES(4, cpu->cr4 ^ CR4_PGE);
}

static void cr3_has_as_many_bits_as_addresses(void **state)
{
    struct vcpu *cpu = *state;
    REFUSES(3, ONE_INSN_PAGES | 1ull << 40);
    REFUSES(3, ONE_INSN_PAGES | 1ull << 63); /* without PCIDs */
    assert_int_equal(cpu->cr3, ONE_INSN_PAGES);
    WRITES(3, ONE_INSN_PAGES | 0x18);
    WRITES(3, ONE_INSN_PAGES);
    WRITES(4, cpu->cr4 | CR4_PCIDE);
    WRITES(3, ONE_INSN_PAGES | 1ull << 63 | 0x123);
    assert_int_equal(cpu->cr3, ONE_INSN_PAGES | 0x123);
    REFUSES(3, ONE_INSN_PAGES | 1ull << 62);
}

static void pcids_are_turned_on_with_an_empty_one(void **state)
{
    struct vcpu *cpu = *state;
    WRITES(3, ONE_INSN_PAGES | 1);
    REFUSES(4, cpu->cr4 | CR4_PCIDE);
    WRITES(3, ONE_INSN_PAGES);
    WRITES(4, cpu->cr4 | CR4_PCIDE);
    WRITES(3, ONE_INSN_PAGES | 1);
    WRITES(4, cpu->cr4 | CR4_PGE); /* it is on already */
    one_insn_mode(cpu, ONE_INSN_32, false);
    REFUSES(4, cpu->cr4 | CR4_PCIDE);
}

static void cr4_refuses_what_is_not_offered(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t cr4 = cpu->cr4;
    for (unsigned bit = 0; bit < 64; bit++)
        if (!(cpuid_cr4_mask() >> bit & 1))
            REFUSES(4, cr4 | 1ull << bit);
    assert_int_equal(cpu->cr4, cr4);
    WRITES(4, cpuid_cr4_mask());
    assert_int_equal(cpu->cr4, cpuid_cr4_mask());
}

/* A page that was writable and is not any more: only a flushed TLB notices. */
static void changes_of_paging_are_seen_at_once(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RSP] = ONE_INSN_STACK;
    RUNS(0x50);
    *one_insn_pte(cpu, ONE_INSN_STACK - 8) &= ~2ull;
    WRITES(3, ONE_INSN_PAGES);
    cpu->r[RSP] = ONE_INSN_STACK;
    assert_true(RUN(0x50).fault);
    WRITES(0, cpu->cr0 & ~(uint64_t)CR0_WP);
    RUNS(0x50);
    WRITES(0, cpu->cr0 | CR0_WP);
    cpu->r[RSP] = ONE_INSN_STACK;
    assert_true(RUN(0x50).fault);
}

static void the_machine_status_word_is_part_of_cr0(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t cr0 = cpu->cr0;
    cpu->r[RBX] = ~0ull;
    RUNS(0x0f, 0x01, 0xe3); /* smsw %ebx */
    assert_int_equal(cpu->r[RBX], (uint32_t)cr0);
    cpu->r[RBX] = ~0ull;
    RUNS(0x66, 0x0f, 0x01, 0xe3);
    assert_int_equal(cpu->r[RBX], 0xffffffffffff0000 | (uint16_t)cr0);
    RUNS(0x48, 0x0f, 0x01, 0xe3);
    assert_int_equal(cpu->r[RBX], cr0);
    put(cpu, ONE_INSN_DATA, ~0ull, 8);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0x01, 0x23); /* smsw (%rbx) */
    assert_int_equal(at(cpu, ONE_INSN_DATA, 8), 0xffffffffffff0000 | (uint16_t)cr0);
    cpu->r[RBX] = CR0_TS | CR0_EM | 0xfff0; /* PE stays */
    RUNS(0x0f, 0x01, 0xf3);
    assert_int_equal(cpu->cr0, (cr0 | CR0_TS | CR0_EM) & ~(uint64_t)CR0_MP);
    RUNS(0x0f, 0x06); /* clts */
    assert_int_equal(cpu->cr0, (cr0 | CR0_EM) & ~(uint64_t)CR0_MP);
    put(cpu, ONE_INSN_DATA, CR0_MP, 2);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0x01, 0x33);
    assert_int_equal(cpu->cr0, cr0 | CR0_MP);
}

static void lmsw_enters_protected_mode(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    cpu->r[RAX] = CR0_PE;
    RUNS(0x0f, 0x01, 0xf0);
    assert_true(vcpu_protected(cpu));
}

static void umip_hides_the_machine_status_word_from_users(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    RUNS(0x0f, 0x01, 0xe0);
    cpu->cr4 |= CR4_UMIP;
    FAULTS(EXC_GP, 0x0f, 0x01, 0xe0);
    one_insn_mode(cpu, ONE_INSN_64, false);
    cpu->cr4 |= CR4_UMIP;
    RUNS(0x0f, 0x01, 0xe0);
}

/* ---- debug registers ---- */
static void debug_registers_keep_what_is_defined(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0x123456789abc;
    RUNS(0x0f, 0x23, 0xd8); /* mov %rax, %dr3 */
    assert_int_equal(cpu->dr[3], 0x123456789abc);
    cpu->r[RAX] = 0xffffffff;
    RUNS(0x0f, 0x23, 0xf0);
    assert_int_equal(cpu->dr[6], 0xffffefff);
    cpu->r[RAX] = 0;
    RUNS(0x0f, 0x23, 0xf0);
    assert_int_equal(cpu->dr[6], 0xffff0ff0);
    RUNS(0x0f, 0x23, 0xf8);
    assert_int_equal(cpu->dr[7], 0x400);
    RUNS(0x0f, 0x21, 0xfb);
    assert_int_equal(cpu->r[RBX], 0x400);
    cpu->r[RAX] = 1ull << 32;
    FAULTS(EXC_GP, 0x0f, 0x23, 0xf0);
    FAULTS(EXC_GP, 0x0f, 0x23, 0xf8);
    RUNS(0x0f, 0x23, 0xc0);
    FAULTS(EXC_UD, 0x44, 0x0f, 0x23, 0xc0); /* DR8 */
}

static void dr4_and_dr5_are_aliases_unless_DE(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0xffff0ff1;
    RUNS(0x0f, 0x23, 0xe0);
    assert_int_equal(cpu->dr[6], 0xffff0ff1);
    RUNS(0x0f, 0x21, 0xe9); /* mov %dr5, %rcx */
    assert_int_equal(cpu->r[RCX], 0x400);
    cpu->cr4 |= CR4_DE;
    FAULTS(EXC_UD, 0x0f, 0x23, 0xe0);
    FAULTS(EXC_UD, 0x0f, 0x21, 0xe8);
}

static void general_detection_comes_before_the_access(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = DR7_GD;
    RUNS(0x0f, 0x23, 0xf8);
    cpu->r[RAX] = 7;
    FAULTS(EXC_DB, 0x0f, 0x23, 0xc0);
    assert_int_equal(cpu->fault.dr6, DR6_BD);
    assert_int_equal(cpu->dr[0], 0);
    FAULTS(EXC_DB, 0x0f, 0x21, 0xf0);
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0x0f, 0x21, 0xf0);
}

/* ---- MSRs, CPUID, the counter ---- */
static void msrs_move_through_EDX_and_EAX(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RCX] = 0xffffffffc0000082;
    cpu->r[RAX] = 0xffffffff12345678;
    cpu->r[RDX] = 0xffffffff00001234;
    RUNS(0x0f, 0x30);
    assert_int_equal(cpu->lstar, 0x123412345678);
    cpu->r[RAX] = cpu->r[RDX] = ~0ull;
    RUNS(0x0f, 0x32);
    assert_int_equal(cpu->r[RAX], 0x12345678);
    assert_int_equal(cpu->r[RDX], 0x1234);
    cpu->r[RCX] = 0x48;
    FAULTS(EXC_GP, 0x0f, 0x32);
    FAULTS(EXC_GP, 0x0f, 0x30);
    assert_int_equal(cpu->r[RAX], 0x12345678);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RCX] = 0xc0000082;
    FAULTS(EXC_GP, 0x0f, 0x32);
    FAULTS(EXC_GP, 0x0f, 0x30);
}

static void cpuid_answers_in_four_registers(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0xffffffff00000000;
    cpu->r[RCX] = cpu->r[RBX] = cpu->r[RDX] = ~0ull;
    RUNS(0x0f, 0xa2);
    struct cpuid_answer a = cpuid_answer(cpu, 0, 0);
    assert_int_equal(cpu->r[RAX], a.eax);
    assert_int_equal(cpu->r[RBX], a.ebx);
    assert_int_equal(cpu->r[RCX], a.ecx);
    assert_int_equal(cpu->r[RDX], a.edx);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RAX] = 0xd;
    cpu->r[RCX] = 1;
    RUNS(0x0f, 0xa2);
    assert_int_equal(cpu->r[RCX], 0);
}

static void the_counter_is_guest_time_with_its_offset(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = cpu->r[RDX] = cpu->r[RCX] = ~0ull;
    RUNS(0x0f, 0x31);
    assert_int_equal(cpu->r[RAX], 2);
    assert_int_equal(cpu->r[RDX], 1);
    cpu->tsc_offset = 0x10;
    cpu->tsc_aux = 0x42;
    RUNS(0x0f, 0x01, 0xf9);
    assert_int_equal(cpu->r[RAX], 0x12);
    assert_int_equal(cpu->r[RCX], 0x42);
    RUNS(0xf3, 0x0f, 0xc7, 0xf8);
    assert_int_equal(cpu->r[RAX], 0x42);
    one_insn_mode(cpu, ONE_INSN_64, true);
    RUNS(0x0f, 0x31);
    cpu->cr4 |= CR4_TSD;
    FAULTS(EXC_GP, 0x0f, 0x31);
    FAULTS(EXC_GP, 0x0f, 0x01, 0xf9);
    RUNS(0xf3, 0x0f, 0xc7, 0xf8);
}

static void four_performance_counters_stand_still(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RCX] = 3;
    RUNS(0x0f, 0x33);
    assert_int_equal(cpu->r[RAX] | cpu->r[RDX], 0);
    cpu->r[RCX] = 4;
    FAULTS(EXC_GP, 0x0f, 0x33);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RCX] = 0;
    FAULTS(EXC_GP, 0x0f, 0x33);
    cpu->cr4 |= CR4_PCE;
    RUNS(0x0f, 0x33);
}

/* ---- caches and the TLB ---- */
static void invlpg_forgets_a_page(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RSP] = ONE_INSN_STACK;
    RUNS(0x50);
    *one_insn_pte(cpu, ONE_INSN_STACK - 8) &= ~1ull;
    cpu->r[RBX] = ONE_INSN_STACK - 100;
    RUNS(0x0f, 0x01, 0x3b);
    cpu->r[RSP] = ONE_INSN_STACK;
    assert_true(RUN(0x50).fault);
    cpu->r[RBX] = NONCANONICAL; /* nothing to forget, and no fault */
    RUNS(0x0f, 0x01, 0x3b);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xfb); /* a register */
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0x0f, 0x01, 0x3b);
}

static void invpcid_checks_type_and_descriptor(void **state)
{
    struct vcpu *cpu = *state;
    put(cpu, ONE_INSN_DATA, 0, 8);
    put(cpu, ONE_INSN_DATA + 8, ONE_INSN_STACK, 8);
    cpu->r[RBX] = ONE_INSN_DATA;
#define INVPCID 0x66, 0x0f, 0x38, 0x82, 0x03
    for (cpu->r[RAX] = 0; cpu->r[RAX] < 4; cpu->r[RAX]++)
        RUNS(INVPCID);
    FAULTS(EXC_GP, INVPCID);
    put(cpu, ONE_INSN_DATA, 1, 8); /* a PCID, though there are none */
    for (cpu->r[RAX] = 0; cpu->r[RAX] < 2; cpu->r[RAX]++)
        FAULTS(EXC_GP, INVPCID);
    RUNS(INVPCID);
    WRITES(4, cpu->cr4 | CR4_PCIDE);
    for (cpu->r[RAX] = 0; cpu->r[RAX] < 4; cpu->r[RAX]++)
        RUNS(INVPCID);
    cpu->r[RAX] = 2;
    put(cpu, ONE_INSN_DATA, 0x1000, 8); /* reserved */
    FAULTS(EXC_GP, INVPCID);
    put(cpu, ONE_INSN_DATA, 1, 8);
    put(cpu, ONE_INSN_DATA + 8, NONCANONICAL, 8);
    RUNS(INVPCID);
    cpu->r[RAX] = 0;
    FAULTS(EXC_GP, INVPCID);
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, INVPCID);
}

static void cache_instructions_only_check(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0xae, 0x3b);       /* clflush */
    RUNS(0x66, 0x0f, 0xae, 0x3b); /* clflushopt */
    RUNS(0x66, 0x0f, 0xae, 0x33); /* clwb */
    RUNS(0x0f, 0x09);             /* wbinvd */
    RUNS(0x0f, 0x08);             /* invd */
    RUNS(0x0f, 0x18, 0x0b);       /* prefetcht0 */
    cpu->r[RBX] = UNMAPPED;
    assert_int_equal(RUN(0x0f, 0xae, 0x3b).vector, EXC_PF);
    assert_int_equal(cpu->fault.cr2, UNMAPPED);
    RUNS(0x0f, 0x18, 0x0b);
    RUNS(0x0f, 0x0d, 0x0b); /* prefetchw */
    cpu->r[RBX] = NONCANONICAL;
    FAULTS(EXC_GP, 0x0f, 0xae, 0x3b);
    one_insn_mode(cpu, ONE_INSN_64, true);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0xae, 0x3b);
    FAULTS(EXC_GP, 0x0f, 0x09);
    FAULTS(EXC_GP, 0x0f, 0x08);
}

/* ---- the rest ---- */
static void hlt_waits_and_only_in_the_kernel(void **state)
{
    struct vcpu *cpu = *state;
    RUNS(0xf4);
    assert_int_equal(cpu->activity, ACTIVITY_HLT);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 1);
    cpu->activity = ACTIVITY_ACTIVE;
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_GP, 0xf4);
    assert_int_equal(cpu->activity, ACTIVITY_ACTIVE);
}

static void stac_and_clac_change_AC_in_the_kernel(void **state)
{
    struct vcpu *cpu = *state;
    cpu->cr4 |= CR4_SMAP;
    vcpu_mode_changed(cpu);
    assert_int_equal(cpu->mode, TLB_KERNEL);
    RUNS(0x0f, 0x01, 0xcb);
    assert_true(cpu->rflags & RFLAGS_AC);
    assert_int_equal(cpu->mode, TLB_KERNEL_AC);
    RUNS(0x0f, 0x01, 0xca);
    assert_false(cpu->rflags & RFLAGS_AC);
    assert_int_equal(cpu->mode, TLB_KERNEL);
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xcb);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xca);
}

static void random_numbers_are_the_same_in_deterministic_runs(void **state)
{
    struct vcpu *cpu = *state;
    cpu->vm->config.deterministic = true;
    vcpu_set_rflags(cpu, RFLAGS_STATUS & ~RFLAGS_CF);
    RUNS(0x48, 0x0f, 0xc7, 0xf0);
    uint64_t first = cpu->r[RAX];
    assert_int_equal(vcpu_rflags(cpu), RFLAGS_CF | 2);
    RUNS(0x48, 0x0f, 0xc7, 0xf8);
    assert_int_not_equal(cpu->r[RAX], first);
    cpu->random = 0;
    RUNS(0x0f, 0xc7, 0xf0);
    assert_int_equal(cpu->r[RAX], (uint32_t)first);
    cpu->random = 0;
    cpu->r[RAX] = 0;
    RUNS(0x66, 0x0f, 0xc7, 0xf8);
    assert_int_equal(cpu->r[RAX], (uint16_t)first);
    cpu->vm->config.deterministic = false;
    RUNS(0x48, 0x0f, 0xc7, 0xf0);
    first = cpu->r[RAX];
    RUNS(0x48, 0x0f, 0xc7, 0xf0);
    assert_int_not_equal(cpu->r[RAX], first);
}

static void hypercalls_are_the_kernels_and_there_are_none(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 1;
    RUNS(0x0f, 0x01, 0xd9);
    assert_int_equal(cpu->r[RAX], (uint64_t)-1000);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xc1);
    one_insn_mode(cpu, ONE_INSN_64, true);
    FAULTS(EXC_UD, 0x0f, 0x01, 0xd9);
}

static void what_is_not_offered_is_undefined(void **state)
{
    struct vcpu *cpu = *state;
    FAULTS(EXC_UD, 0x0f, 0x0b);             /* ud2 */
    FAULTS(EXC_UD, 0x0f, 0xb9, 0x40, 0x02); /* ud1, a break without a stub */
    FAULTS(EXC_UD, 0x0f, 0xff, 0x00);       /* ud0 */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xc8);       /* monitor */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xc9);       /* mwait */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xd8);       /* vmrun */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xc2);       /* vmlaunch */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xcf);       /* encls */
    FAULTS(EXC_UD, 0x0f, 0x37);             /* getsec */
    FAULTS(EXC_UD, 0x0f, 0xaa);             /* rsm */
    FAULTS(EXC_UD, 0x0f, 0x01, 0xe8);       /* serialize */
}

static void hints_and_fences_do_nothing(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t before[16];
    memcpy(before, cpu->r, sizeof before);
    RUNS(0x90);
    RUNS(0xf3, 0x90);
    RUNS(0x0f, 0x1f, 0x80, 0, 0, 0, 0);
    RUNS(0xf3, 0x0f, 0x1e, 0xfa);       /* endbr64 */
    RUNS(0xf3, 0x0f, 0x1e, 0xc8);       /* rdsspd %eax */
    RUNS(0xf3, 0x48, 0x0f, 0x1e, 0xc8); /* rdsspq %rax */
    RUNS(0x0f, 0x1c, 0x00);             /* cldemote */
    RUNS(0x66, 0x0f, 0x1b, 0x00);       /* bndmov */
    RUNS(0x0f, 0xae, 0xe8);
    RUNS(0x0f, 0xae, 0xf0);
    RUNS(0x0f, 0xae, 0xf8);
    assert_memory_equal(before, cpu->r, sizeof before);
}

static void pause_gives_way_only_to_other_processors(void **state)
{
    struct vcpu *cpu = *state;
    cpu->vm->soft->slice = 1000000;
    RUNS(0xf3, 0x90);
    assert_true(cpu->budget > 0);
    cpu->vm->vcpu_count = 2;
    RUNS(0xf3, 0x90);
    assert_int_equal(cpu->budget, 0);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 2);
    assert_true(cpu->vm->soft->slice < 1000000); /* what is not used is not counted */
    cpu->vm->vcpu_count = 1;
}

/* hvstub.h, PV_BREAK_*. */
static void ud1_carries_the_index_of_a_break(void **state)
{
    static const struct {
        uint8_t bytes[15], aux;
        uint64_t index;
    } rows[] = {
        {{0x0f, 0xb9, 0x40, 0x02}, STUB_UD1_BREAK, 2},
        {{0x0f, 0xb9, 0x78, 0xff}, STUB_UD1_BREAK, 0x7ff},
        {{0x0f, 0xb9, 0x80, 0x78, 0x56, 0x34, 0xf2}, STUB_UD1_BREAK, 0xf2345678},
        {{0x0f, 0xb9, 0x81, 0x78, 0x56, 0x34, 0xf2}, STUB_UD1_BARE, 0xf2345678},
        {{0x0f, 0xb9, 0xcc}, STUB_UD1_PLAIN, 0},       /* two registers */
        {{0x0f, 0xb9, 0x41, 0x02}, STUB_UD1_PLAIN, 0}, /* another base */
        {{0x66, 0x0f, 0xb9, 0x40, 0x02}, STUB_UD1_PLAIN, 0},
        {{0x0f, 0xb9, 0x88, 1, 0, 0, 0}, STUB_UD1_PLAIN, 0},
        {{0x0f, 0xb9, 0x44, 0x24, 0x02}, STUB_UD1_PLAIN, 0},
    };
    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++) {
        struct insn i = {0};
        struct decoded d;
        assert_int_equal(decode_insn(*state, rows[n].bytes, 15, 0, &i, &d), DECODE_OK);
        assert_int_equal(i.aux, rows[n].aux);
        if (i.aux != STUB_UD1_PLAIN)
            assert_int_equal(i.imm, rows[n].index);
        assert_true(d.ends_block);
    }
}

static void exits_are_counted_by_kind(void **state)
{
    struct vcpu *cpu = *state;
    const uint64_t *exits = cpu->vm->stats.exits;
    RUNS(0x0f, 0xa2);
    assert_int_equal(exits[EXIT_KIND_CPUID], 1);
    cpu->r[RCX] = 0xc0000082;
    RUNS(0x0f, 0x32);
    cpu->r[RCX] = 0x48;
    assert_true(RUN(0x0f, 0x32).fault);
    assert_int_equal(exits[EXIT_KIND_MSR], 2);
    RUNS(0x0f, 0x09);
    RUN(0x0f, 0x33);
    assert_int_equal(exits[EXIT_KIND_OTHER_LISTED], 2);
    WRITES(3, ONE_INSN_PAGES);
    assert_int_equal(exits[EXIT_KIND_CR3], 1);
    WRITES(0, cpu->cr0);
    WRITES(2, 0);
    WRITES(8, 0);
    RUNS(0x0f, 0x20, 0xc0);
    assert_int_equal(exits[EXIT_KIND_CR], 2);
    RUNS(0x0f, 0x21, 0xf0);
    assert_int_equal(exits[EXIT_KIND_DR], 1);
    cpu->r[RBX] = ONE_INSN_DATA;
    RUNS(0x0f, 0x01, 0x3b);
    RUNS(0x0f, 0x31);
    RUNS(0xf4);
    assert_int_equal(exits[EXIT_KIND_HLT], 1);
    uint64_t counted = 0;
    for (unsigned n = 0; n < HOT_ADDRESSES; n++)
        counted += cpu->vm->stats.hot[n].count;
    assert_int_equal(counted, 5); /* those of "total" */
}

/* However many addresses exits come from, none is lost. */
static void addresses_that_find_no_place_count_as_0(void **state)
{
    struct stats *stats = &((struct vcpu *)*state)->vm->stats;
    for (uint64_t rip = 1; rip <= 3 * HOT_ADDRESSES; rip++)
        stats_exit(stats, EXIT_KIND_IO, rip * 4096);
    uint64_t counted = 0;
    for (unsigned n = 0; n < HOT_ADDRESSES; n++)
        counted += stats->hot[n].count;
    assert_int_equal(counted, 3 * HOT_ADDRESSES);
    assert_int_equal(stats->hot[0].address, 0);
    assert_true(stats->hot[0].count >= 2 * HOT_ADDRESSES);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_machine, free_machine)
    const struct CMUnitTest tests[] = {
        TEST(control_registers_read_what_they_hold),
        TEST(control_registers_that_do_not_exist_are_undefined),
        TEST(control_registers_belong_to_the_kernel),
        TEST(cr0_refuses_what_makes_no_sense),
        TEST(paging_turns_long_mode_on_and_off),
        TEST(pae_paging_checks_its_four_entries),
        TEST(cr3_has_as_many_bits_as_addresses),
        TEST(pcids_are_turned_on_with_an_empty_one),
        TEST(cr4_refuses_what_is_not_offered),
        TEST(changes_of_paging_are_seen_at_once),
        TEST(the_machine_status_word_is_part_of_cr0),
        TEST(lmsw_enters_protected_mode),
        TEST(umip_hides_the_machine_status_word_from_users),
        TEST(debug_registers_keep_what_is_defined),
        TEST(dr4_and_dr5_are_aliases_unless_DE),
        TEST(general_detection_comes_before_the_access),
        TEST(msrs_move_through_EDX_and_EAX),
        TEST(cpuid_answers_in_four_registers),
        TEST(the_counter_is_guest_time_with_its_offset),
        TEST(four_performance_counters_stand_still),
        TEST(invlpg_forgets_a_page),
        TEST(invpcid_checks_type_and_descriptor),
        TEST(cache_instructions_only_check),
        TEST(hlt_waits_and_only_in_the_kernel),
        TEST(stac_and_clac_change_AC_in_the_kernel),
        TEST(random_numbers_are_the_same_in_deterministic_runs),
        TEST(hypercalls_are_the_kernels_and_there_are_none),
        TEST(what_is_not_offered_is_undefined),
        TEST(hints_and_fences_do_nothing),
        TEST(pause_gives_way_only_to_other_processors),
        TEST(ud1_carries_the_index_of_a_break),
        TEST(exits_are_counted_by_kind),
        TEST(addresses_that_find_no_place_count_as_0),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
