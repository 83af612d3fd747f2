/* SPDX-License-Identifier: MIT */
/* Holes of templates: one table from the hole's symbol to the way its value is found.
 *
 * A hole is filled like a relocation: value + addend for values, value + addend - place for
 * addresses. Nothing else is possible: routines must run wherever the guest is loaded. */
#include "patchc/hole.h"

#include <elf.h>
#include <stddef.h>
#include <string.h>

#include "patchc/form.h"

#define LEA_SIZE 9 /* prefix, REX, opcode, ModRM, SIB, disp32 */

enum hole_class { HOLE_ADDRESS, HOLE_VALUE, HOLE_LEA };
enum register_part { PART_LOW, PART_REG, PART_B, PART_X, PART_R };
enum register_source { FROM_OPERAND0, FROM_OPERAND1, FROM_GPR, FROM_BASE };

struct hole_kind {
    const char *symbol;
    uint8_t class; /* enum hole_class */
    uint8_t uses;  /* enum hole_use bits */
    uint16_t argument;
    /* Gives the value; false if the instruction or the image has none. */
    bool (*value)(const struct template_values *values, unsigned argument, int64_t *value);
};

/* ---- addresses: 0 means that the image has no such thing ---- */

static bool field_address(const struct template_values *values, unsigned offset, int64_t *value)
{
    uint64_t address;
    memcpy(&address, (const char *)values + offset, sizeof address);
    *value = (int64_t)address;
    return address != 0;
}

static bool state_address(const struct template_values *values, unsigned offset, int64_t *value)
{
    *value = (int64_t)(values->state + offset);
    return values->state != 0;
}

/* ---- values ---- */

/* The number of the first operand register of this class. */
static bool class_number(const struct template_values *values, unsigned class, int64_t *value)
{
    for (unsigned i = 0; i < values->instruction->operand_count_visible; i++) {
        const ZydisDecodedOperand *operand = &values->operands[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_REGISTER ||
            ZydisRegisterGetClass(operand->reg.value) != class)
            continue;
        *value = ZydisRegisterGetId(operand->reg.value);
        return true;
    }
    return false;
}

static bool state_cr(const struct template_values *values, unsigned argument, int64_t *value)
{
    (void)argument;
    int64_t number, array;
    if (!class_number(values, ZYDIS_REGCLASS_CONTROL, &number) ||
        !state_address(values, offsetof(struct pv_state, cr), &array))
        return false;
    *value = array + 8 * number;
    return number < 16;
}

static bool state_dr(const struct template_values *values, unsigned argument, int64_t *value)
{
    (void)argument;
    int64_t number, array;
    if (!class_number(values, ZYDIS_REGCLASS_DEBUG, &number) ||
        !state_address(values, offsetof(struct pv_state, dr), &array))
        return false;
    *value = array + 8 * number;
    return number < 8;
}

static bool state_selector(const struct template_values *values, unsigned argument, int64_t *value)
{
    (void)argument;
    int64_t number, array;
    if (!class_number(values, ZYDIS_REGCLASS_SEGMENT, &number) ||
        !state_address(values, offsetof(struct pv_state, selector), &array))
        return false;
    *value = array + 2 * number;
    return number < 6;
}

static bool index_value(const struct template_values *values, unsigned argument, int64_t *value)
{
    (void)argument;
    *value = values->index;
    return true;
}

static bool operand_word(const struct template_values *values, unsigned argument, int64_t *value)
{
    (void)argument;
    *value = template_operand(values->instruction, values->operands);
    return true;
}

