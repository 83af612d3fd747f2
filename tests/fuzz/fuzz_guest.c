/* Random guests: memory full of random code, tables that mostly lead back into it, any mode, any registers, two vCPUs and
 * all devices. Whatever they do, the host process must neither crash nor hang nor leave its memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/soft/engine.h"
#include "runtime/vcpu.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define RAM          (2u << 20)
#define INSTRUCTIONS 30000 /* of one input, all vCPUs */
#define PML4         0x1000u
#define PDPT         0x2000u
#define PD           0x3000u
#define IDT          0x4000u
#define GDT          0x5000u
#define TSS          0x6000u
#define CODE         0x10000u

struct input {
    const uint8_t *next, *end;
    uint64_t state; /* of a generator, once the bytes are used up */
};

static uint64_t draw(struct input *in)
{
    in->state ^= in->state << 13;
    in->state ^= in->state >> 7;
    in->state ^= in->state << 17;
    for (unsigned n = 0; n < 8 && in->next < in->end; n++)
        in->state = (in->state << 8 | in->state >> 56) ^ *in->next++;
    in->state += !in->state;
    return in->state;
}

static void put(struct vm *vm, uint64_t at, uint64_t value)
{
    memcpy(vm->memory.host + at, &value, 8);
}

/* Code: the input's own bytes again and again, with instructions between them that keep a guest going or
 * that reach what random bytes seldom reach. */
static void fill_code(struct vm *vm, struct input *in)
{
    static const uint8_t useful[][4] = {
        {0x0f, 0xa2},
        {0x0f, 0x32},
        {0x0f, 0x30},
        {0xec},
        {0xee},
        {0xf3, 0x6d},
        {0xf3, 0xa4},
        {0xf3, 0xab},
        {0xf4},
        {0xfb},
        {0x9d},
        {0xcf},
        {0x48, 0xcf},
        {0x0f, 0x05},
        {0x0f, 0x07},
        {0x0f, 0x22, 0xc0},
        {0x0f, 0x22, 0xd8},
        {0x0f, 0x22, 0xe0},
        {0x0f, 0x01, 0x38},
        {0x0f, 0x00, 0xd8},
        {0x8e, 0xd8},
        {0x8e, 0xd0},
        {0x0f, 0xae, 0x00},
        {0x0f, 0xae, 0x08},
        {0x0f, 0xae, 0x20},
        {0x0f, 0xae, 0x28},
        {0x0f, 0x01, 0xd1},
        {0xd9, 0xe8},
        {0xde, 0xc1},
        {0x0f, 0x58, 0xc1},
        {0xc5, 0xf4, 0x58, 0xc2},
        {0xcd, 0x80},
        {0xcb},
        {0xca, 0x08},
        {0xff, 0x18},
        {0xff, 0x28},
        {0x0f, 0xc7, 0x08},
        {0xf0, 0x0f, 0xb1, 0x08},
        {0x0f, 0x23, 0xf8},
        {0x0f, 0x01, 0x10},
        {0x0f, 0xb9, 0x40},
    };
    for (uint32_t at = CODE; at + 16 < RAM; at += 8) {
        uint64_t word = draw(in);
        put(vm, at, word);
        if (word % 3 == 0)
            memcpy(vm->memory.host + at, useful[(word >> 8) % (sizeof useful / 4)], 4);
    }
}

static void fill_tables(struct vm *vm, struct input *in)
{
    put(vm, PML4, PDPT | 7);
    put(vm, PML4 + 8 * 511, PDPT | 7);
    put(vm, PDPT, PD | 7);
    put(vm, PDPT + 8 * 510, PD | 7);
    for (unsigned n = 0; n < 512; n++)
        put(vm, PD + 8 * n, (n < 1 ? 0 : draw(in) & 0x1fe00000) | 0xe7);
    for (unsigned n = 0; n < 256;
         n++) { /* gates of 16 bytes: half an entry is a good 32-bit gate too */
        uint64_t offset = CODE + (draw(in) % (RAM - CODE));
        put(vm, IDT + 16 * n,
            (offset & 0xffff) | 0x08ull << 16 | (draw(in) & 7) << 32 |
                (draw(in) % 8 ? 0xee : draw(in) & 0xff) << 40 | (offset >> 16) << 48);
        put(vm, IDT + 16 * n + 8, 0);
    }
    static const uint64_t gdt[] = {0,
                                   0x00af9b000000ffff,
                                   0x00cf93000000ffff,
                                   0x00cffb000000ffff,
                                   0x00cff3000000ffff,
                                   0x00affb000000ffff,
                                   0x00cf9b000000ffff,
                                   0x00008b0060000067,
                                   0,
                                   0x00009b000000ffff};
    memcpy(vm->memory.host + GDT, gdt, sizeof gdt);
    for (unsigned n = 0; n < 13; n++)
        put(vm, TSS + 4 + 8 * n, RAM / 2 + 0x1000 * n);
    for (unsigned n = draw(in) % 64; n; n--) /* and some of it spoiled */
        put(vm, PML4 + draw(in) % 0x6000, draw(in));
}

