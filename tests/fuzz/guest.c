/* SPDX-License-Identifier: MIT */
/* Guests made from random numbers. (Nothing here is to be explored by a fuzzer: not traced.) */
#include "tests/fuzz/guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/soft/engine.h"

#define UNTRACED __attribute__((no_sanitize("coverage")))

#define PML4       0x1000u
#define PDPT       0x2000u
#define PD_LOW     0x3000u /* 2 MiB pages; the first MiBs by PT */
#define PD_DEVICES 0x4000u /* 0xc0000000 and on */
#define PDPT_PAE   0x5000u
#define PD_32      0x6000u
#define PT         0x7000u
#define PT_32      0x8000u
#define IDT_64     0x9000u
#define IDT_32     0xa000u
#define GDT        0xb000u
#define LDT        0xb800u
#define TSS        0xc000u
#define TSS_OTHER  0xd000u

#define CODE_32        0x08u
#define DATA_32        0x10u
#define CODE_32_USER   0x1bu
#define DATA_USER      0x23u
#define CODE_64_USER   0x2bu
#define CODE_64        0x30u
#define TSS_SELECTOR   0x38u
#define CODE_16        0x48u
#define DATA_16        0x50u
#define OTHER_SELECTOR 0x58u

void guest_must(bool good, const char *file, int line)
{
    if (!good) {
        dprintf(2, "%s:%d does not hold\n", file, line);
        abort();
    }
}

struct vm *guest_vm(unsigned vcpus, bool translated)
{
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    must(vm != NULL);
    vm->config = (struct vm_config){
        .memory = GUEST_RAM, .smp = vcpus, .deterministic = true, .engine = "soft"};
    vm->config.translator = translated;
    vm->config.translator_warm = vm->config.translator_hot =
        1; /* so that what runs once is translated */
    vm->engine = &soft_engine;
    must(!vm_create(vm, &err));
    return vm;
}

UNTRACED uint64_t guest_draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state * 0x2545f4914f6cdd1dull;
}

UNTRACED static void put(struct vm *vm, uint64_t at, uint64_t value)
{
    memcpy(vm->memory.host + at, &value, 8);
}

/* ---- code -------------------------------------------------------------------------------------
 * */

#define SEQUENCE_MAX 24u

struct bytes {
    uint8_t *at;
    unsigned count;
};

UNTRACED static void emit(struct bytes *code, uint64_t value, unsigned size)
{
    memcpy(code->at + code->count, &value, size);
    code->count += size;
}

/* MOV EDX, a port of a device's; IN or OUT or INS or OUTS */
UNTRACED static void emit_port(struct vm *vm, struct bytes *code, uint64_t n)
{
    static const uint8_t how[] = {0xec, 0xed, 0xee, 0xef, 0xee, 0xec, 0x6c, 0x6f};
    const struct bus_window *w = &vm->bus.ports[(n >> 8) % vm->bus.port_windows];
    emit(code, 0xba, 1);
    emit(code, w->first + (n >> 16) % w->count, 4);
    if (n & 0x80) {
        emit(code, 0xb0, 1); /* MOV AL */
        emit(code, n >> 40, 1);
    }
    if (n & 0x40)
        emit(code, 0x66, 1);
    if ((n & 0x38) == 0x38)
        emit(code, 0xf3, 1);
    emit(code, how[n & 7], 1);
}

/* MOV ECX, an MSR; RDMSR or WRMSR */
UNTRACED static void emit_msr(struct bytes *code, uint64_t n)
{
    static const uint32_t msrs[] = {0x10,       0x1b,       0x174,      0x175,      0x176,
                                    0x1d9,      0x277,      0x2ff,      0x3a,       0x3b,
                                    0x6e0,      0xc0000080, 0xc0000081, 0xc0000082, 0xc0000084,
                                    0xc0000100, 0xc0000102, 0xc0000103, 0x4b564d00, 0x4b564d01};
    uint32_t msr = msrs[(n >> 8) % (sizeof msrs / sizeof *msrs)];
    if (n & 2)
        msr = 0x800 + (n >> 16 & 0x3f);
    emit(code, 0xb9, 1);
    emit(code, n & 0xe0 ? msr : n >> 32, 4);
    emit(code, n & 1 ? 0x300f : 0x320f, 2);
}

