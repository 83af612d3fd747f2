/* SPDX-License-Identifier: MIT */
/* Random guest programs around IO instructions.
 *
 * R14 holds the data address and R13 the loop counter: nothing else writes to them. Ports are
 * those of io_lab.h. */
#include "tests/unit/io_program.h"

#include <string.h>

#include "tests/unit/io_lab.h"

enum { LEAVES = 4, ROOM = 64 /* bytes that one item takes at most, and the end */ };

struct writer {
    struct io_program *p;
    uint64_t data;
    uint64_t leaf[LEAVES], thunk;
    unsigned depth; /* loops around this place */
};

uint64_t io_program_random(struct io_program *p)
{
    p->seed ^= p->seed << 13;
    p->seed ^= p->seed >> 7;
    p->seed ^= p->seed << 17;
    return p->seed;
}

unsigned io_program_below(struct io_program *p, unsigned bound)
{
    return (unsigned)(io_program_random(p) >> 20) % bound;
}

static unsigned below(struct writer *w, unsigned bound)
{
    return io_program_below(w->p, bound);
}

static void bytes(struct writer *w, const uint8_t *from, size_t size)
{
    memcpy(w->p->code + w->p->size, from, size);
    w->p->size += size;
}
#define EMIT(w, ...)                                                                               \
    bytes(w, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void emit32(struct writer *w, uint32_t value)
{
    bytes(w, (const uint8_t *)&value, 4);
}

static uint64_t here(const struct writer *w)
{
    return w->p->base + w->p->size;
}

static void note_io(struct writer *w)
{
    if (w->p->io_count < PROGRAM_IO)
        w->p->io[w->p->io_count++] = here(w);
}

/* EAX, EBX, EDI, ESI, ECX: what computations are made with (EDX is the port). */
static unsigned some_register(struct writer *w)
{
    static const uint8_t registers[] = {0, 3, 7, 6, 1, 0};
    return registers[below(w, sizeof registers)];
}

static uint8_t some_port(struct writer *w)
{
    return (uint8_t)(LAB_PORT + below(w, LAB_PORTS - 4));
}

static void rex(struct writer *w)
{
    if (below(w, 3) == 0)
        EMIT(w, 0x48);
}

/* ---- items ---- */
static void io(struct writer *w)
{
    static const uint8_t opcodes[] = {0xe4, 0xe5, 0xe6, 0xe7, 0xec, 0xed, 0xee, 0xef};
    uint8_t opcode = opcodes[below(w, sizeof opcodes)];
    if (opcode >= 0xec && below(w, 4)) {
        EMIT(w, 0xba);
        emit32(w, some_port(w));
    }
    note_io(w);
    if (opcode & 1 && below(w, 2))
        EMIT(w, 0x66);
    EMIT(w, opcode);
    if (opcode < 0xec)
        EMIT(w, some_port(w));
}

static void alu(struct writer *w)
{
    rex(w);
    EMIT(w, (uint8_t)(below(w, 8) << 3 | (below(w, 2) ? 1 : 3)),
         (uint8_t)(0xc0 | some_register(w) << 3 | some_register(w)));
}

static void alu_immediate(struct writer *w)
{
    rex(w);
    EMIT(w, 0x83, (uint8_t)(0xc0 | below(w, 8) << 3 | some_register(w)), (uint8_t)below(w, 256));
}

static void shift(struct writer *w)
{
    static const uint8_t kinds[] = {0, 1, 4, 5, 7};
    EMIT(w, 0xc1, (uint8_t)(0xc0 | kinds[below(w, 5)] << 3 | some_register(w)),
         (uint8_t)below(w, 32));
}

/* Instructions with a memory operand [R14 + disp8]. */
static void memory(struct writer *w)
{
    static const uint8_t opcodes[] = {0x89, 0x8b, 0x01, 0x03, 0x29, 0x31, 0x33,
                                      0x88, 0x8a, 0x39, 0x3b, 0x84, 0x87};
    EMIT(w, (uint8_t)(below(w, 3) ? 0x41 : 0x49), opcodes[below(w, sizeof opcodes)],
         (uint8_t)(0x46 | some_register(w) << 3), (uint8_t)below(w, 256));
}

static void stack(struct writer *w)
{
    EMIT(w, (uint8_t)(0x50 | some_register(w)), (uint8_t)(0x58 | some_register(w)));
}

static void set_register(struct writer *w)
{
    EMIT(w, (uint8_t)(0xb8 | some_register(w)));
    emit32(w, (uint32_t)io_program_random(w->p));
}

static void conditional(struct writer *w)
{
    if (below(w, 2))
        EMIT(w, 0x0f, (uint8_t)(0x90 | below(w, 16)), (uint8_t)(0xc0 | (below(w, 2) ? 0 : 3)));
    else
        EMIT(w, 0x0f, (uint8_t)(0x40 | below(w, 16)),
             (uint8_t)(0xc0 | some_register(w) << 3 | some_register(w)));
}

/* REP or not: INS, OUTS, MOVS, STOS, LODS, sometimes over the end of the page. */
static void string(struct writer *w)
{
    static const uint8_t opcodes[] = {0x6c, 0x6d, 0x6e, 0x6f, 0x6e, 0x6c, 0xa4, 0xa5, 0xaa, 0xac};
    uint8_t opcode = opcodes[below(w, sizeof opcodes)];
    uint32_t at = (uint32_t)w->data + (below(w, 40) ? 0 : 2036) + below(w, 8);
    EMIT(w, 0xbe);
    emit32(w, at);
    EMIT(w, 0xbf);
    emit32(w, at + below(w, 64));
    EMIT(w, 0xb9);
    emit32(w, below(w, 9));
    EMIT(w, 0xba);
    emit32(w, some_port(w));
    if (opcode < 0x70)
        note_io(w);
    if (below(w, 3))
        EMIT(w, 0xf3);
    EMIT(w, opcode);
}

static void call(struct writer *w)
{
    uint64_t leaf = w->leaf[below(w, LEAVES)];
    switch (below(w, 3)) {
    case 0:
        EMIT(w, 0xe8);
        emit32(w, (uint32_t)(leaf - here(w) - 4));
        return;
    case 1:
        EMIT(w, 0x41, 0xbf); /* mov r15d, leaf; call r15 */
        emit32(w, (uint32_t)leaf);
        EMIT(w, 0x41, 0xff, 0xd7);
        return;
    default:
        EMIT(w, 0x41, 0xbf); /* the same by retpoline */
        emit32(w, (uint32_t)leaf);
        EMIT(w, 0xe8);
        emit32(w, (uint32_t)(w->thunk - here(w) - 4));
    }
}

/* What no block holds, or what time and privilege show in. */
static void other(struct writer *w)
{
    switch (below(w, 12)) {
    case 0:
        EMIT(w, 0x53, 0x51, 0x52, 0x0f, 0xa2, 0x5a, 0x59, 0x5b); /* cpuid */
        return;
    case 1:
        EMIT(w, 0xfb); /* sti */
        return;
    case 2:
        EMIT(w, 0xfa); /* cli */
        return;
    case 3:
        if (!w->p->modifies)
            EMIT(w, 0x52, 0x0f, 0x31, 0x5a); /* rdtsc */
        return;
    case 4:
        EMIT(w, 0x9c, 0x9d); /* pushf; popf */
        return;
    case 5:
        EMIT(w, 0xf3, 0x90); /* pause */
        return;
    default:
        EMIT(w, 0x90);
    }
}

/* A byte of code that comes soon is written: an immediate, or a no-operation that becomes
 * another. */
static void modify(struct writer *w)
{
    if (!w->p->modifies)
        return;
    EMIT(w, 0xc6, 0x05); /* mov byte [rip + disp32], imm8 */
    if (below(w, 2)) {
        emit32(w, 2); /* behind its own immediate: mov al, imm8's */
        EMIT(w, (uint8_t)below(w, 256), 0x90, 0xb0, 0);
    } else {
        emit32(w, 0);
        EMIT(w, (uint8_t)(0x91 + 6 * below(w, 2)), 0x90); /* xchg eax, ecx or edi */
    }
}

static void fault(struct writer *w)
{
    switch (below(w, 4)) {
    case 0:
        EMIT(w, 0x8b, 0x04, 0x25); /* mov eax, [absent] */
        emit32(w, LAB_ABSENT - below(w, 4));
        return;
    case 1:
        EMIT(w, 0x89, 0x04, 0x25); /* mov [absent], eax */
        emit32(w, LAB_ABSENT - below(w, 4));
        return;
    case 2:
        EMIT(w, 0x31, 0xc9, 0xf7, 0xf1); /* xor ecx, ecx; div ecx */
        return;
    default:
        EMIT(w, 0x0f, 0x0b); /* ud2 */
    }
}

static void item(struct writer *w);

static void items(struct writer *w, unsigned count)
{
    while (count-- && w->p->size + 4 * ROOM < PROGRAM_BYTES)
        item(w);
}

static void forward(struct writer *w)
{
    size_t at = w->p->size;
    EMIT(w, (uint8_t)(below(w, 8) ? 0x70 | below(w, 16) : 0xeb), 0);
    items(w, 1 + below(w, 2));
    size_t distance = w->p->size - at - 2;
    if (distance < 128)
        w->p->code[at + 1] = (uint8_t)distance;
}

static void loop(struct writer *w)
{
    if (w->depth)
        return;
    w->depth++;
    EMIT(w, 0x41, 0xbd); /* mov r13d, count */
    emit32(w, 1 + below(w, 5));
    uint64_t top = here(w);
    items(w, 1 + below(w, 4));
    EMIT(w, 0x41, 0xff, 0xcd, 0x0f, 0x85); /* dec r13d; jnz top */
    emit32(w, (uint32_t)(top - here(w) - 4));
    w->depth--;
}

static void item(struct writer *w)
{
    static const struct {
        unsigned weight;
        void (*write)(struct writer *w);
    } kinds[] = {{30, io},   {14, alu},         {8, alu_immediate}, {4, shift},   {14, memory},
                 {3, stack}, {4, set_register}, {4, conditional},   {6, string},  {7, call},
                 {5, other}, {2, modify},       {1, fault},         {7, forward}, {5, loop}};
    unsigned total = 0, pick;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++)
        total += kinds[k].weight;
    pick = below(w, total);
    for (size_t k = 0;; k++) {
        if (pick < kinds[k].weight) {
            kinds[k].write(w);
            return;
        }
        pick -= kinds[k].weight;
    }
}

