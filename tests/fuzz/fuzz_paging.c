/* SPDX-License-Identifier: MIT */
/* Hostile page tables: memory full of entries that lead anywhere, any control registers, any access. Nothing may
 * reach the host outside of RAM, and the TLB must say what the tables say. */
#include <setjmp.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "runtime/soft/access.h"
#include "runtime/soft/tlb.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define RAM        (MEMORY_HOLE + 0x100000) /* the last MiB stands from 4 GiB on */
#define SEEDED     8u                       /* pages full of entries, in each part */
#define OPERATIONS 96u

static struct vm vm;
static struct vcpu *cpu;

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

static uint64_t device_read(void *device, uint64_t offset, unsigned width)
{
    (void)device;
    return offset * width;
}
static void device_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    (void)device, (void)offset, (void)width, (void)value;
}

static void power_on(void)
{
    struct error err = {0};
    struct bus_window window = {.name = "fuzz",
                                .first = 0xfee00000,
                                .count = PAGE_SIZE,
                                .read = device_read,
                                .write = device_write};
    if (memory_create(&vm.memory, RAM, &err) || bus_add_mmio(&vm.bus, &window, &err))
        abort();
    cpu = vcpu_create(&vm, 0);
    vm.vcpus[0] = vm.running = cpu;
    vm.vcpu_count = 1;
}

/* A frame: most often one full of entries, else a device's, or anything. */
static uint64_t frame(struct input *in)
{
    uint64_t choice = draw(in);
    uint64_t page = (choice >> 8) % SEEDED << PAGE_SHIFT;
    switch (choice & 7) {
    case 0:
        return MEMORY_HIGH + page;
    case 1:
        return choice & 0x10 ? 0xfee00000 : RAM - page;
    case 2:
        return choice & 0x10 ? choice >> 8 << PAGE_SHIFT : 0x200000 * (page >> PAGE_SHIFT);
    default:
        return page;
    }
}

__attribute__((no_sanitize("coverage"))) static void seed_page(struct input *in, uint64_t physical)
{
    uint64_t *entry = (uint64_t *)memory_at(&vm.memory, physical, PAGE_SIZE);
    uint64_t base = frame(in), random = draw(in);
    for (unsigned n = 0; n < 512; n++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t flags = random >> 40 & 0x1ff;
        if (random >> 60) /* mostly present, writable, user */
            flags |= 7;
        if (random >> 52 & 15) /* and not large */
            flags &= ~0x80ull;
        entry[n] =
            (base + (random >> 32 & 7) * PAGE_SIZE) | flags | (random & 8 ? 0 : random << 63);
        if (!(random >> 20 & 0xff))
            entry[n] = random * random;
    }
}

static void seed_mode(struct input *in)
{
    uint64_t bits = draw(in);
    bool wide = bits & 1;
    cpu->cr0 = CR0_PE | (bits & 2 ? CR0_WP : 0) | (bits & 4 ? CR0_AM : 0) |
               (wide || bits & 0x78 ? CR0_PG : 0);
    cpu->cr4 = (bits >> 8 & (CR4_PSE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_PKE)) |
               (wide || bits & 0x80 ? CR4_PAE : 0);
    cpu->efer = (wide ? EFER_LME | EFER_LMA : 0) | (bits >> 32 & EFER_NXE);
    cpu->cr3 = frame(in) | (draw(in) & PAGE_OFFSET);
    cpu->pkru = (uint32_t)draw(in);
    cpu->dr[7] = bits >> 40 & 1 ? draw(in) & 0xffff03ff : 0x400;
    for (unsigned n = 0; n < 4; n++)
        cpu->dr[n] = draw(in);
    for (unsigned n = SEG_ES; n <= SEG_GS; n++) {
        uint64_t segment = draw(in);
        cpu->segment[n] = (struct segment){.selector = (uint16_t)segment,
                                           .rights = segment >> 16 & 0x1f0ff,
                                           .limit = (uint32_t)(segment >> 32),
                                           .base = wide ? draw(in) : (uint32_t)draw(in)};
    }
    vcpu_set_rflags(cpu, draw(in));
    vcpu_mode_changed(cpu);
    if (bits >> 41 & 1)
        tlb_load_pdptes(cpu, cpu->cr3);
    tlb_flush(cpu);
}

