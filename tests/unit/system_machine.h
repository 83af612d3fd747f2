/* SPDX-License-Identifier: MIT */
/* What the tests of system instructions share: a vCPU with a local APIC and a clock, and ways to run and expect. To be
 * included behind one_insn.h and cmocka.h. */
#ifndef TESTS_SYSTEM_MACHINE_H
#define TESTS_SYSTEM_MACHINE_H

#define NONCANONICAL 0x0000900000000000ull
#define UNMAPPED     0x7fff0000ull

extern const struct device_type lapic_device;
static uint64_t time_now; /* what the clock says */

static inline uint64_t tell_time(void *context)
{
    (void)context;
    return time_now;
}

static inline int make_machine(void **state)
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

static inline int free_machine(void **state)
{
    struct vcpu *cpu = *state;
    lapic_device.destroy(cpu->vm->device[0]);
    one_insn_free(cpu);
    return 0;
}

static inline void put(struct vcpu *cpu, uint64_t address, uint64_t value, unsigned size)
{
    memcpy(one_insn_at(cpu, address), &value, size);
}

static inline uint64_t at(struct vcpu *cpu, uint64_t address, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, one_insn_at(cpu, address), size);
    return value;
}

/* The code is where every mode finds it, whatever the instruction before did. */
static inline struct one_insn_result run(struct vcpu *cpu, const uint8_t *bytes, size_t length)
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
static inline struct one_insn_result write_cr(struct vcpu *cpu, unsigned number, uint64_t value)
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

#endif
