/* SPDX-License-Identifier: MIT */
/* String instructions: MOVS, CMPS, STOS, LODS, SCAS, with and without REP.
 *
 * Without REP, in 64-bit mode with flat addresses, an element moves by host pointers in line. Everything else goes
 * through `iterate`, which does as many elements at once as stay within one page at either end, are RAM, and need no
 * check of their own; where that is not even one, it does a single element through the general accessors.
 *
 * A REP instruction does at most STRING_BYTES in one go and then returns to the engine's loop with RIP still at
 * it, so that interrupts and timers get their turn: registers always say how far it is. The same holds when an element
 * faults. CMPS and SCAS leave the flags of the last comparison done, in a fault too, as this processor does. */
#include "runtime/soft/string_elements.h"

enum string_kind { STRING_MOVS, STRING_CMPS, STRING_STOS, STRING_LODS, STRING_SCAS };

#define STRING_BYTES 4096u
/* Guest time: besides its own, a long string operation takes a cycle for so many iterations. */
#define ITERATIONS_A_CYCLE 16

#define GUEST_RAX REG_OFFSET(RAX)

/* ---- registers by address size ---- */
static inline uint64_t address_mask(const struct insn *i)
{
    return i->flags & INSN_ADDRESS32   ? UINT32_MAX
           : i->flags & INSN_ADDRESS16 ? UINT16_MAX
                                       : UINT64_MAX;
}
/* 16-bit registers keep what is above, 32-bit ones lose it. */
static inline void set_counter(struct vcpu *cpu, const struct insn *i, int reg, uint64_t value)
{
    if (i->flags & INSN_ADDRESS16)
        cpu->r[reg] = (cpu->r[reg] & ~(uint64_t)UINT16_MAX) | (value & UINT16_MAX);
    else
        cpu->r[reg] = value & address_mask(i);
}

static inline bool backwards(const struct vcpu *cpu)
{
    return cpu->rflags & RFLAGS_DF;
}

static inline void advance(struct vcpu *cpu, const struct insn *i, int reg, uint64_t bytes)
{
    set_counter(cpu, i, reg, backwards(cpu) ? cpu->r[reg] - bytes : cpu->r[reg] + bytes);
}

static inline bool uses_source(enum string_kind kind)
{
    return kind == STRING_MOVS || kind == STRING_CMPS || kind == STRING_LODS;
}
static inline bool uses_destination(enum string_kind kind)
{
    return kind != STRING_LODS;
}
static inline bool writes_destination(enum string_kind kind)
{
    return kind == STRING_MOVS || kind == STRING_STOS;
}
static inline bool compares(enum string_kind kind)
{
    return kind == STRING_CMPS || kind == STRING_SCAS;
}

/* ---- one element's work ---- */
static inline uint64_t accumulator(const struct vcpu *cpu, unsigned size)
{
    return size == 8 ? cpu->r[RAX] : cpu->r[RAX] & ((1ull << 8 * size) - 1);
}

static inline void set_accumulator(struct vcpu *cpu, unsigned size, uint64_t value)
{
    switch (size) {
    case 1:
        SET_REG8(GUEST_RAX, value);
        break;
    case 2:
        SET_REG16(GUEST_RAX, value);
        break;
    case 4:
        SET32(GUEST_RAX, value);
        break;
    default:
        cpu->r[RAX] = value;
    }
}

/* The flags of left - right. */
static inline void compare(struct vcpu *cpu, uint64_t left, uint64_t right, unsigned size)
{
    uint16_t status;
    switch (size) {
    case 1:
        asm("cmpb %2, %1; " FLAGS_OUT
            : "=&a"(status)
            : "q"((uint8_t)left), "q"((uint8_t)right)
            : "cc");
        break;
    case 2:
        asm("cmpw %2, %1; " FLAGS_OUT
            : "=&a"(status)
            : "r"((uint16_t)left), "r"((uint16_t)right)
            : "cc");
        break;
    case 4:
        asm("cmpl %2, %1; " FLAGS_OUT
            : "=&a"(status)
            : "r"((uint32_t)left), "r"((uint32_t)right)
            : "cc");
        break;
    default:
        asm("cmpq %2, %1; " FLAGS_OUT : "=&a"(status) : "r"(left), "r"(right) : "cc");
    }
    cpu->status = status;
}

