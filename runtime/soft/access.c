/* SPDX-License-Identifier: MIT */
/* Guest memory out of line: what the TLB does not answer at once.
 *
 * An access is resolved into its parts, one a page, before anything is read or written: so a fault in
 * the second page leaves the first one alone. A part is host memory or belongs to a device. */
#include "runtime/soft/access.h"
#include "runtime/soft/enter.h"

#include "runtime/breakpoints.h"
#include "runtime/soft/tlb.h"

/* ---- faults and going on ---- */

static _Noreturn void raise_fault(struct vcpu *cpu, const struct insn *i, int vector,
                                  bool has_error, uint32_t error)
{
    cpu->fault.vector = vector;
    cpu->fault.has_error = has_error;
    cpu->fault.error = error;
    if (i) { /* data breakpoints met by an instruction that is not completed are met again */
        cpu->pending_db = 0;
        cpu->stop.kind = STOP_NONE;
    }
    cpu->current = i;
    longjmp(cpu->unwind, 1);
}

void cpu_raise(struct vcpu *cpu, const struct insn *i, int vector)
{
    raise_fault(cpu, i, vector, false, 0);
}

void cpu_raise_error(struct vcpu *cpu, const struct insn *i, int vector, uint32_t error)
{
    raise_fault(cpu, i, vector, true, error);
}

const struct insn *insn_leave(struct vcpu *cpu, const struct insn *i, uint64_t rip)
{
    const struct block *block = cpu->block;
    cpu->rip = rip;
    cpu->link = NULL;
    /* after a kick the budget must stay used up, so that the loop looks at what has happened */
    if (block && i)
        *(cpu->kicked ? &cpu->withheld : &cpu->budget) += block->count - (i->position + 1);
    return NULL;
}

const struct insn *insn_after_slow(struct vcpu *cpu, const struct insn *i)
{
    /* a data breakpoint traps right behind its instruction; a device may have raised an interrupt */
    if (likely(!cpu->code_changed && !cpu->pending_db && !cpu->kicked))
        return i + 1;
    cpu->code_changed = false;
    return insn_leave(cpu, i, insn_next_rip(cpu, i));
}

/* ---- addresses ---- */

uint64_t ea_slow(struct vcpu *cpu, const struct insn *i)
{
    uint64_t offset;
    if (i->flags & INSN_RIPREL)
        offset = insn_next_rip(cpu, i) + (uint64_t)(int64_t)i->disp;
    else
        offset = REG64(i->base) + (REG64(i->index) << i->scale) + (uint64_t)(int64_t)i->disp;
    if (i->flags & INSN_ADDRESS16)
        return (uint16_t)offset;
    return i->flags & INSN_ADDRESS32 ? (uint32_t)offset : offset;
}

/* Type checks of a data access in protected mode (SDM 3A 5.5). */
static bool segment_allows(const struct segment *segment, bool write)
{
    if (segment->rights & RIGHTS_UNUSABLE)
        return false;
    if (write)
        return (segment->rights & (RIGHTS_CODE | RIGHTS_WRITABLE)) == RIGHTS_WRITABLE;
    return !(segment->rights & RIGHTS_CODE) || segment->rights & RIGHTS_WRITABLE;
}

/* Limit check of `size` bytes (SDM 3A 5.3). With a limit of 4 GiB the address wraps. */
static bool segment_holds(const struct segment *segment, uint32_t offset, unsigned size)
{
    uint64_t last = (uint64_t)offset + (size ? size - 1 : 0);
    if ((segment->rights & (RIGHTS_CODE | RIGHTS_DOWN)) == RIGHTS_DOWN)
        return offset > segment->limit &&
               last <= (segment->rights & RIGHTS_DB ? UINT32_MAX : UINT16_MAX);
    return last <= segment->limit || segment->limit == UINT32_MAX;
}

uint64_t linear_slow(struct vcpu *cpu, const struct insn *i, uint64_t offset, unsigned size,
                     bool write)
{
    return linear_in(cpu, i, i->segment, offset, size, write);
}

uint64_t linear_in(struct vcpu *cpu, const struct insn *i, int number, uint64_t offset,
                   unsigned size, bool write)
{
    if (!(i->flags & INSN_LEGACY))
        return offset + cpu->base[number];
    const struct segment *segment = &cpu->segment[number];
    bool typed = vcpu_protected(cpu) && !vcpu_v86(cpu);
    if ((typed && !segment_allows(segment, write)) ||
        !segment_holds(segment, (uint32_t)offset, size))
        cpu_raise_error(cpu, i, number == SEG_SS ? EXC_SS : EXC_GP, 0);
    return (uint32_t)(offset + cpu->base[number]);
}

/* ---- resolving ---- */

static bool is_canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

struct part {
    uint8_t *host; /* NULL: a device's */
    uint64_t physical;
    unsigned length;
};

/* Linear addresses of instructions outside 64-bit mode have 32 bits. */
static inline uint64_t wrap(const struct vcpu *cpu, uint64_t linear)
{
    return vcpu_code64(cpu) ? linear : (uint32_t)linear;
}