/* MOV EAX, a device's register; an access */
UNTRACED static void emit_mmio(struct vm *vm, struct bytes *code, uint64_t n)
{
    static const uint16_t how[] = {0x0889, 0x088b, 0x0088, 0x0801, 0x0887, 0x10ff, 0x20ff, 0x00f6};
    static const uint32_t commands[] = {0xc4500, 0xc4610, 0xc4400, 0x44030,
                                        0x4611,  0x2003f, 0xc8031, 0x40010};
    emit(code, 0xb8, 1);
    if ((n & 0x300) == 0) { /* an interprocessor interrupt */
        emit(code, 0xfee00300, 4);
        emit(code, 0x00c7, 2);
        emit(code, n & 0x400 ? commands[n >> 16 & 7] : n >> 32, 4);
        return;
    }
    const struct bus_window *w = &vm->bus.mmio[(n >> 12) % vm->bus.mmio_windows];
    uint64_t offset = n & 0x400 ? (n >> 16 & 0x3f) << 4 : (n >> 16) % w->count;
    emit(code, w->first + offset % w->count, 4);
    if (n & 0x800)
        emit(code, 0x48, 1);
    emit(code, how[n & 7], 2);
}

/* MOV EAX, an entry of some table; MOV [EAX], ECX or RCX; what makes it known */
UNTRACED static void emit_table(struct bytes *code, uint64_t n)
{
    static const uint64_t how[] = {0x38010f, 0xd8220fd8200f, 0xe0220fe0200f, 0xd88ec88c,
                                   0xc0220fc0200f};
    emit(code, 0xb8, 1);
    emit(code, (n >> 16) % GUEST_HANDLERS, 4);
    if (n & 8) {
        emit(code, 0xb9, 1); /* MOV ECX */
        emit(code, (n >> 32 & 0x3f000) | (n & 0x1e7), 4);
    }
    if (n & 16)
        emit(code, 0x48, 1);
    emit(code, 0x0889, 2);
    emit(code, how[n % 5], n % 5 == 0 ? 3 : n % 5 == 3 ? 4 : 6);
}

