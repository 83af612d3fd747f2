/* SPDX-License-Identifier: MIT */
/* Registers of a vCPU as gdb reads and writes them. */
#include "runtime/gdb_registers.h"

#include <string.h>

#include "runtime/cpuid.h"
#include "runtime/gdb_server.h"
#include "runtime/soft/events.h"
#include "runtime/soft/system.h"

#define MSR_EFER 0xc0000080u

/* ---- x87: the FXSAVE image (SDM 1 10.5.1) has what gdb wants, the tag word apart ---- */
enum { X87_CONTROL, X87_STATUS, X87_TAG, X87_FISEG, X87_FIOFF, X87_FOSEG, X87_FOOFF, X87_OPCODE };
static const struct {
    uint8_t offset, size;
} x87_place[] = {
    [X87_CONTROL] = {0, 2}, [X87_STATUS] = {2, 2}, [X87_TAG] = {4, 1},    [X87_FISEG] = {12, 2},
    [X87_FIOFF] = {8, 4},   [X87_FOSEG] = {20, 2}, [X87_FOOFF] = {16, 4}, [X87_OPCODE] = {6, 2},
};

/* Two bits a physical register: valid, zero, special, empty (SDM 1 8.1.7). FXSAVE keeps one: not
 * empty. */
static uint32_t x87_tags(const struct fpu *fpu)
{
    uint32_t tags = 0;
    unsigned top = fpu->legacy[3] >> 3 & 7;
    for (unsigned physical = 0; physical < 8; physical++) {
        const uint8_t *st = fpu->legacy + 32 + 16 * ((physical - top) & 7);
        uint64_t significand;
        uint16_t exponent;
        memcpy(&significand, st, 8);
        memcpy(&exponent, st + 8, 2);
        exponent &= 0x7fff;
        unsigned tag = 0;
        if (!(fpu->legacy[4] >> physical & 1))
            tag = 3;
        else if (exponent == 0 && significand == 0)
            tag = 1;
        else if (exponent == 0 || exponent == 0x7fff || !(significand >> 63))
            tag = 2;
        tags |= tag << 2 * physical;
    }
    return tags;
}

static uint32_t x87_get(const struct fpu *fpu, unsigned index)
{
    uint32_t value = 0;
    if (index == X87_TAG)
        return x87_tags(fpu);
    memcpy(&value, fpu->legacy + x87_place[index].offset, x87_place[index].size);
    return value;
}

static void x87_set(struct fpu *fpu, unsigned index, uint32_t value)
{
    if (index == X87_TAG) {
        uint32_t full = value;
        value = 0;
        for (unsigned n = 0; n < 8; n++)
            value |= (full >> 2 * n & 3) != 3 ? 1u << n : 0;
    }
    memcpy(fpu->legacy + x87_place[index].offset, &value, x87_place[index].size);
}

/* ---- reading ---- */
static uint64_t get_number(const struct vcpu *cpu, const struct gdb_register *reg)
{
    switch (reg->kind) {
    case GDB_GENERAL:
        return cpu->r[reg->index];
    case GDB_RIP:
        return cpu->rip;
    case GDB_RFLAGS:
        return vcpu_rflags(cpu);
    case GDB_SELECTOR:
        return cpu->segment[reg->index].selector;
    case GDB_X87:
        return x87_get(&cpu->fpu, reg->index);
    case GDB_MXCSR:
        return FPU_MXCSR(&cpu->fpu);
    case GDB_BASE:
        return cpu->segment[reg->index].base;
    case GDB_KERNEL_GS:
        return cpu->kernel_gs_base;
    case GDB_CONTROL:
        return control_read((struct vcpu *)cpu, reg->index);
    default:
        return cpu->efer;
    }
}

/* Where a register wider than 64 bits stands. */
static uint8_t *wide(struct fpu *fpu, const struct gdb_register *reg)
{
    switch (reg->kind) {
    case GDB_ST:
        return fpu->legacy + 32 + 16 * reg->index;
    case GDB_XMM:
        return FPU_XMM(fpu, reg->index);
    default:
        return fpu->ymm_high[reg->index];
    }
}

/* The value, reg->bits / 8 bytes, least significant first. */
static void gdb_register_get(const struct vcpu *cpu, const struct gdb_register *reg, uint8_t *bytes)
{
    uint64_t number;
    if (reg->bits > 64) {
        memcpy(bytes, wide((struct fpu *)&cpu->fpu, reg), reg->bits / 8);
        return;
    }
    number = get_number(cpu, reg);
    memcpy(bytes, &number, reg->bits / 8);
}

/* ---- writing ---- */
struct segment_write {
    int segment;
    uint16_t selector;
};

static void load_segment(struct vcpu *cpu, void *context)
{
    const struct segment_write *write = context;
    segment_load(cpu, NULL, write->segment, write->selector);
}

/* As MOV to a segment register does, checks included; CS is not loaded that way. */
static bool set_selector(struct vcpu *cpu, unsigned index, uint64_t value)
{
    struct segment_write write = {(int)index, (uint16_t)value};
    if (value == cpu->segment[index].selector)
        return true;
    if (index == SEG_CS || value > 0xffff)
        return false;
    if (!vcpu_protected(cpu) || vcpu_v86(cpu)) {
        segment_set_real(cpu, write.segment, write.selector);
    } else {
        int before = cpu->fault.vector;
        bool raised = cpu_catch(cpu, load_segment, &write);
        cpu->fault.vector = before;
        if (raised)
            return false;
    }
    vcpu_mode_changed(cpu);
    return true;
}