static struct part resolve_page(struct vcpu *cpu, const struct insn *i, uint64_t linear,
                                unsigned length, enum access access, enum tlb_mode mode)
{
    struct tlb_entry *e = &cpu->tlb_table[mode][tlb_slot(linear)];
    uint64_t page = linear & ~PAGE_OFFSET;
    if ((access == ACCESS_WRITE ? e->write & ~(uint64_t)TLB_CODED : e->read) == page) {
        const struct memory *memory = &cpu->vm->memory;
        uint8_t *host = (uint8_t *)(linear + e->addend);
        if (e->write == (page | TLB_CODED) && !memory->code_lines[memory_page_index(memory, host)])
            e->write = page; /* all that code was written over */
        return (struct part){.host = host, .length = length};
    }
    bool device;
    uint64_t physical = tlb_fill(cpu, i, linear, access, mode, &device);
    return (struct part){
        .host = device ? NULL : memory_at(&cpu->vm->memory, physical, length),
        .physical = physical,
        .length = length,
    };
}

/* The parts of [linear, linear + size), at most 4096 bytes: 1 or 2. `narrow`: addresses wrap at 4 GiB. Raises what the access would. */
static unsigned resolve(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                        enum access access, enum tlb_mode mode, bool narrow, struct part part[2])
{
    unsigned first = PAGE_SIZE - (unsigned)(linear & PAGE_OFFSET);
    if (size <= first) {
        part[0] = resolve_page(cpu, i, linear, size, access, mode);
        return 1;
    }
    uint64_t second = linear + first;
    if (narrow)
        second = (uint32_t)second;
    if (!narrow && !is_canonical(second)) /* that is looked at before any page is */
        resolve_page(cpu, i, second, size - first, access, mode);
    part[0] = resolve_page(cpu, i, linear, first, access, mode);
    part[1] = resolve_page(cpu, i, second, size - first, access, mode);
    return 2;
}

/* ---- devices ---- */

static void count_mmio(struct vcpu *cpu, const struct insn *i, uint64_t physical)
{
    const struct bus *bus = &cpu->vm->bus;
    if (unlikely(bus->elsewhere != NULL) && i && bus->elsewhere(physical, false))
        leave_instruction(cpu, i);
    stats_exit(&cpu->vm->stats, EXIT_KIND_MMIO, i ? insn_rip(cpu, i) : cpu->rip);
}

/* Bytes of the next bus access: all of it if the bus knows the width, else aligned pieces. */
static unsigned piece(uint64_t physical, unsigned length)
{
    if (length == 1 || length == 2 || length == 4 || length == 8)
        return length;
    unsigned width = 8;
    while (width > length || physical & (width - 1))
        width /= 2;
    return width;
}

static void part_read(struct vcpu *cpu, const struct part *part, void *to, bool bytes)
{
    uint8_t *out = to;
    if (part->host) {
        memcpy(to, part->host, part->length);
        return;
    }
    for (unsigned done = 0, width; done < part->length; done += width) {
        width = bytes ? 1 : piece(part->physical + done, part->length - done);
        uint64_t value = bus_read(&cpu->vm->bus, part->physical + done, width);
        memcpy(out + done, &value, width);
    }
}

static void part_write(struct vcpu *cpu, const struct part *part, const void *from, bool bytes)
{
    const uint8_t *in = from;
    if (part->host) {
        struct memory *memory = &cpu->vm->memory;
        memcpy(part->host, from, part->length);
        if (unlikely(memory->code_lines[memory_page_index(memory, part->host)])) {
            uint64_t offset = (uint64_t)(part->host - memory->host);
            memory_written(memory,
                           offset < memory->low_size ? offset
                                                     : offset - memory->low_size + MEMORY_HIGH,
                           part->length);
        }
        return;
    }
    for (unsigned done = 0, width; done < part->length; done += width) {
        uint64_t value = 0;
        width = bytes ? 1 : piece(part->physical + done, part->length - done);
        memcpy(&value, in + done, width);
        bus_write(&cpu->vm->bus, part->physical + done, width, value);
    }
}

static void read_parts(struct vcpu *cpu, const struct insn *i, const struct part *part,
                       unsigned count, void *to)
{
    if (!part[0].host || (count == 2 && !part[1].host))
        count_mmio(cpu, i, part[0].host ? part[1].physical : part[0].physical);
    part_read(cpu, &part[0], to, count == 2);
    if (count == 2)
        part_read(cpu, &part[1], (uint8_t *)to + part[0].length, true);
}

static void write_parts(struct vcpu *cpu, const struct insn *i, const struct part *part,
                        unsigned count, const void *from)
{
    if (!part[0].host || (count == 2 && !part[1].host))
        count_mmio(cpu, i, part[0].host ? part[1].physical : part[0].physical);
    part_write(cpu, &part[0], from, count == 2);
    if (count == 2)
        part_write(cpu, &part[1], (const uint8_t *)from + part[0].length, true);
}

/* ---- checks of explicit accesses ---- */

/* What #AC wants of an operand's address (SDM 3A 6.15, interrupt 17): the bits that must be 0. Sizes tell the kind:
 * 10 is an 80-bit number, 14 to 108 are x87 environments and states. */