/* Length, and the bytes. */
static const uint8_t useful[][5] = {
    {2, 0x0f, 0xa2},             /* CPUID */
    {2, 0xf3, 0xa4},             /* REP MOVSB */
    {2, 0xf3, 0xab},             /* REP STOSD */
    {2, 0xf3, 0x6d},             /* REP INSD */
    {2, 0xf2, 0xae},             /* REPNE SCASB */
    {1, 0xf4},                   /* HLT */
    {1, 0xfb},                   /* STI */
    {1, 0x9d},                   /* POPF */
    {1, 0xcf},                   /* IRET */
    {2, 0x48, 0xcf},             /* IRETQ */
    {2, 0x0f, 0x05},             /* SYSCALL */
    {3, 0x48, 0x0f, 0x07},       /* SYSRET */
    {2, 0x0f, 0x34},             /* SYSENTER */
    {2, 0x0f, 0x35},             /* SYSEXIT */
    {3, 0x0f, 0x22, 0xc0},       /* MOV CR0, RAX */
    {3, 0x0f, 0x22, 0xe0},       /* MOV CR4, RAX */
    {3, 0x0f, 0x23, 0xf8},       /* MOV DR7, RAX */
    {3, 0x0f, 0x23, 0xc0},       /* MOV DR0, RAX */
    {3, 0x0f, 0x00, 0xd8},       /* LTR */
    {3, 0x0f, 0x00, 0xd0},       /* LLDT */
    {3, 0x0f, 0x01, 0x10},       /* LGDT */
    {3, 0x0f, 0x01, 0x18},       /* LIDT */
    {3, 0x0f, 0x01, 0xf0},       /* LMSW */
    {2, 0x8e, 0xd8},             /* MOV DS */
    {2, 0x8e, 0xd0},             /* MOV SS */
    {3, 0x0f, 0xae, 0x00},       /* FXSAVE */
    {3, 0x0f, 0xae, 0x08},       /* FXRSTOR */
    {3, 0x0f, 0xae, 0x20},       /* XSAVE */
    {3, 0x0f, 0xae, 0x28},       /* XRSTOR */
    {3, 0x0f, 0x01, 0xd1},       /* XSETBV */
    {2, 0xd9, 0xe8},             /* FLD1 */
    {2, 0xdd, 0x20},             /* FRSTOR */
    {3, 0x0f, 0x58, 0xc1},       /* ADDPS */
    {4, 0xc5, 0xf4, 0x58, 0xc2}, /* VADDPS */
    {3, 0x0f, 0x58, 0x08},       /* ADDPS of memory */
    {2, 0xcd, 0x80},             /* INT */
    {1, 0xcb},                   /* RETF */
    {2, 0xff, 0x18},             /* CALL far */
    {2, 0xff, 0x28},             /* JMP far */
    {3, 0x0f, 0xc7, 0x08},       /* CMPXCHG8B */
    {4, 0x48, 0x0f, 0xc7, 0x08}, /* CMPXCHG16B */
    {4, 0xf0, 0x0f, 0xb1, 0x08}, /* LOCK CMPXCHG */
    {3, 0x0f, 0x09, 0x90},       /* WBINVD */
    {2, 0xf3, 0x90},             /* PAUSE */
    {2, 0xeb, 0xf0},             /* JMP back */
    {2, 0xe2, 0xf4},             /* LOOP */
    {2, 0x75, 0x05},             /* JNZ */
    {2, 0xff, 0xe0},             /* JMP RAX */
    {1, 0xc3},                   /* RET */
    {1, 0xc9},                   /* LEAVE */
    {4, 0xc8, 0x08, 0x00, 0x05}, /* ENTER */
    {3, 0x0f, 0x00, 0xe0},       /* VERR */
    {3, 0x0f, 0x02, 0xc1},       /* LAR */
    {3, 0x0f, 0x01, 0xf8},       /* SWAPGS */
    {2, 0x0f, 0x06},             /* CLTS */
};

UNTRACED static void emit_useful(struct bytes *code, uint64_t n)
{
    const uint8_t *row = useful[(n >> 8) % (sizeof useful / sizeof *useful)];
    uint64_t word = 0;
    memcpy(&word, row + 1, row[0]);
    emit(code, word, row[0]);
}

/* A far transfer by a selector: JMP, CALL, or PUSH and RETF */
UNTRACED static void emit_far(struct bytes *code, uint64_t n)
{
    uint64_t target = GUEST_CODE + (n >> 16 & 0xffff), selector = n & 0x9b;
    if (n & 0x400) {
        emit(code, 0x6a, 1);
        emit(code, selector, 1);
        emit(code, 0x68, 1);
        emit(code, target, 4);
        emit(code, n & 0x800 ? 0xcb48 : 0xcb, n & 0x800 ? 2 : 1);
        return;
    }
    emit(code, n & 0x800 ? 0x9a : 0xea, 1);
    emit(code, target, 4);
    emit(code, selector, 2);
}

UNTRACED void guest_fill_code(struct vm *vm, uint64_t *state)
{
    static uint8_t pool[0x2000 + SEQUENCE_MAX];
    struct bytes code = {pool, 0};
    while (code.count < 0x2000) {
        uint64_t kind = guest_draw(state), n = guest_draw(state);
        switch (kind & 15) {
        case 0:
            emit_port(vm, &code, n);
            break;
        case 1:
            emit_msr(&code, n);
            break;
        case 2:
            emit_mmio(vm, &code, n);
            break;
        case 3:
            emit_table(&code, n);
            break;
        case 4:
            emit_far(&code, n);
            break;
        case 5:
        case 6:
        case 7:
            emit_useful(&code, n);
            break;
        default:
            emit(&code, n, 1 + (kind >> 8 & 7));
        }
    }
    for (uint32_t at = GUEST_CODE; at < GUEST_RAM; at += 0x2000)
        memcpy(vm->memory.host + at, pool, 0x2000);
}