/* ---- addresses ---- */
/* Where the operand begins: guest-linear, its segment checked for this element. The destination is in ES. */
static uint64_t string_linear(struct vcpu *cpu, const struct insn *i, int reg, unsigned size,
                              bool write)
{
    uint64_t offset = cpu->r[reg] & address_mask(i);
    int segment = reg == RDI ? SEG_ES : i->segment;
    if (!(i->flags & INSN_LEGACY))
        return offset + cpu->base[segment];
    return linear_in(cpu, i, segment, offset, size, write);
}

/* How many elements from here on need no segment check of their own, that of the first having passed, and do not
 * wrap at the end of the address space. At least 1. */
static uint64_t unchecked_elements(const struct vcpu *cpu, const struct insn *i, int reg,
                                   unsigned size)
{
    uint64_t offset = cpu->r[reg] & address_mask(i), last = address_mask(i);
    if (i->flags & INSN_LEGACY) {
        const struct segment *segment = &cpu->segment[reg == RDI ? SEG_ES : i->segment];
        if ((segment->rights & (RIGHTS_CODE | RIGHTS_DOWN)) == RIGHTS_DOWN)
            return 1;
        if (segment->limit < last)
            last = segment->limit;
    }
    if (backwards(cpu))
        return offset / size + 1;
    uint64_t count = (last - offset) / size; /* one less where they fit exactly */
    return count ? count : 1;
}

/* How many elements from this linear address on lie in its page. */
static inline uint64_t page_elements(const struct vcpu *cpu, uint64_t address, unsigned size)
{
    uint64_t offset = address & PAGE_OFFSET;
    return backwards(cpu) ? offset / size + 1 : (PAGE_SIZE - offset) / size;
}

/* ---- iterations ---- */
/* One element by the general accessors, which raise what there is to raise before a register changes. */
static void one_element(struct vcpu *cpu, const struct insn *i, enum string_kind kind,
                        unsigned size, uint64_t source, uint64_t destination)
{
    /* CMPS looks at its second operand first, as this processor's maker has it */
    uint64_t right = compares(kind) ? load(cpu, i, destination, size) : 0;
    uint64_t value = uses_source(kind) ? load(cpu, i, source, size) : accumulator(cpu, size);
    if (writes_destination(kind))
        store(cpu, i, destination, size, value);
    else if (compares(kind))
        compare(cpu, value, right, size);
    else
        set_accumulator(cpu, size, value);
}

/* Does between 1 and `most` elements and returns how many; registers but RCX follow. `fast` tells whether nothing was
 * done out of line. For CMPS and SCAS stops after the one that ends the loop. */
static inline __attribute__((always_inline)) uint64_t iterate(struct vcpu *cpu,
                                                              const struct insn *i,
                                                              enum string_kind kind, unsigned size,
                                                              uint64_t most, bool *fast)
{
    uint64_t source = 0, destination = 0, count = most;
    uint8_t *from = NULL, *to = NULL;
    bool in_place = true;

    if (uses_source(kind)) {
        source = string_linear(cpu, i, RSI, size, false);
        from = host_read(cpu, source, size);
        in_place = from;
        count = most;
    }
    if (uses_destination(kind)) {
        destination = string_linear(cpu, i, RDI, size, writes_destination(kind));
        to = writes_destination(kind) ? host_write(cpu, destination, size)
                                      : host_read(cpu, destination, size);
        in_place &= to != NULL;
    }
    if (!in_place) {
        *fast = false;
        one_element(cpu, i, kind, size, source, destination);
        count = 1;
    } else {
        bool down = backwards(cpu);
        uint64_t value = accumulator(cpu, size);
        if (from && count > 1) {
            uint64_t here = page_elements(cpu, source, size),
                     there = unchecked_elements(cpu, i, RSI, size);
            count = here < count ? here : count;
            count = there < count ? there : count;
        }
        if (to && count > 1) {
            uint64_t here = page_elements(cpu, destination, size),
                     there = unchecked_elements(cpu, i, RDI, size);
            count = here < count ? here : count;
            count = there < count ? there : count;
        }
        if (kind == STRING_MOVS) {
            move_elements(to, from, count, size, down);
        } else if (kind == STRING_STOS) {
            fill_elements(to, value, count, size, down);
        } else if (kind == STRING_LODS) {
            int64_t last = (int64_t)((count - 1) * size);
            set_accumulator(cpu, size, host_get(from + (down ? -last : last), size));
        } else {
            count = compare_elements(from, to, value, count, size, down, i->flags & INSN_REPNE);
            int64_t last = (int64_t)((count - 1) * size);
            last = down ? -last : last;
            compare(cpu, from ? host_get(from + last, size) : value, host_get(to + last, size),
                    size);
        }
    }
    if (uses_source(kind))
        advance(cpu, i, RSI, count * size);
    if (uses_destination(kind))
        advance(cpu, i, RDI, count * size);
    return count;
}