static unsigned alignment_mask(unsigned size)
{
    switch (size) {
    case 2:
    case 4:
    case 8:
    case 16:
        return size - 1;
    case 10:
        return 7;
    case 32:
        return 15;
    case 14:
    case 94:
        return 1;
    case 28:
    case 108:
        return 3;
    default:
        return 0;
    }
}

/* #AC at CPL 3, which comes before page faults. */
static inline void check_alignment(struct vcpu *cpu, const struct insn *i, uint64_t linear,
                                   unsigned size)
{
    if (likely(cpu->tlb != tlb_none))
        return;
    if (linear & alignment_mask(size) && is_canonical(linear) && is_canonical(linear + size - 1))
        cpu_raise_error(cpu, i, EXC_AC, 0);
}

/* A debugger's watchpoints. */
static inline void check_debugger(struct vcpu *cpu, uint64_t linear, unsigned size, bool write)
{
    if (unlikely(cpu->vm->breakpoints != NULL))
        watchpoint_access(cpu, linear, size, write);
}

void check_watchpoints(struct vcpu *cpu, uint64_t linear, unsigned size, bool write)
{
    check_debugger(cpu, linear, size, write);
    if (likely(!(cpu->dr[7] & 0xff)))
        return;
    uint64_t hits = tlb_watchpoints(cpu, linear, size, write);
    if (hits) {
        cpu->pending_db |= hits;
        vcpu_kick(cpu);
    }
}

/* ---- loads and stores ---- */

uint64_t load_slow(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size)
{
    uint64_t value = 0;
    load_bytes(cpu, i, linear, &value, size);
    return value;
}

void store_slow(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                uint64_t value)
{
    store_bytes(cpu, i, linear, &value, size);
}

void load_bytes(struct vcpu *cpu, const struct insn *i, uint64_t linear, void *to, unsigned size)
{
    struct part part[2];
    cpu->current = i;
    linear = wrap(cpu, linear);
    check_alignment(cpu, i, linear, size);
    unsigned count = resolve(cpu, i, linear, size, ACCESS_READ, cpu->mode, !vcpu_code64(cpu), part);
    check_watchpoints(cpu, linear, size, false);
    read_parts(cpu, i, part, count, to);
}

void store_bytes(struct vcpu *cpu, const struct insn *i, uint64_t linear, const void *from,
                 unsigned size)
{
    struct part part[2];
    cpu->current = i;
    linear = wrap(cpu, linear);
    check_alignment(cpu, i, linear, size);
    unsigned count =
        resolve(cpu, i, linear, size, ACCESS_WRITE, cpu->mode, !vcpu_code64(cpu), part);
    check_watchpoints(cpu, linear, size, true);
    write_parts(cpu, i, part, count, from);
}

void probe_write(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size)
{
    struct part part[2];
    cpu->current = i;
    linear = wrap(cpu, linear);
    check_alignment(cpu, i, linear, size);
    resolve(cpu, i, linear, size, ACCESS_WRITE, cpu->mode, !vcpu_code64(cpu), part);
}

void *rmw_begin(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                struct rmw *rmw)
{
    struct part part[2];
    void *host = host_write(cpu, linear, size);
    rmw->copied = false;
    if (likely(host))
        return host;

    cpu->current = i;
    linear = wrap(cpu, linear);
    check_alignment(cpu, i, linear, size);
    unsigned count =
        resolve(cpu, i, linear, size, ACCESS_WRITE, cpu->mode, !vcpu_code64(cpu), part);
    host = host_write(cpu, linear, size);
    if (host)
        return host;
    *rmw = (struct rmw){.linear = linear, .size = size, .copied = true};
    check_debugger(cpu, linear, size, false);
    read_parts(cpu, i, part, count, &rmw->copy);
    return &rmw->copy;
}

/* Nothing has run since rmw_begin that could change the translation. */
void rmw_end(struct vcpu *cpu, const struct insn *i, struct rmw *rmw)
{
    if (rmw->copied)
        store_bytes(cpu, i, rmw->linear, &rmw->copy, rmw->size);
}

/* ---- accesses of the processor itself ---- */

uint64_t system_load(struct vcpu *cpu, uint64_t linear, unsigned size)
{
    struct part part[2];
    uint64_t value = 0;
    if (!vcpu_long_mode(cpu))
        linear = (uint32_t)linear;
    unsigned count = resolve(cpu, cpu->current, linear, size, ACCESS_READ, TLB_KERNEL,
                             !vcpu_long_mode(cpu), part);
    check_debugger(cpu, linear, size, false);
    read_parts(cpu, cpu->current, part, count, &value);
    return value;
}

void system_store(struct vcpu *cpu, uint64_t linear, unsigned size, uint64_t value)
{
    struct part part[2];
    if (!vcpu_long_mode(cpu))
        linear = (uint32_t)linear;
    unsigned count = resolve(cpu, cpu->current, linear, size, ACCESS_WRITE, TLB_KERNEL,
                             !vcpu_long_mode(cpu), part);
    check_debugger(cpu, linear, size, true);
    write_parts(cpu, cpu->current, part, count, &value);
}