/* ---- tables -----------------------------------------------------------------------------------
 * */

UNTRACED static void fill_pages(struct vm *vm)
{
    put(vm, PML4, PDPT | 7);
    put(vm, PML4 + 8 * 511, PDPT | 7);
    put(vm, PDPT, PD_LOW | 7);
    put(vm, PDPT + 8 * 3, PD_DEVICES | 7);
    put(vm, PDPT + 8 * 510, PD_LOW | 7);
    put(vm, PDPT + 8 * 511, PD_DEVICES | 7);
    put(vm, PDPT_PAE, PD_LOW | 1);
    put(vm, PDPT_PAE + 8 * 3, PD_DEVICES | 1);
    put(vm, PD_LOW, PT | 7);
    for (uint64_t n = 1; n < 512; n++)
        put(vm, PD_LOW + 8 * n, (n & 3) << 21 | (n & 0x1f ? 0xe7 : 0x87));
    for (uint64_t n = 0; n < 512; n++)
        put(vm, PD_DEVICES + 8 * n, 0xc0000000 | n << 21 | 0x83);
    for (uint64_t n = 0; n < 512; n++) /* RAM, again and again, with other rights */
        put(vm, PT + 8 * n, (n << 12) % GUEST_RAM | (n < 128 ? 7 : n & 0x67));
    for (uint32_t n = 0; n < 1024; n += 2) {
        uint64_t even = (n << 12) % GUEST_RAM | 7, odd = even + 0x1000;
        put(vm, PT_32 + 4 * n, odd << 32 | even);
        even = n << 22 | 0xe7;
        put(vm, PD_32 + 4 * n, (even + 0x400000) << 32 | even);
    }
    put(vm, PD_32, PT_32 | 7 | (uint64_t)0x4000e7 << 32);
}

/* At GUEST_HANDLERS, 64 bytes each: for exceptions without and with error code, for interrupts. */
UNTRACED static void fill_handlers(struct vm *vm)
{
    static const uint8_t handlers[][16] = {
        {0x48, 0xff, 0x04, 0x24, 0x48, 0xcf}, /* INC [RSP]; IRETQ */
        {0x48, 0x83, 0xc4, 8, 0x48, 0xff, 0x04, 0x24, 0x48, 0xcf},
        {0x50, 0xb8, 0xb0, 0, 0xe0, 0xfe, 0x83, 0x20, 0, 0x58, 0x48, 0xcf}, /* EOI */
        {0xff, 0x04, 0x24, 0xcf},                                           /* INC [ESP]; IRET */
        {0x83, 0xc4, 4, 0xff, 0x04, 0x24, 0xcf},
        {0x50, 0xb8, 0xb0, 0, 0xe0, 0xfe, 0x83, 0x20, 0, 0x58, 0xcf},
        {0x55, 0x89, 0xe5, 0xff, 0x46, 2, 0x5d, 0xcf}, /* real mode: PUSH BP; … INC [BP + 2] */
    };
    for (unsigned n = 0; n < sizeof handlers / sizeof *handlers; n++)
        memcpy(vm->memory.host + GUEST_HANDLERS + 64 * n, handlers[n], sizeof *handlers);
}