static bool set_base(struct vcpu *cpu, unsigned index, uint64_t value)
{
    if (!canonical(value))
        return false;
    cpu->segment[index].base = value;
    vcpu_mode_changed(cpu);
    return true;
}

static bool set_number(struct vcpu *cpu, const struct gdb_register *reg, uint64_t value)
{
    switch (reg->kind) {
    case GDB_GENERAL:
        cpu->r[reg->index] = value;
        return true;
    case GDB_RIP:
        cpu->rip = value;
        return true;
    case GDB_RFLAGS:
        vcpu_set_rflags(cpu, value);
        return true;
    case GDB_SELECTOR:
        return set_selector(cpu, reg->index, value);
    case GDB_X87:
        x87_set(&cpu->fpu, reg->index, (uint32_t)value);
        cpu->fpu.header[0] |= XSTATE_X87;
        return true;
    case GDB_MXCSR:
        if (value & ~0xffffull) /* LDMXCSR raises #GP */
            return false;
        FPU_MXCSR(&cpu->fpu) = (uint32_t)value;
        cpu->fpu.header[0] |= XSTATE_SSE;
        return true;
    case GDB_BASE:
        return set_base(cpu, reg->index, value);
    case GDB_KERNEL_GS:
        if (!canonical(value))
            return false;
        cpu->kernel_gs_base = value;
        return true;
    case GDB_CONTROL:
        return value == control_read(cpu, reg->index) || control_write(cpu, reg->index, value);
    default:
        return value == cpu->efer || msr_write(cpu, MSR_EFER, value);
    }
}

/* False, with nothing changed: the register cannot have this value. */
static bool gdb_register_set(struct vcpu *cpu, const struct gdb_register *reg, const uint8_t *bytes)
{
    static const uint8_t component[] = {
        [GDB_ST] = XSTATE_X87, [GDB_XMM] = XSTATE_SSE, [GDB_YMM_HIGH] = XSTATE_AVX};
    uint64_t number = 0;
    if (reg->bits <= 64) {
        memcpy(&number, bytes, reg->bits / 8);
        return set_number(cpu, reg, number);
    }
    memcpy(wide(&cpu->fpu, reg), bytes, reg->bits / 8);
    cpu->fpu.header[0] |= component[reg->kind];
    return true;
}

/* ---- packets ---- */
static void put(struct gdb *gdb, const struct vcpu *cpu, const struct gdb_register *reg)
{
    uint8_t bytes[GDB_REGISTER_MAX];
    gdb_register_get(cpu, reg, bytes);
    gdb_put_hex(&gdb->output, bytes, reg->bits / 8);
}

void gdb_read_registers(struct gdb *gdb, const char *args, size_t length)
{
    const struct gdb_feature *features[GDB_FEATURES_MAX];
    unsigned count = gdb_features(features);
    (void)args;
    (void)length;
    for (unsigned n = 0; n < count; n++)
        for (unsigned k = 0; k < features[n]->count; k++)
            put(gdb, gdb_vcpu(gdb), &features[n]->registers[k]);
}

/* GXX…: as many as there are. One that cannot have its value is left alone, and told of. */
void gdb_write_registers(struct gdb *gdb, const char *args, size_t length)
{
    uint8_t bytes[GDB_REGISTER_MAX];
    bool good = true;
    (void)length;
    const struct gdb_register *reg;
    for (unsigned n = 0; (reg = gdb_register(n)) && *args; n++) {
        if (!gdb_unhex(&args, bytes, reg->bits / 8)) {
            gdb_error(gdb, GDB_BAD_PACKET);
            return;
        }
        good &= gdb_register_set(gdb_vcpu(gdb), reg, bytes);
    }
    if (good)
        gdb_ok(gdb);
    else
        gdb_error(gdb, GDB_BAD_VALUE);
}

void gdb_read_register(struct gdb *gdb, const char *args, size_t length)
{
    uint64_t number;
    (void)length;
    const struct gdb_register *reg = NULL;
    if (gdb_number_then(&args, &number, '\0') && number < 1000)
        reg = gdb_register((unsigned)number);
    if (reg)
        put(gdb, gdb_vcpu(gdb), reg);
    else
        gdb_error(gdb, GDB_BAD_PACKET);
}

void gdb_write_register(struct gdb *gdb, const char *args, size_t length)
{
    uint64_t number;
    uint8_t bytes[GDB_REGISTER_MAX];
    (void)length;
    const struct gdb_register *reg = NULL;
    if (gdb_number_then(&args, &number, '=') && number < 1000)
        reg = gdb_register((unsigned)number);
    if (!reg || !gdb_unhex(&args, bytes, reg->bits / 8))
        gdb_error(gdb, GDB_BAD_PACKET);
    else if (!gdb_register_set(gdb_vcpu(gdb), reg, bytes))
        gdb_error(gdb, GDB_BAD_VALUE);
    else
        gdb_ok(gdb);
}

void gdb_expedite(struct gdb *gdb, struct vcpu *cpu)
{
    static const uint8_t numbers[] = {6, 7, 16}; /* RBP, RSP, RIP in the core feature */
    for (size_t n = 0; n < sizeof numbers; n++) {
        gdb_put_number(&gdb->output, numbers[n]);
        gdb_put(&gdb->output, ":");
        put(gdb, cpu, gdb_register(numbers[n]));
        gdb_put(&gdb->output, ";");
    }
}
