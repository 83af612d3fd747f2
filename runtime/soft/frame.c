/* SPDX-License-Identifier: MIT */
/* The stack as far transfers and events use it: pops with checks, and frames of pushes that happen all or not at all. */
#include "runtime/breakpoints.h"
#include "runtime/soft/segments.h"

uint64_t stack_linear(struct vcpu *cpu, const struct insn *i, uint64_t sp, unsigned size)
{
    uint64_t mask = stack_mask(cpu);
    sp &= mask;
    if (mask == ~0ull) {
        if (!canonical(sp) || !canonical(sp + size - 1))
            cpu_raise_error(cpu, i, EXC_SS, 0);
        return sp;
    }
    if (!segment_covers(&cpu->segment[SEG_SS], sp, size))
        cpu_raise_error(cpu, i, EXC_SS, 0);
    return (uint32_t)(cpu->segment[SEG_SS].base + sp);
}

uint64_t stack_pop(struct vcpu *cpu, const struct insn *i, uint64_t *sp, unsigned size)
{
    uint64_t value = load(cpu, i, stack_linear(cpu, i, *sp, size), size);
    *sp += size;
    return value;
}

void frame_begin_at(const struct vcpu *cpu, struct frame *frame, const struct segment *segment,
                    uint64_t sp, unsigned cpl, unsigned width)
{
    frame->segment = segment;
    frame->sp = sp;
    frame->mask = !segment ? ~0ull : segment->rights & RIGHTS_DB ? 0xffffffffull : 0xffffull;
    frame->error = 0;
    /* A change of privilege is no explicit access: RFLAGS.AC does not lift SMAP (SDM 3A 4.6.1). */
    frame->mode = cpl == cpu->cpl ? cpu->mode : cpl == 3 ? TLB_USER : TLB_KERNEL;
    frame->width = (uint8_t)width;
    frame->count = 0;
}

void frame_begin(const struct vcpu *cpu, struct frame *frame, unsigned width)
{
    frame_begin_at(cpu, frame, vcpu_code64(cpu) ? NULL : &cpu->segment[SEG_SS], cpu->r[RSP],
                   cpu->cpl, width);
}

void frame_push(struct vcpu *cpu, const struct insn *i, struct frame *frame, uint64_t value)
{
    uint64_t sp = (frame->sp - frame->width) & frame->mask, linear = sp;
    bool good = frame->segment ? segment_covers(frame->segment, sp, frame->width)
                               : canonical(sp) && canonical(sp + frame->width - 1);
    if (!good)
        cpu_raise_error(cpu, i, EXC_SS, frame->error);
    if (frame->segment)
        linear = (uint32_t)(frame->segment->base + sp);
    frame->slot[frame->count].linear = linear;
    frame->slot[frame->count].value = value;
    frame->count++;
    frame->sp = (frame->sp & ~frame->mask) | sp;
}

/* Where a part of a push that lies in one page goes. */
struct place {
    uint8_t *host; /* NULL: by physical address */
    uint64_t physical;
    unsigned size;
    bool device;
};

static struct place locate(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                           enum tlb_mode mode)
{
    const struct tlb_entry *e = &cpu->tlb_table[mode][tlb_slot(linear)];
    struct place place = {.size = size};
    if (likely(e->write == (linear & ~PAGE_OFFSET)))
        place.host = (uint8_t *)(linear + e->addend);
    else
        place.physical = tlb_fill(cpu, i, linear, ACCESS_WRITE, mode, &place.device);
    if (unlikely(cpu->vm->breakpoints != NULL && !place.host))
        watchpoint_access(cpu, linear, size, true);
    return place;
}

static void place_write(struct vcpu *cpu, const struct place *place, const uint8_t *bytes)
{
    if (place->host) {
        memcpy(place->host, bytes, place->size);
    } else if (!place->device) {
        memory_write(&cpu->vm->memory, place->physical, bytes, place->size);
    } else {
        for (unsigned n = 0; n < place->size; n++)
            bus_write(&cpu->vm->bus, place->physical + n, 1, bytes[n]);
    }
}

void frame_commit(struct vcpu *cpu, const struct insn *i, const struct frame *frame)
{
    struct place places[FRAME_MAX][2];
    for (unsigned n = 0; n < frame->count; n++) {
        uint64_t linear = frame->slot[n].linear;
        unsigned here = PAGE_SIZE - (unsigned)(linear & PAGE_OFFSET);
        unsigned first = frame->width < here ? frame->width : here;
        places[n][0] = locate(cpu, i, linear, first, frame->mode);
        places[n][1].size = 0;
        if (first < frame->width) {
            uint64_t next = linear + first;
            if (frame->segment)
                next = (uint32_t)next;
            places[n][1] = locate(cpu, i, next, frame->width - first, frame->mode);
        }
    }
    for (unsigned n = 0; n < frame->count; n++) {
        uint8_t bytes[8];
        memcpy(bytes, &frame->slot[n].value, 8);
        place_write(cpu, &places[n][0], bytes);
        if (places[n][1].size)
            place_write(cpu, &places[n][1], bytes + places[n][0].size);
        check_watchpoints(cpu, frame->slot[n].linear, frame->width, true);
    }
}