UNTRACED static void fill_gates(struct vm *vm, unsigned anywhere, uint64_t *state)
{
    static const uint32_t with_error = 1u << 8 | 0x1fu << 10 | 1u << 17 | 1u << 21;
    for (unsigned n = 0; n < 256; n++) {
        uint64_t random = guest_draw(state), type = 0xee;
        uint64_t offset = GUEST_HANDLERS + (n >= 32 ? 128 : with_error >> n & 1 ? 64 : 0);
        uint64_t offset32 = offset + 192, real = 0x0e000180;
        uint64_t code = CODE_64, code32 = CODE_32;
        if ((random & 0xff) < anywhere) {
            offset = offset32 = real = GUEST_CODE + (random >> 8) % (GUEST_DATA - GUEST_CODE);
            if (random & 0x1000000)
                type = random >> 32 & 0xff;
            if (random & 0x2000000)
                code = code32 = random >> 40 & 0xff;
        }
        uint64_t ist = random >> 48 & 15; /* mostly none */
        put(vm, IDT_64 + 16 * n,
            (offset & 0xffff) | code << 16 | (ist < 8 ? ist : 0) << 32 | type << 40 |
                (offset >> 16) << 48);
        put(vm, IDT_64 + 16 * n + 8, 0);
        put(vm, IDT_32 + 8 * n,
            (offset32 & 0xffff) | code32 << 16 | type << 40 | (offset32 >> 16) << 48);
        memcpy(vm->memory.host + 4 * n, &real, 4);
    }
}

UNTRACED static void fill_descriptors(struct vm *vm, bool wide)
{
    static const uint64_t gdt[] = {
        0,
        0x00cf9b000000ffff, /* 08 code, 32 bits */
        0x00cf93000000ffff, /* 10 data */
        0x00cffb000000ffff, /* 18 user code, 32 bits */
        0x00cff3000000ffff, /* 20 user data */
        0x00affb000000ffff, /* 28 user code, 64 bits */
        0x00af9b000000ffff, /* 30 code, 64 bits */
        0x00008b00c0000fff, /* 38 TSS */
        0,                  /* 40 its other half */
        0x00009b010000ffff, /* 48 code, 16 bits, at GUEST_CODE */
        0x000093030000ffff, /* 50 data, 16 bits, at GUEST_DATA */
        0x00008900d0000067, /* 58 another TSS */
        0x0001ec0000300000, /* 60 call gate to CODE_64 at GUEST_CODE */
        0,                  /* 68 its other half */
        0x00008200b8000047, /* 70 LDT */
        0x00cf9f000000ffff, /* 78 conforming code */
        0x00cf97000000ffff, /* 80 data, expand-down */
        0x0000e50000580000, /* 88 task gate */
        0x0001ec0000080000, /* 90 call gate to CODE_32 at GUEST_CODE */
        0x0001e40200480000, /* 98 call gate, 16 bits, two words */
    };
    memcpy(vm->memory.host + GDT, gdt, sizeof gdt);
    memcpy(vm->memory.host + LDT, gdt, 0x38);
    if (wide) {
        for (unsigned n = 0; n < 13; n++)
            put(vm, TSS + 4 + 8 * n, GUEST_DATA + 0x8000 + 0x400 * n);
    } else {
        for (unsigned n = 0; n < 3; n++)
            put(vm, TSS + 4 + 8 * n, (uint64_t)DATA_32 << 32 | (GUEST_DATA + 0x8000 + 0x400 * n));
    }
    put(vm, TSS + 0x60, (uint64_t)0x68 << 48); /* the I/O map: some ports are the user's */
    put(vm, TSS + 0x68 + 0x3f8 / 8, ~0ull);
    static const uint32_t other[26] = {
        [0] = TSS_SELECTOR,
        [1] = GUEST_DATA + 0xa000,
        [2] = DATA_32,
        [7] = PDPT_PAE,
        [8] = GUEST_CODE + 0x40,
        [9] = RFLAGS_ONE,
        [14] = GUEST_DATA + 0xb000,
        [18] = DATA_32,
        [19] = CODE_32,
        [20] = DATA_32,
        [21] = DATA_32,
    };
    memcpy(vm->memory.host + TSS_OTHER, other, sizeof other);
}

void guest_fill_tables(struct vm *vm, enum guest_mode mode, unsigned anywhere, uint64_t *state)
{
    fill_pages(vm);
    fill_handlers(vm);
    fill_gates(vm, anywhere, state);
    fill_descriptors(vm, guest_long(mode));
}

/* ---- the vCPU ---------------------------------------------------------------------------------
 * */