/* Cycles that the iterations take which bring the count from `before` to `after`: one whenever what is left is a
 * multiple of ITERATIONS_A_CYCLE, so that it is the same in whatever portions they are done. */
static inline int64_t cycles(uint64_t before, uint64_t after)
{
    uint64_t passed = (before - 1) / ITERATIONS_A_CYCLE;
    return (int64_t)(after ? passed - (after - 1) / ITERATIONS_A_CYCLE : passed);
}

/* How many of `left` iterations fit into the slice, its end included. */
static inline uint64_t iterations_granted(const struct vcpu *cpu, const struct insn *i,
                                          uint64_t left)
{
    const struct block *block = cpu->block;
    int64_t grant = cpu->budget + cpu->withheld + (block ? block->count - i->position : 1);
    int64_t multiples = cycles(left, 0);
    if (grant < 1)
        grant = 1;
    if (likely(multiples < grant))
        return left;
    return left - (uint64_t)(multiples - grant + 1) * ITERATIONS_A_CYCLE;
}

static inline __attribute__((always_inline)) const struct insn *
repeat(struct vcpu *cpu, const struct insn *i, enum string_kind kind, unsigned size)
{
    uint64_t left = cpu->r[RCX] & address_mask(i), room = STRING_BYTES / size, done = 0;
    bool fast = true, ended = false;

    if (unlikely(cpu->one_iteration || cpu->rflags & RFLAGS_TF))
        room = 1;
    if (left > ITERATIONS_A_CYCLE) {
        uint64_t granted = iterations_granted(cpu, i, left);
        room = granted < room ? granted : room;
    }
    while (left && !ended && done < room) {
        uint64_t most = left < room - done ? left : room - done;
        uint64_t count = iterate(cpu, i, kind, size, most, &fast);
        done += count;
        cpu->budget -= cycles(left, left - count);
        left -= count;
        set_counter(cpu, i, RCX, left);
        if (compares(kind))
            ended = !(cpu->status & STATUS_ZF) == !(i->flags & INSN_REPNE);
        if (unlikely(!fast) && (cpu->code_changed || cpu->pending_db || cpu->kicked))
            break;
    }
    if (left && !ended) {
        if (unlikely(cpu->dr[7] & 0xff)) /* a breakpoint at it was met before the first iteration */
            cpu->rflags |= RFLAGS_RF;
        cpu->repeating = true;
        cpu->budget++; /* the instruction is yet to be counted */
        return insn_leave(cpu, i, insn_rip(cpu, i));
    }
    if (unlikely(!fast))
        NEXT_SLOW;
    NEXT;
}

static inline __attribute__((always_inline)) const struct insn *
once(struct vcpu *cpu, const struct insn *i, enum string_kind kind, unsigned size)
{
    bool fast = true;
    iterate(cpu, i, kind, size, 1, &fast);
    NEXT_SLOW;
}

/* ---- without REP, flat: in line ---- */
/* Moves a register on by an element. The compiler is kept from doing two of them in a vector register: the next
 * instruction wants them apart. */
static inline __attribute__((always_inline)) void step(struct vcpu *cpu, int reg, uint64_t size)
{
    uint64_t moved = cpu->r[reg] + (cpu->rflags & RFLAGS_DF ? -size : size);
    asm("" : "+r"(moved));
    cpu->r[reg] = moved;
}