static bool immediate(const struct template_values *values, unsigned zero_extend, int64_t *value)
{
    for (unsigned i = 0; i < values->instruction->operand_count_visible; i++) {
        const ZydisDecodedOperand *operand = &values->operands[i];
        if (operand->type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            continue;
        *value = zero_extend ? (int64_t)(operand->imm.value.u & 0xff) : operand->imm.value.s;
        return true;
    }
    return false;
}

static bool width_value(const struct template_values *values, unsigned argument, int64_t *value)
{
    (void)argument;
    *value = values->instruction->operand_width / 8;
    return true;
}

static bool length_value(const struct template_values *values, unsigned argument, int64_t *value)
{
    (void)argument;
    *value = values->instruction->length;
    return true;
}

static bool segment_prefix(const struct template_values *values, unsigned argument, int64_t *value)
{
    (void)argument;
    const ZydisDecodedOperand *memory = memory_operand(values->instruction, values->operands);
    *value = 0x3e;
    if (memory && memory->mem.segment == ZYDIS_REGISTER_FS)
        *value = 0x64;
    else if (memory && memory->mem.segment == ZYDIS_REGISTER_GS)
        *value = 0x65;
    return true;
}

static int source_number(const struct template_values *values, unsigned source)
{
    unsigned count = values->instruction->operand_count_visible;
    if (source == FROM_BASE) {
        const ZydisDecodedOperand *memory = memory_operand(values->instruction, values->operands);
        return memory ? gpr_number(memory->mem.base) : -1;
    }
    for (unsigned i = 0; i < count; i++) {
        if (source != FROM_GPR && source != i)
            continue;
        if (values->operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            gpr_number(values->operands[i].reg.value) >= 0)
            return gpr_number(values->operands[i].reg.value);
    }
    return -1;
}

/* Part of a register number, in the position it has in a REX, ModRM, SIB or opcode byte
 * (SDM 2A 2.2.1.2). argument = source << 4 | part */
static bool register_part(const struct template_values *values, unsigned argument, int64_t *value)
{
    int number = source_number(values, argument >> 4);
    if (number < 0)
        return false;
    switch (argument & 15) {
    case PART_LOW:
        *value = number & 7;
        break;
    case PART_REG:
        *value = (number & 7) << 3;
        break;
    case PART_B:
        *value = number >> 3;
        break;
    case PART_X:
        *value = number >> 3 << 1;
        break;
    default:
        *value = number >> 3 << 2;
        break;
    }
    return true;
}

/* ---- the table ---- */

#define ADDRESS(symbol, field, uses)                                                               \
    {                                                                                              \
        symbol, HOLE_ADDRESS, uses, offsetof(struct template_values, field), field_address         \
    }
#define STATE(symbol, field)                                                                       \
    {                                                                                              \
        symbol, HOLE_ADDRESS, HOLE_USES_STATE, offsetof(struct pv_state, field), state_address     \
    }
#define VALUE(symbol, function, argument)                                                          \
    {                                                                                              \
        symbol, HOLE_VALUE, 0, argument, function                                                  \
    }
#define REGISTER(prefix, source)                                                                   \
    VALUE(prefix "_LOW", register_part, source << 4 | PART_LOW),                                   \
        VALUE(prefix "_REG", register_part, source << 4 | PART_REG),                               \
        VALUE(prefix "_B", register_part, source << 4 | PART_B),                                   \
        VALUE(prefix "_X", register_part, source << 4 | PART_X),                                   \
        VALUE(prefix "_R", register_part, source << 4 | PART_R)

static const struct hole_kind hole_kinds[] = {
    ADDRESS("PV_NATIVE", native, 0),
    ADDRESS("PV_TAIL", tail, 0),
    ADDRESS("PV_NEXT", next, 0),
    ADDRESS("PV_CPUID_TABLE", cpuid_table, HOLE_USES_CPUID),
    ADDRESS("PV_MSR_TABLE", msr_table, HOLE_USES_MSR),
    ADDRESS("PV_STATE", state, HOLE_USES_STATE),
    STATE("PV_STATE_VIRTUAL_IF", virtual_if),
    STATE("PV_STATE_INTERRUPT_PENDING", interrupt_pending),
    STATE("PV_STATE_VIRTUAL_IOPL", virtual_iopl),
    STATE("PV_STATE_VIRTUAL_AC", virtual_ac),
    STATE("PV_STATE_CR0", cr[0]),
    STATE("PV_STATE_CR2", cr[2]),
    STATE("PV_STATE_CR3", cr[3]),
    STATE("PV_STATE_CR4", cr[4]),
    STATE("PV_STATE_CR8", cr[8]),
    STATE("PV_STATE_DR0", dr[0]),
    STATE("PV_STATE_DR1", dr[1]),
    STATE("PV_STATE_DR2", dr[2]),
    STATE("PV_STATE_DR3", dr[3]),
    STATE("PV_STATE_DR6", dr[6]),
    STATE("PV_STATE_DR7", dr[7]),
    STATE("PV_STATE_KERNEL_GS_BASE", kernel_gs_base),
    STATE("PV_STATE_GDTR", gdtr),
    STATE("PV_STATE_IDTR", idtr),
    STATE("PV_STATE_LDTR", ldtr),
    STATE("PV_STATE_TR", tr),
    STATE("PV_STATE_TSC_AUX", tsc_aux),
    STATE("PV_STATE_TSC_OFFSET", tsc_offset),
    STATE("PV_STATE_XCR0", xcr0),
    STATE("PV_STATE_PORT_IN", port_in),
    STATE("PV_STATE_PORT_OUT", port_out),
    STATE("PV_STATE_PIT_BASE", pit.negated_base),
    STATE("PV_STATE_PIT_SCALE", pit.scale),
    STATE("PV_STATE_PIT_START", pit.start),
    STATE("PV_STATE_PIT_VERSION", pit.version),
    STATE("PV_STATE_PIT_STEP", pit.step),
    STATE("PV_STATE_PM_BASE", pm.negated_base),
    STATE("PV_STATE_PM_SCALE", pm.scale),
    STATE("PV_STATE_PM_START", pm.start),
    STATE("PV_STATE_PM_VERSION", pm.version),
    STATE("PV_STATE_PM_PORT", pm.negated_port),
    STATE("PV_STATE_DEADLINE_POSTED", deadline.posted),
    STATE("PV_STATE_DEADLINE_LIMIT", deadline.limit),
    STATE("PV_STATE_CMOS", cmos),
    STATE("PV_STATE_ONCE_AFTER", once_after),
    STATE("PV_STATE_RING", ring),
    STATE("PV_STATE_RING_TAIL", ring_tail),
    STATE("PV_STATE_RING_LOCK", ring_lock),
    {"PV_STATE_CR", HOLE_ADDRESS, HOLE_USES_STATE, 0, state_cr},
    {"PV_STATE_DR", HOLE_ADDRESS, HOLE_USES_STATE, 0, state_dr},
    {"PV_STATE_SELECTOR", HOLE_ADDRESS, HOLE_USES_STATE, 0, state_selector},
    {"PV_INDEX32", HOLE_VALUE, HOLE_RINGS_DOORBELL, 0, index_value},
    VALUE("PV_OPERAND", operand_word, 0),
    VALUE("PV_IMM", immediate, 0),
    VALUE("PV_PORT", immediate, 1),
    VALUE("PV_WIDTH", width_value, 0),
    VALUE("PV_LENGTH", length_value, 0),
    VALUE("PV_CR", class_number, ZYDIS_REGCLASS_CONTROL),
    VALUE("PV_DR", class_number, ZYDIS_REGCLASS_DEBUG),
    VALUE("PV_SREG", class_number, ZYDIS_REGCLASS_SEGMENT),
    {"PV_SEGMENT", HOLE_VALUE, HOLE_TAKES_SEGMENT, 0, segment_prefix},
    {"PV_LEA", HOLE_LEA, HOLE_COPIES_MEMORY, 0, NULL},
    REGISTER("PV_OP0", FROM_OPERAND0),
    REGISTER("PV_OP1", FROM_OPERAND1),
    REGISTER("PV_GPR", FROM_GPR),
    REGISTER("PV_BASE", FROM_BASE),
};

const struct hole_kind *hole_kind_named(const char *symbol)
{
    for (size_t i = 0; i < sizeof hole_kinds / sizeof *hole_kinds; i++)
        if (strcmp(hole_kinds[i].symbol, symbol) == 0)
            return &hole_kinds[i];
    return NULL;
}

unsigned hole_kind_uses(const struct hole_kind *kind)
{
    return kind->uses;
}

/* ---- filling ---- */

/* Bytes that a relocation of this type fills; 0 for a type that no template may have. */
static unsigned type_size(uint32_t type, uint8_t class)
{
    switch (type) {
    case R_X86_64_PC32:
    case R_X86_64_PLT32:
        return class == HOLE_ADDRESS ? 4 : 0;
    case R_X86_64_8:
        return class == HOLE_LEA ? LEA_SIZE : class == HOLE_VALUE ? 1 : 0;
    case R_X86_64_16:
        return class == HOLE_VALUE ? 2 : 0;
    case R_X86_64_32:
    case R_X86_64_32S:
        return class == HOLE_VALUE ? 4 : 0;
    case R_X86_64_64:
        return class == HOLE_VALUE ? 8 : 0;
    default:
        return 0;
    }
}

int hole_check(const struct hole *hole, size_t size, const char *name, struct error *err)
{
    unsigned bytes = type_size(hole->type, hole->kind->class);
    if (bytes == 0)
        return fail(err, EXIT_INPUT, "template %s: relocation type %u at +%#x cannot hold %s", name,
                    hole->type, hole->offset, hole->kind->symbol);
    if (hole->offset > size || size - hole->offset < bytes)
        return fail(err, EXIT_INPUT, "template %s: hole %s at +%#x outside the code", name,
                    hole->kind->symbol, hole->offset);
    return 0;
}

static bool value_fits(uint32_t type, int64_t value)
{
    switch (type) {
    case R_X86_64_8:
        return value >= INT8_MIN && value <= UINT8_MAX;
    case R_X86_64_16:
        return value >= INT16_MIN && value <= UINT16_MAX;
    case R_X86_64_32:
        return value >= INT32_MIN && value <= UINT32_MAX;
    case R_X86_64_64:
        return true;
    default: /* sign-extended by the processor */
        return value >= INT32_MIN && value <= INT32_MAX;
    }
}

/* Writes the ModRM byte, SIB byte and displacement of `memory` to p; returns their number. */
static unsigned encode_memory(uint8_t *p, unsigned reg, const ZydisDecodedOperand *memory,
                              int32_t displacement)
{
    static const uint8_t scale_bits[16] = {[2] = 0x40, [4] = 0x80, [8] = 0xc0};
    int base = gpr_number(memory->mem.base), index = gpr_number(memory->mem.index);
    unsigned n = 0;
    reg = (reg & 7) << 3;
    if (base < 0 && memory->mem.base != ZYDIS_REGISTER_NONE) { /* RIP */
        p[n++] = (uint8_t)(reg | 5);
    } else if (base >= 0 && index < 0 && (base & 7) != 4) {
        p[n++] = (uint8_t)(0x80 | reg | (base & 7));
    } else {
        p[n++] = (uint8_t)((base < 0 ? 0 : 0x80) | reg | 4);
        p[n++] = (uint8_t)(scale_bits[index < 0 ? 0 : memory->mem.scale & 15] |
                           (index < 0 ? 4 : index & 7) << 3 | (base < 0 ? 5 : base & 7));
    }
    memcpy(p + n, &displacement, 4);
    return n + 4;
}

/* Writes lea <memory operand>, reg, and no-ops up to LEA_SIZE. addend = reg << 8 | pushed bytes. */
static int fill_lea(const struct hole *hole, const struct template_values *values, uint8_t *code,
                    uint64_t address, struct error *err)
{
    static const uint8_t nops[3][2] = {{0}, {0x90}, {0x66, 0x90}};
    const ZydisDecodedOperand *memory = memory_operand(values->instruction, values->operands);
    if (!memory)
        return fail(err, EXIT_INPUT, "%#llx: template wants a memory operand, there is none",
                    (unsigned long long)values->address);
    uint8_t *p = code + hole->offset;
    unsigned reg = (unsigned)(hole->addend >> 8) & 15, pushed = hole->addend & 0xff, n = 0;
    int base = gpr_number(memory->mem.base), index = gpr_number(memory->mem.index);
    int64_t displacement = memory->mem.disp.value;
    if (base == 4) /* RSP */
        displacement += pushed;
    if (values->instruction->address_width == 32)
        p[n++] = 0x67;
    p[n++] = (uint8_t)(0x48 | reg >> 3 << 2 | (index >= 8 ? 2 : 0) | (base >= 8 ? 1 : 0));
    p[n++] = 0x8d;
    if (memory->mem.base == ZYDIS_REGISTER_RIP)
        displacement += (int64_t)(values->address + values->instruction->length -
                                  (address + hole->offset + n + 5));
    if (memory->mem.base == ZYDIS_REGISTER_EIP || displacement < INT32_MIN ||
        displacement > INT32_MAX)
        return fail(err, EXIT_INPUT, "%#llx: memory operand cannot be reached from %#llx",
                    (unsigned long long)values->address, (unsigned long long)address);
    n += encode_memory(p + n, reg, memory, (int32_t)displacement);
    memcpy(p + n, nops[LEA_SIZE - n], LEA_SIZE - n);
    return 0;
}

int hole_fill(const struct hole *hole, const struct template_values *values, uint8_t *code,
              uint64_t address, struct error *err)
{
    if (hole->kind->class == HOLE_LEA)
        return fill_lea(hole, values, code, address, err);
    int64_t value;
    if (!hole->kind->value(values, hole->kind->argument, &value))
        return fail(err, EXIT_INPUT, "%#llx: template hole %s has no value here",
                    (unsigned long long)values->address, hole->kind->symbol);
    value = (int64_t)((uint64_t)value + (uint64_t)hole->addend);
    if (hole->kind->class == HOLE_ADDRESS)
        value = (int64_t)((uint64_t)value - (address + hole->offset));
    if (!value_fits(hole->type, value))
        return fail(err, EXIT_INPUT, "%#llx: value %#llx does not fit template hole %s",
                    (unsigned long long)values->address, (unsigned long long)value,
                    hole->kind->symbol);
    memcpy(code + hole->offset, &value, type_size(hole->type, hole->kind->class));
    return 0;
}