/* ---- the program ---- */
static void functions(struct writer *w)
{
    w->thunk = here(w); /* call 1f; 2: pause; jmp 2b; 1: mov [rsp], r15; ret */
    EMIT(w, 0xe8, 4, 0, 0, 0, 0xf3, 0x90, 0xeb, 0xfc, 0x4c, 0x89, 0x3c, 0x24, 0xc3);
    for (unsigned k = 0; k < LEAVES; k++) {
        w->leaf[k] = here(w);
        if (below(w, 2))
            alu(w);
        if (k)
            io(w);
        if (below(w, 2))
            memory(w);
        EMIT(w, 0xc3);
    }
}

void io_program_make(struct io_program *p, uint64_t seed, uint64_t base, uint64_t data)
{
    struct writer w = {.p = p, .data = data};
    p->seed = seed * 0x9e3779b97f4a7c15ull | 1;
    p->base = base;
    p->modifies = io_program_below(p, 3) == 0;
    p->size = p->io_count = 0;
    EMIT(&w, 0xe9); /* jmp over the functions */
    emit32(&w, 0);
    functions(&w);
    uint32_t over = (uint32_t)(p->size - 5);
    memcpy(p->code + 1, &over, 4);
    EMIT(&w, 0x41, 0xbe); /* mov r14d, data */
    emit32(&w, (uint32_t)data);
    EMIT(&w, (uint8_t)(below(&w, 2) ? 0xfb : 0xfa));
    items(&w, 3 + below(&w, 16));
    EMIT(&w, 0xf4, 0xeb, 0xfd);
}
