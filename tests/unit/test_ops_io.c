/* SPDX-License-Identifier: MIT */
/* Port instructions: what reaches the bus, who may, and what a fault leaves behind. */
#include "tests/unit/one_insn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "hvstub/hvstub.h"

#define PORT     0x60u
#define UNMAPPED 0x7fff0000ull

/* A device that remembers. */
static struct {
    unsigned reads, writes;
    uint64_t offset, value;
    unsigned width;
    uint32_t answer;
} device;

static uint64_t device_read(void *context, uint64_t offset, unsigned width)
{
    (void)context;
    device.reads++;
    device.offset = offset;
    device.width = width;
    return width == 4 ? device.answer++ : device.answer++ & ((1u << 8 * width) - 1);
}

static void device_write(void *context, uint64_t offset, unsigned width, uint64_t value)
{
    (void)context;
    device.writes++;
    device.offset = offset;
    device.width = width;
    device.value = value;
}

static int make_vcpu(void **state)
{
    struct vcpu *cpu = one_insn_vcpu();
    struct error err;
    struct bus_window low = {
        .name = "test", .first = PORT, .count = 0xa0, .read = device_read, .write = device_write};
    struct bus_window high = {
        .name = "test", .first = 0x1230, .count = 16, .read = device_read, .write = device_write};
    assert_int_equal(bus_add_ports(&cpu->vm->bus, &low, &err), 0);
    assert_int_equal(bus_add_ports(&cpu->vm->bus, &high, &err), 0);
    memset(&device, 0, sizeof device);
    device.answer = 0x81828384;
    *state = cpu;
    return 0;
}

static int free_vcpu(void **state)
{
    one_insn_free(*state);
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

#define RUNS(...) assert_false(ONE_INSN(cpu, __VA_ARGS__).fault)
#define FAULTS(vector_, ...)                                                                       \
    do {                                                                                           \
        struct one_insn_result r = ONE_INSN(cpu, __VA_ARGS__);                                     \
        assert_true(r.fault);                                                                      \
        assert_int_equal(r.vector, vector_);                                                       \
    } while (0)
/* A repeated instruction: until RIP is behind it. */
#define REPEATS(...)                                                                               \
    do {                                                                                           \
        uint64_t behind = cpu->rip + sizeof((const uint8_t[]){__VA_ARGS__});                       \
        for (unsigned n = 0; n < 100 && cpu->rip != behind; n++)                                   \
            RUNS(__VA_ARGS__);                                                                     \
        assert_int_equal(cpu->rip, behind);                                                        \
    } while (0)

static void in_reads_into_the_accumulator(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = ~0ull;
    RUNS(0xe4, PORT);
    assert_int_equal(cpu->r[RAX], 0xffffffffffffff84);
    assert_int_equal(device.width, 1);
    cpu->r[RDX] = 0xffff1234;
    RUNS(0x66, 0xed);
    assert_int_equal(cpu->r[RAX], 0xffffffffffff8385);
    assert_int_equal(device.offset, 4);
    RUNS(0xed);
    assert_int_equal(cpu->r[RAX], 0x81828386);
    RUNS(0xe5, 0x40); /* nobody there */
    assert_int_equal(cpu->r[RAX], 0xffffffff);
}

static void out_writes_the_accumulator(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 0x1122334455667788;
    RUNS(0xe6, PORT + 1);
    assert_int_equal(device.value, 0x88);
    assert_int_equal(device.offset, 1);
    cpu->r[RDX] = 0x1230;
    RUNS(0x66, 0xef);
    assert_int_equal(device.value, 0x7788);
    RUNS(0xef);
    assert_int_equal(device.value, 0x55667788);
    assert_int_equal(device.width, 4);
    assert_int_equal(cpu->rip, ONE_INSN_CODE + 5);
    assert_int_equal(cpu->r[RAX], 0x1122334455667788);
}

static void every_access_is_an_exit(void **state)
{
    struct vcpu *cpu = *state;
    struct stats *stats = &cpu->vm->stats;
    RUNS(0xe4, PORT);
    RUNS(0xe6, PORT);
    cpu->r[RCX] = 3;
    cpu->r[RDX] = PORT;
    cpu->r[RSI] = ONE_INSN_DATA;
    REPEATS(0xf3, 0x6e);
    assert_int_equal(stats->exits[EXIT_KIND_IO], 5);
    assert_int_equal(stats->io_instructions, 3);
    assert_int_equal(stats->io_events, 5);
    uint64_t counted = 0;
    for (unsigned n = 0; n < HOT_ADDRESSES; n++) {
        counted += stats->hot[n].count;
        if (stats->hot[n].address == ONE_INSN_CODE + 4)
            assert_int_equal(stats->hot[n].count, 3);
    }
    assert_int_equal(counted, 5);
}

static void strings_move_between_memory_and_a_port(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RDX] = 0x1230;
    cpu->r[RDI] = ONE_INSN_DATA;
    RUNS(0x6d);
    assert_int_equal(at(cpu, ONE_INSN_DATA, 4), 0x81828384);
    assert_int_equal(cpu->r[RDI], ONE_INSN_DATA + 4);
    put(cpu, ONE_INSN_DATA + 8, 0xaabbccdd, 4);
    cpu->r[RSI] = ONE_INSN_DATA + 8;
    cpu->rflags |= RFLAGS_DF;
    RUNS(0x66, 0x6f);
    assert_int_equal(device.value, 0xccdd);
    assert_int_equal(cpu->r[RSI], ONE_INSN_DATA + 6);
}