static inline bool hit_source(const struct vcpu *cpu, const struct insn *i, unsigned size,
                              uintptr_t *host)
{
    return hit_read(cpu, cpu->r[RSI] + cpu->base[i->segment], size, host);
}

/* Short repetitions, upwards and in one page at either end, are done in line too. */
#define SHORT_REPETITION 16u
static inline bool is_short(const struct vcpu *cpu)
{
    return likely(cpu->r[RCX] <= SHORT_REPETITION && !(cpu->rflags & (RFLAGS_DF | RFLAGS_TF)) &&
                  !cpu->one_iteration);
}
/* Keeps the loop from becoming a call. */
#define ONE_BY_ONE asm volatile("" : : : "memory")

#define STRING_FUNCTIONS(bits)                                                                     \
    OP_SLOW(movs_once##bits)                                                                       \
    {                                                                                              \
        return once(cpu, i, STRING_MOVS, bits / 8);                                                \
    }                                                                                              \
    OP_SLOW(cmps_once##bits)                                                                       \
    {                                                                                              \
        return once(cpu, i, STRING_CMPS, bits / 8);                                                \
    }                                                                                              \
    OP_SLOW(stos_once##bits)                                                                       \
    {                                                                                              \
        return once(cpu, i, STRING_STOS, bits / 8);                                                \
    }                                                                                              \
    OP_SLOW(lods_once##bits)                                                                       \
    {                                                                                              \
        return once(cpu, i, STRING_LODS, bits / 8);                                                \
    }                                                                                              \
    OP_SLOW(scas_once##bits)                                                                       \
    {                                                                                              \
        return once(cpu, i, STRING_SCAS, bits / 8);                                                \
    }                                                                                              \
    OP(movs_rep##bits)                                                                             \
    {                                                                                              \
        return repeat(cpu, i, STRING_MOVS, bits / 8);                                              \
    }                                                                                              \
    OP(cmps_rep##bits)                                                                             \
    {                                                                                              \
        return repeat(cpu, i, STRING_CMPS, bits / 8);                                              \
    }                                                                                              \
    OP(stos_rep##bits)                                                                             \
    {                                                                                              \
        return repeat(cpu, i, STRING_STOS, bits / 8);                                              \
    }                                                                                              \
    OP(lods_rep##bits)                                                                             \
    {                                                                                              \
        return repeat(cpu, i, STRING_LODS, bits / 8);                                              \
    }                                                                                              \
    OP(scas_rep##bits)                                                                             \
    {                                                                                              \
        return repeat(cpu, i, STRING_SCAS, bits / 8);                                              \
    }                                                                                              \
    OP(movs_flat##bits)                                                                            \
    {                                                                                              \
        uintptr_t from, to;                                                                        \
        if (!hit_source(cpu, i, bits / 8, &from) || !hit_write(cpu, cpu->r[RDI], bits / 8, &to))   \
            return movs_once##bits(cpu, i);                                                        \
        *(memory##bits *)to = *(const memory##bits *)from;                                         \
        step(cpu, RSI, bits / 8);                                                                  \
        step(cpu, RDI, bits / 8);                                                                  \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(cmps_flat##bits)                                                                            \
    {                                                                                              \
        uintptr_t from, to;                                                                        \
        if (!hit_source(cpu, i, bits / 8, &from) || !hit_read(cpu, cpu->r[RDI], bits / 8, &to))    \
            return cmps_once##bits(cpu, i);                                                        \
        compare(cpu, *(const memory##bits *)from, *(const memory##bits *)to, bits / 8);            \
        step(cpu, RSI, bits / 8);                                                                  \
        step(cpu, RDI, bits / 8);                                                                  \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(stos_flat##bits)                                                                            \
    {                                                                                              \
        uintptr_t to;                                                                              \
        if (!hit_write(cpu, cpu->r[RDI], bits / 8, &to))                                           \
            return stos_once##bits(cpu, i);                                                        \
        *(memory##bits *)to = (uint##bits##_t)cpu->r[RAX];                                         \
        step(cpu, RDI, bits / 8);                                                                  \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(lods_flat##bits)                                                                            \
    {                                                                                              \
        uintptr_t from;                                                                            \
        if (!hit_source(cpu, i, bits / 8, &from))                                                  \
            return lods_once##bits(cpu, i);                                                        \
        SET_REG##bits(GUEST_RAX, *(const memory##bits *)from);                                     \
        step(cpu, RSI, bits / 8);                                                                  \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(scas_flat##bits)                                                                            \
    {                                                                                              \
        uintptr_t to;                                                                              \
        if (!hit_read(cpu, cpu->r[RDI], bits / 8, &to))                                            \
            return scas_once##bits(cpu, i);                                                        \
        compare(cpu, cpu->r[RAX], *(const memory##bits *)to, bits / 8);                            \
        step(cpu, RDI, bits / 8);                                                                  \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(movs_rep_flat##bits)                                                                        \
    {                                                                                              \
        uintptr_t from, to;                                                                        \
        uint64_t bytes = cpu->r[RCX] * (bits / 8);                                                 \
        if (cpu->r[RCX] == 0)                                                                      \
            NEXT;                                                                                  \
        if (!is_short(cpu) || !hit_source(cpu, i, (unsigned)bytes, &from) ||                       \
            !hit_write(cpu, cpu->r[RDI], (unsigned)bytes, &to))                                    \
            return movs_rep##bits(cpu, i);                                                         \
        for (uint64_t n = 0; n < bytes; n += bits / 8) {                                           \
            *(memory##bits *)(to + n) = *(const memory##bits *)(from + n);                         \
            ONE_BY_ONE;                                                                            \
        }                                                                                          \
        cpu->r[RSI] += bytes;                                                                      \
        ONE_BY_ONE;                                                                                \
        cpu->r[RDI] += bytes;                                                                      \
        cpu->r[RCX] = 0;                                                                           \
        NEXT;                                                                                      \
    }                                                                                              \
    OP(stos_rep_flat##bits)                                                                        \
    {                                                                                              \
        uintptr_t to;                                                                              \
        uint64_t bytes = cpu->r[RCX] * (bits / 8);                                                 \
        if (cpu->r[RCX] == 0)                                                                      \
            NEXT;                                                                                  \
        if (!is_short(cpu) || !hit_write(cpu, cpu->r[RDI], (unsigned)bytes, &to))                  \
            return stos_rep##bits(cpu, i);                                                         \
        for (uint64_t n = 0; n < bytes; n += bits / 8) {                                           \
            *(memory##bits *)(to + n) = (uint##bits##_t)cpu->r[RAX];                               \
            ONE_BY_ONE;                                                                            \
        }                                                                                          \
        cpu->r[RDI] += bytes;                                                                      \
        ONE_BY_ONE;                                                                                \
        cpu->r[RCX] = 0;                                                                           \
        NEXT;                                                                                      \
    }

STRING_FUNCTIONS(8)
STRING_FUNCTIONS(16)
STRING_FUNCTIONS(32)
STRING_FUNCTIONS(64)

/* ---- selection ---- */
#define BY_SIZE(name)                                                                              \
    {                                                                                              \
        name##8, name##16, name##32, name##64                                                      \
    }
/* [kind][flat, any, flat REP, any REP][size] */
static insn_fn *const functions[5][4][4] = {
    [STRING_MOVS] = {BY_SIZE(movs_flat), BY_SIZE(movs_once), BY_SIZE(movs_rep_flat),
                     BY_SIZE(movs_rep)},
    [STRING_STOS] = {BY_SIZE(stos_flat), BY_SIZE(stos_once), BY_SIZE(stos_rep_flat),
                     BY_SIZE(stos_rep)},
    [STRING_CMPS] = {BY_SIZE(cmps_flat), BY_SIZE(cmps_once), BY_SIZE(cmps_rep), BY_SIZE(cmps_rep)},
    [STRING_LODS] = {BY_SIZE(lods_flat), BY_SIZE(lods_once), BY_SIZE(lods_rep), BY_SIZE(lods_rep)},
    [STRING_SCAS] = {BY_SIZE(scas_flat), BY_SIZE(scas_once), BY_SIZE(scas_rep), BY_SIZE(scas_rep)},
};

#define REPEAT_PREFIXES (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)

static insn_fn *select_string(struct decoded *d, struct insn *out, enum string_kind kind,
                              unsigned size)
{
    if (d->zydis->meta.category != ZYDIS_CATEGORY_STRINGOP)
        return NULL; /* MOVSD and CMPSD are SSE2 too */
    out->flags = (uint8_t)(out->flags & ~(INSN_EA | INSN_REP | INSN_REPNE | INSN_RIPREL));
    if (d->code_bits != 64)
        out->flags |= INSN_LEGACY;
    if (d->zydis->address_width != 64)
        out->flags |= d->zydis->address_width == 32 ? INSN_ADDRESS32 : INSN_ADDRESS16;
    if (d->zydis->attributes & REPEAT_PREFIXES)
        out->flags |= d->zydis->attributes & ZYDIS_ATTRIB_HAS_REPNE ? INSN_REPNE : INSN_REP;
    out->segment = SEG_DS;
    for (unsigned n = 0; n < d->zydis->operand_count && uses_source(kind); n++) {
        const ZydisDecodedOperand *operand = &d->operands[n];
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (operand->mem.base == ZYDIS_REGISTER_RSI || operand->mem.base == ZYDIS_REGISTER_ESI ||
             operand->mem.base == ZYDIS_REGISTER_SI))
            out->segment = (uint8_t)(operand->mem.segment - ZYDIS_REGISTER_ES);
    }
    if (out->flags & (INSN_REP | INSN_REPNE))
        return functions[kind][out->flags & INSN_EA ? 3 : 2][size];
    return functions[kind][out->flags & INSN_EA ? 1 : 0][size];
}

#define SELECT_STRING(name, kind, size)                                                            \
    static insn_fn *select_##name(struct decoded *d, struct insn *out)                             \
    {                                                                                              \
        return select_string(d, out, kind, size);                                                  \
    }
#define SELECT_STRINGS(name, kind)                                                                 \
    SELECT_STRING(name##b, kind, 0)                                                                \
    SELECT_STRING(name##w, kind, 1)                                                                \
    SELECT_STRING(name##d, kind, 2)                                                                \
    SELECT_STRING(name##q, kind, 3)
SELECT_STRINGS(movs, STRING_MOVS)
SELECT_STRINGS(cmps, STRING_CMPS)
SELECT_STRINGS(stos, STRING_STOS)
SELECT_STRINGS(lods, STRING_LODS)
SELECT_STRINGS(scas, STRING_SCAS)

const struct op_row ops_string[] = {
    {ZYDIS_MNEMONIC_MOVSB, select_movsb}, {ZYDIS_MNEMONIC_MOVSW, select_movsw},
    {ZYDIS_MNEMONIC_MOVSD, select_movsd}, {ZYDIS_MNEMONIC_MOVSQ, select_movsq},
    {ZYDIS_MNEMONIC_CMPSB, select_cmpsb}, {ZYDIS_MNEMONIC_CMPSW, select_cmpsw},
    {ZYDIS_MNEMONIC_CMPSD, select_cmpsd}, {ZYDIS_MNEMONIC_CMPSQ, select_cmpsq},
    {ZYDIS_MNEMONIC_STOSB, select_stosb}, {ZYDIS_MNEMONIC_STOSW, select_stosw},
    {ZYDIS_MNEMONIC_STOSD, select_stosd}, {ZYDIS_MNEMONIC_STOSQ, select_stosq},
    {ZYDIS_MNEMONIC_LODSB, select_lodsb}, {ZYDIS_MNEMONIC_LODSW, select_lodsw},
    {ZYDIS_MNEMONIC_LODSD, select_lodsd}, {ZYDIS_MNEMONIC_LODSQ, select_lodsq},
    {ZYDIS_MNEMONIC_SCASB, select_scasb}, {ZYDIS_MNEMONIC_SCASW, select_scasw},
    {ZYDIS_MNEMONIC_SCASD, select_scasd}, {ZYDIS_MNEMONIC_SCASQ, select_scasq},
    {ZYDIS_MNEMONIC_INVALID, NULL},
};