static void enter_segments(struct vcpu *cpu, uint16_t code, uint32_t code_rights, uint16_t data,
                           uint32_t data_rights)
{
    for (unsigned n = SEG_ES; n <= SEG_GS; n++)
        cpu->segment[n] = (struct segment){
            .selector = data, .rights = data_rights | RIGHTS_G | RIGHTS_DB, .limit = 0xffffffff};
    cpu->segment[SEG_CS].selector = code;
    cpu->segment[SEG_CS].rights = code_rights | RIGHTS_G;
}

static void enter_16(struct vcpu *cpu, uint32_t rights, uint16_t code, uint16_t data)
{
    for (unsigned n = SEG_ES; n <= SEG_GS; n++)
        cpu->segment[n] = (struct segment){
            .selector = data, .rights = rights, .limit = 0xffff, .base = GUEST_DATA};
    cpu->segment[SEG_CS].selector = code;
    cpu->segment[SEG_CS].base = GUEST_CODE;
    cpu->rip = 0;
}

/* What system calls lead to. */
static void set_entries(struct vcpu *cpu)
{
    cpu->lstar = cpu->cstar = cpu->sysenter_eip = GUEST_CODE + 0x100;
    cpu->sysenter_esp = GUEST_STACK - 0x2000;
    cpu->star = (uint64_t)0x18 << 48 | (uint64_t)CODE_64 << 32;
    cpu->sysenter_cs = CODE_32;
    cpu->fmask = RFLAGS_TF | RFLAGS_DF;
}

void guest_enter(struct vcpu *cpu, enum guest_mode mode)
{
    bool wide = guest_long(mode), paging = mode >= GUEST_PAGING32;
    set_entries(cpu);
    cpu->gdt_base = GDT;
    cpu->gdt_limit = 0x9f;
    cpu->idt_base = mode == GUEST_REAL ? 0 : wide ? IDT_64 : IDT_32;
    cpu->idt_limit = mode == GUEST_REAL ? 0x3ff : wide ? 0xfff : 0x7ff;
    cpu->segment[SEG_LDTR] = (struct segment){0x70, 0x82, 0x47, LDT};
    cpu->segment[SEG_TR] = (struct segment){TSS_SELECTOR, 0x8b, 0xfff, TSS};
    cpu->cr3 = wide ? PML4 : mode == GUEST_PAGING32 ? PD_32 : PDPT_PAE;
    cpu->cr0 = CR0_ET | (mode == GUEST_REAL ? 0 : CR0_PE) | (paging ? CR0_PG : 0);
    cpu->cr4 = paging && mode != GUEST_PAGING32 ? CR4_PAE : 0;
    cpu->efer = EFER_SCE | EFER_NXE | (wide ? EFER_LME | EFER_LMA : 0);
    cpu->rip = GUEST_CODE;
    switch (mode) {
    case GUEST_REAL:
        enter_16(cpu, 0x93, GUEST_CODE >> 4, GUEST_DATA >> 4);
        break;
    case GUEST_V86:
        enter_16(cpu, 0xf3, GUEST_CODE >> 4, GUEST_DATA >> 4);
        vcpu_set_rflags(cpu, vcpu_rflags(cpu) | RFLAGS_VM);
        break;
    case GUEST_FLAT16:
        enter_16(cpu, 0x93, CODE_16, DATA_16);
        cpu->segment[SEG_CS].rights = 0x9b;
        break;
    case GUEST_USER32:
    case GUEST_COMPATIBILITY:
        enter_segments(cpu, CODE_32_USER, 0xfb | RIGHTS_DB, DATA_USER, 0xf3);
        break;
    case GUEST_USER64:
        enter_segments(cpu, CODE_64_USER, 0xfb | RIGHTS_L, DATA_USER, 0xf3);
        break;
    case GUEST_KERNEL64:
        enter_segments(cpu, CODE_64, 0x9b | RIGHTS_L, DATA_32, 0x93);
        break;
    default:
        enter_segments(cpu, CODE_32, 0x9b | RIGHTS_DB, DATA_32, 0x93);
    }
}