static void outs_takes_a_segment_override_and_ins_does_not(void **state)
{
    struct vcpu *cpu = *state;
    cpu->segment[SEG_GS].base = cpu->base[SEG_GS] = 0x100;
    put(cpu, ONE_INSN_DATA + 0x100, 0x42, 1);
    cpu->r[RDX] = 0x1230;
    cpu->r[RSI] = ONE_INSN_DATA;
    RUNS(0x65, 0x6e);
    assert_int_equal(device.value, 0x42);
    cpu->r[RDI] = ONE_INSN_DATA;
    RUNS(0x65, 0x6c);
    assert_int_equal(at(cpu, ONE_INSN_DATA, 1), 0x84);
}

static void repeated_strings_count_down(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RDX] = 0x1230;
    cpu->r[RDI] = ONE_INSN_DATA;
    cpu->r[RCX] = 5;
    device.answer = 1;
    REPEATS(0xf3, 0x6c);
    assert_int_equal(cpu->r[RCX], 0);
    assert_int_equal(cpu->r[RDI], ONE_INSN_DATA + 5);
    assert_int_equal(at(cpu, ONE_INSN_DATA, 6), 0x000504030201);
    unsigned before = device.reads;
    REPEATS(0xf3, 0x6c); /* with RCX = 0: nothing */
    assert_int_equal(device.reads, before);
    /* 32-bit addresses: ECX and EDI */
    cpu->r[RCX] = 0xffffffff00000002;
    cpu->r[RDI] = 0x1234567800000000 | ONE_INSN_DATA;
    REPEATS(0x67, 0xf3, 0x6c);
    assert_int_equal(cpu->r[RCX], 0);
    assert_int_equal(cpu->r[RDI], ONE_INSN_DATA + 2);
}

static void a_fault_in_a_repeated_string_loses_nothing(void **state)
{
    struct vcpu *cpu = *state;
    uint64_t edge = ONE_INSN_DATA + 0x1000;
    *one_insn_pte(cpu, edge) &= ~1ull;
    one_insn_flush(cpu);
    cpu->r[RDX] = 0x1230;
    cpu->r[RDI] = edge - 2;
    cpu->r[RCX] = 4;
    device.answer = 1;
    RUNS(0xf3, 0x6c);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
    RUNS(0xf3, 0x6c);
    FAULTS(EXC_PF, 0xf3, 0x6c);
    assert_int_equal(cpu->rip, ONE_INSN_CODE);
    assert_int_equal(cpu->r[RCX], 2);
    assert_int_equal(cpu->r[RDI], edge);
    assert_int_equal(device.reads, 2);
    *one_insn_pte(cpu, edge) |= 1;
    one_insn_flush(cpu);
    REPEATS(0xf3, 0x6c);
    assert_int_equal(at(cpu, edge - 2, 4), 0x04030201);
    cpu->r[RSI] = UNMAPPED;
    cpu->r[RCX] = 4;
    FAULTS(EXC_PF, 0xf3, 0x6e);
    assert_int_equal(device.writes, 0);
    assert_int_equal(cpu->r[RCX], 4);
}

/* ---- permission ---- */
static void the_kernel_needs_no_permission(void **state)
{
    struct vcpu *cpu = *state;
    cpu->segment[SEG_TR].limit = 0;
    RUNS(0xe4, PORT);
    one_insn_mode(cpu, ONE_INSN_REAL, false);
    RUNS(0xe4, PORT);
}