static uint64_t address(struct input *in)
{
    uint64_t value = draw(in);
    if (value & 3) /* near: few pages, so that they meet again */
        value &= 0x40203fff;
    if (value & 4)
        value |= PAGE_OFFSET & ~7ull; /* about to cross */
    return value & 8 ? (uint64_t)((int64_t)(value << 16) >> 16) : value;
}

/* What a walk says must be inside RAM or a device's, and what peeking says too. */
static void check_walk(uint64_t linear, uint64_t choice)
{
    uint64_t physical;
    struct translation t = tlb_walk(cpu, linear, choice % 3, choice / 3 % TLB_MODES);
    if (t.fault)
        return;
    if (t.device != !memory_at(&vm.memory, t.physical, 1) || t.physical >> PHYSICAL_BITS)
        abort();
    if (!tlb_peek(cpu, linear, &physical))
        abort();
}

static void operate(struct input *in, struct insn *i)
{
    static uint8_t buffer[PAGE_SIZE];
    uint64_t choice = draw(in), linear = address(in);
    unsigned size = 1u << (choice >> 8 & 3), many = (choice >> 16) % (PAGE_SIZE + 1);
    struct rmw rmw;
    bool device;
    i->segment = choice >> 32 & 7 % 6;
    i->flags = vcpu_code64(cpu) ? 0 : INSN_LEGACY;
    switch (choice & 15) {
    case 0:
        load(cpu, i, linear, size);
        break;
    case 1:
        store(cpu, i, linear, size, choice);
        break;
    case 2:
        load_bytes(cpu, i, linear, buffer, many);
        break;
    case 3:
        store_bytes(cpu, i, linear, buffer, many);
        break;
    case 4:
        memset(rmw_begin(cpu, i, linear, size, &rmw), 0x5a, size);
        rmw_end(cpu, i, &rmw);
        break;
    case 5:
        system_load(cpu, linear, size);
        break;
    case 6:
        system_store(cpu, linear, size, choice);
        break;
    case 7:
        probe_write(cpu, i, linear, many);
        break;
    case 8:
        linear_slow(cpu, i, linear, size, choice & 0x100);
        break;
    case 9:
        tlb_fill(cpu, i, linear, ACCESS_FETCH, cpu->mode, &device);
        break;
    case 10:
        tlb_flush_page(cpu, linear);
        break;
    case 11:
        tlb_flush_nonglobal(cpu);
        break;
    case 12:
        vm.memory.code_lines[(choice >> 16) % SEEDED] = choice;
        tlb_protect_page(&vm, vm.memory.host + (choice >> 16) % SEEDED * PAGE_SIZE);
        break;
    case 13:
        seed_mode(in);
        break;
    default:
        check_walk(linear, choice >> 8);
    }
}

/* Every entry that hits leads into RAM. (A long loop with nothing to explore: not traced.) */
__attribute__((no_sanitize("coverage"))) static void check_tlb(void)
{
    for (unsigned mode = 0; mode < TLB_MODES; mode++)
        for (unsigned n = 0; n < TLB_ENTRIES; n++) {
            const struct tlb_entry *e = &cpu->tlb_table[mode][n];
            const uint64_t tags[3] = {e->read, e->write & ~(uint64_t)TLB_CODED, e->fetch};
            for (unsigned k = 0; k < 3; k++) {
                uint64_t offset = tags[k] + e->addend - (uintptr_t)vm.memory.host;
                if (!(tags[k] & TLB_INVALID) && (offset >= RAM || offset & PAGE_OFFSET))
                    abort();
            }
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct insn insn;
    struct input in = {bytes, bytes + size, 0x9e3779b97f4a7c15};
    if (!cpu)
        power_on();
    madvise(vm.memory.host, RAM, MADV_DONTNEED);
    memset(vm.memory.code_lines, 0, SEEDED * sizeof *vm.memory.code_lines);
    insn = (struct insn){.length = 1};
    cpu->block = NULL;
    cpu->budget = cpu->withheld = 0;
    seed_mode(&in);
    for (unsigned n = 0; n < SEEDED; n++) {
        seed_page(&in, n * PAGE_SIZE);
        seed_page(&in, MEMORY_HIGH + n * PAGE_SIZE);
    }
    for (volatile unsigned n = 0; n < OPERATIONS; n++)
        if (!setjmp(cpu->unwind))
            operate(&in, &insn);
    check_tlb();
    return 0;
}