static void set_mode(struct vcpu *cpu, struct input *in)
{
    uint64_t choice = draw(in);
    cpu->gdt_base = GDT;
    cpu->gdt_limit = 0xfff;
    cpu->idt_base = IDT;
    cpu->idt_limit = 0xfff;
    cpu->cr3 = PML4;
    unsigned mode = choice & 3;
    if (mode == 0) { /* real */
        cpu->rip = CODE >> 4;
    } else if (mode == 1) { /* protected, no paging */
        cpu->cr0 = CR0_PE | CR0_ET | CR0_NE;
        cpu->rip = CODE;
    } else {
        cpu->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG | (choice & CR0_WP);
        cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE |
                   (choice >> 8 & (CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_DE));
        cpu->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NXE;
        cpu->rip = CODE;
        cpu->xcr0 = 7;
    }
    bool user = mode >= 2 && choice & 0x10;
    if (mode) {
        uint32_t code = 0x9b | RIGHTS_G | (mode >= 2 ? RIGHTS_L : RIGHTS_DB) | (user ? 0x60 : 0);
        uint32_t data = 0x93 | RIGHTS_G | RIGHTS_DB | (user ? 0x60 : 0);
        for (int s = SEG_ES; s <= SEG_GS; s++)
            cpu->segment[s] =
                (struct segment){user ? 0x23 : 0x10, s == SEG_CS ? code : data, 0xffffffff, 0};
        cpu->segment[SEG_CS].selector = user ? 0x2b : 8;
        cpu->segment[SEG_TR] = (struct segment){0x38, 0x8b, 0x67, TSS};
        cpu->cpl = user ? 3 : 0;
    } else {
        cpu->segment[SEG_CS].base = CODE;
        cpu->rip = 0;
    }
    cpu->lstar = cpu->cstar = cpu->sysenter_eip = CODE + 0x100;
    cpu->star = 0x0010000800000000ull;
    cpu->sysenter_cs = 8;
    for (int n = 0; n < 16; n++)
        cpu->r[n] = draw(in) % 4 ? draw(in) % RAM : draw(in);
    cpu->r[RSP] = RAM / 2 + draw(in) % 0x1000;
    vcpu_set_rflags(cpu, draw(in) & 0x3f7fd7);
    vcpu_mode_changed(cpu);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static bool quiet;
    struct error err = {0};
    struct vm *vm = calloc(1, sizeof *vm);
    struct input in = {bytes, bytes + size, 0x9e3779b97f4a7c15ull};
    if (!quiet) { /* a dying guest's register dump is no news here; libFuzzer has a descriptor of its own */
        stderr = fopen("/dev/null", "w");
        quiet = true;
    }
    if (!vm)
        return 0;
    vm->config = (struct vm_config){
        .memory = RAM, .smp = 1 + (size & 1), .deterministic = true, .engine = "soft"};
    vm->engine = &soft_engine;
    if (vm_create(vm, &err) < 0)
        abort();
    fill_tables(vm, &in);
    fill_code(vm, &in);
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        vm->vcpus[k]->activity = ACTIVITY_ACTIVE;
        set_mode(vm->vcpus[k], &in);
    }
    for (unsigned turn = 0; turn < 64 && !vm->shutdown && soft_instructions(vm) < INSTRUCTIONS;
         turn++)
        for (unsigned k = 0; k < vm->vcpu_count && !vm->shutdown; k++) {
            clock_run(&vm->clock);
            if (turn & 1 && draw(&in) & 1)
                soft_step(vm->vcpus[k]);
            else
                soft_run(vm->vcpus[k], 2000);
        }
    vm_destroy(vm);
    free(vm);
    return 0;
}