static void above_IOPL_the_bitmap_decides(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    put(cpu, ONE_INSN_TSS + 102, 0x80, 2);
    memset(one_insn_at(cpu, ONE_INSN_TSS + 0x80), 0xff, 0xf00);
    FAULTS(EXC_GP, 0xe4, PORT);
    FAULTS(EXC_GP, 0xe6, PORT);
    assert_int_equal(device.reads + device.writes, 0);
    assert_int_equal(cpu->vm->stats.exits[EXIT_KIND_IO], 0);
    put(cpu, ONE_INSN_TSS + 0x80 + PORT / 8, 0xfe, 1);
    RUNS(0xe4, PORT);
    FAULTS(EXC_GP, 0xe4, PORT + 1);
    FAULTS(EXC_GP, 0x66, 0xe5, PORT); /* two ports, one allowed */
    put(cpu, ONE_INSN_TSS + 0x80 + PORT / 8, 0x7f, 1);
    FAULTS(EXC_GP, 0x66, 0xe5, PORT + 7); /* the second is in the next byte */
    put(cpu, ONE_INSN_TSS + 0x81 + PORT / 8, 0xfe, 1);
    RUNS(0x66, 0xe5, PORT + 7);
    cpu->rflags |= RFLAGS_IOPL;
    RUNS(0xe4, PORT + 1);
}

static void a_bitmap_beyond_the_limit_allows_nothing(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_64, true);
    memset(one_insn_at(cpu, ONE_INSN_TSS), 0, 0x1000);
    put(cpu, ONE_INSN_TSS + 102, 0x80, 2);
    cpu->segment[SEG_TR].limit = 0x80 + PORT / 8;
    FAULTS(EXC_GP, 0xe4, PORT); /* the byte behind must be there too */
    cpu->segment[SEG_TR].limit++;
    RUNS(0xe4, PORT);
    cpu->segment[SEG_TR].limit = 102;
    FAULTS(EXC_GP, 0xe4, PORT);
    cpu->segment[SEG_TR].limit = 0xfff;
    cpu->segment[SEG_TR].rights = RIGHTS_UNUSABLE;
    FAULTS(EXC_GP, 0xe4, PORT);
    cpu->segment[SEG_TR].rights = 0x83; /* a 16-bit TSS has none */
    FAULTS(EXC_GP, 0xe4, PORT);
}

static void virtual_8086_mode_asks_the_bitmap_even_with_IOPL_3(void **state)
{
    struct vcpu *cpu = *state;
    one_insn_mode(cpu, ONE_INSN_V86, false);
    put(cpu, ONE_INSN_TSS + 102, 0x80, 2);
    memset(one_insn_at(cpu, ONE_INSN_TSS + 0x80), 0xff, 0xf00);
    FAULTS(EXC_GP, 0xe4, PORT);
    put(cpu, ONE_INSN_TSS + 0x80 + PORT / 8, 0, 1);
    RUNS(0xe4, PORT);
}

/* ---- the doorbell ---- */
static void the_doorbell_is_a_port_like_others_without_a_stub(void **state)
{
    struct vcpu *cpu = *state;
    cpu->r[RAX] = 7;
    RUNS(0xe7, PV_DOORBELL_PORT);
    assert_int_equal(device.value, 7);
    assert_int_equal(device.offset, PV_DOORBELL_PORT - PORT);
    one_insn_mode(cpu, ONE_INSN_64, true);
    put(cpu, ONE_INSN_TSS + 102, 0xffff, 2); /* no bitmap */
    FAULTS(EXC_GP, 0xe7, PV_DOORBELL_PORT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_vcpu, free_vcpu)
    const struct CMUnitTest tests[] = {
        TEST(in_reads_into_the_accumulator),
        TEST(out_writes_the_accumulator),
        TEST(every_access_is_an_exit),
        TEST(strings_move_between_memory_and_a_port),
        TEST(outs_takes_a_segment_override_and_ins_does_not),
        TEST(repeated_strings_count_down),
        TEST(a_fault_in_a_repeated_string_loses_nothing),
        TEST(the_kernel_needs_no_permission),
        TEST(above_IOPL_the_bitmap_decides),
        TEST(a_bitmap_beyond_the_limit_allows_nothing),
        TEST(virtual_8086_mode_asks_the_bitmap_even_with_IOPL_3),
        TEST(the_doorbell_is_a_port_like_others_without_a_stub),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
