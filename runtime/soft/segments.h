/* SPDX-License-Identifier: MIT */
/* Segments and descriptors, and the stack frames that events and far transfers build (SDM 3A 3.4, 5). */
#ifndef RUNTIME_SOFT_SEGMENTS_H
#define RUNTIME_SOFT_SEGMENTS_H

#include "runtime/soft/access.h"
#include "runtime/soft/tlb.h"

/* System descriptor types: bits 40-44, of which 44 (S) is clear (SDM 3A 3.5, table 3-2). */
enum {
    TYPE_TSS16 = 1,
    TYPE_LDT = 2,
    TYPE_TSS16_BUSY = 3,
    TYPE_CALL16 = 4,
    TYPE_TASK_GATE = 5,
    TYPE_INTERRUPT16 = 6,
    TYPE_TRAP16 = 7,
    TYPE_TSS = 9, /* 32 bits; 64 bits in long mode */
    TYPE_TSS_BUSY = 11,
    TYPE_CALL = 12,
    TYPE_INTERRUPT = 14,
    TYPE_TRAP = 15,
};
#define RIGHTS_STYPE (RIGHTS_S | RIGHTS_TYPE)
#define TYPE_BUSY    2u /* TYPE_TSS -> TYPE_TSS_BUSY */

#define RPL(selector)            ((selector)&3u)
#define SELECTOR_NULL(selector)  (((selector)&0xfffcu) == 0)
#define SELECTOR_ERROR(selector) ((selector)&0xfffcu) /* as an error code: SDM 3A 6.13 */

static inline uint32_t descriptor_rights(uint64_t descriptor)
{
    return descriptor >> 40 & 0xf0ff;
}
static inline bool rights_code(uint32_t rights)
{
    return (rights & (RIGHTS_S | RIGHTS_CODE)) == (RIGHTS_S | RIGHTS_CODE);
}
static inline bool rights_conforming(uint32_t rights)
{
    return rights & RIGHTS_DOWN;
}
static inline bool rights_writable_data(uint32_t rights)
{
    return (rights & (RIGHTS_S | RIGHTS_CODE | RIGHTS_WRITABLE)) == (RIGHTS_S | RIGHTS_WRITABLE);
}
static inline bool canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* ---- descriptor tables ---- */
/* The address of the selector's descriptor; false if it is beyond its table, or the LDT is not usable. */
bool descriptor_find(const struct vcpu *cpu, uint16_t selector, uint64_t *linear);
/* Reads an 8-byte descriptor; raises `vector`(selector) if beyond the table. *linear (may be NULL) gets its address. */
uint64_t descriptor_read(struct vcpu *cpu, const struct insn *i, uint16_t selector, int vector,
                         uint64_t *linear);
/* The second half of a system descriptor or gate in long mode, whose type bits must be 0: else #GP(selector). */
uint64_t descriptor_read_high(struct vcpu *cpu, const struct insn *i, uint16_t selector,
                              uint64_t linear);
/* Unpacks a descriptor into a segment register's hidden part (not the selector). */
void descriptor_unpack(uint64_t descriptor, struct segment *segment);
/* Sets the accessed bit of the code or data descriptor at `linear`, where it is clear yet. Returns the descriptor. */
uint64_t descriptor_accessed(struct vcpu *cpu, const struct insn *i, uint64_t linear,
                             uint64_t descriptor);
/* Supervisor accesses to tables on behalf of instruction `i` (NULL: of an event); sizes 1, 2, 4, 8. */
uint64_t table_load(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size);
void table_store(struct vcpu *cpu, const struct insn *i, uint64_t linear, unsigned size,
                 uint64_t value);

/* ---- segment registers ---- */
/* Loads a data or stack segment register with all checks (SDM 2B MOV); raises. `i` may be NULL inside an event. */
void segment_load(struct vcpu *cpu, const struct insn *i, int segment, uint16_t selector);
/* Sets a segment register as real mode and virtual-8086 mode do. */
void segment_set_real(struct vcpu *cpu, int segment, uint16_t selector);
/* Makes a segment register unusable, with a null selector. */
void segment_set_null(struct vcpu *cpu, int segment, uint16_t selector);
/* A flat code or stack segment with fixed contents, as SYSCALL and its kind load. */
void segment_set_flat(struct vcpu *cpu, int segment, uint16_t selector, uint32_t rights);
/* Segment register from a descriptor that was checked. */
void segment_set(struct vcpu *cpu, int segment, uint16_t selector, uint64_t descriptor);
/* After CPL became less privileged: data segments that it may not use become null (SDM 3A 5.8.6). */
void segments_drop_privileged(struct vcpu *cpu);
/* True if all of [offset, offset + size) is inside the segment. */
bool segment_covers(const struct segment *segment, uint64_t offset, unsigned size);

/* A stack segment for privilege level `dpl`: raises `vector`(selector) but #SS(selector) if not present. *linear gets
 * the descriptor's address. */
uint64_t stack_descriptor(struct vcpu *cpu, const struct insn *i, uint16_t selector, unsigned dpl,
                          int vector, uint64_t *linear);

/* ---- code segments ---- */
/* The target of a far transfer, checked, nothing changed yet. */
struct code_target {
    uint16_t selector; /* with the RPL it will have */
    uint64_t descriptor, linear;
    uint64_t rip;
};
/* Raises #GP(0) if `rip` is not canonical (64-bit segment) or beyond the limit. */
void code_check_rip(struct vcpu *cpu, const struct insn *i, const struct code_target *target);
/* Loads CS, CPL and vcpu.rip; call vcpu_mode_changed afterwards. */
void code_enter(struct vcpu *cpu, const struct code_target *target, unsigned cpl);

/* ---- the stack ---- */
/* ~0 in 64-bit mode, else by SS.B. */
static inline uint64_t stack_mask(const struct vcpu *cpu)
{
    if (vcpu_code64(cpu))
        return ~0ull;
    return cpu->segment[SEG_SS].rights & RIGHTS_DB ? 0xffffffffull : 0xffffull;
}
/* Sets RSP, ESP or SP: as many bits as the stack has. */
static inline void stack_set(struct vcpu *cpu, uint64_t sp)
{
    uint64_t mask = stack_mask(cpu);
    if (mask == 0xffff)
        cpu->r[RSP] = (cpu->r[RSP] & ~mask) | (sp & mask);
    else
        cpu->r[RSP] = sp & mask;
}
/* The linear address of `size` bytes at stack pointer `sp`; #SS(0) if beyond the limit or not canonical. */
uint64_t stack_linear(struct vcpu *cpu, const struct insn *i, uint64_t sp, unsigned size);
/* Reads at *sp, and moves *sp on; at the present privilege. RSP itself stays. */
uint64_t stack_pop(struct vcpu *cpu, const struct insn *i, uint64_t *sp, unsigned size);

/* Pushes that happen all or not at all. */
#define FRAME_MAX 40
struct frame {
    const struct segment *segment; /* of the stack; NULL: 64 bits, no limit */
    uint64_t sp, mask;
    uint32_t error; /* of the #SS: the selector of a stack segment being loaded, or 0 */
    uint8_t mode;   /* enum tlb_mode to write in */
    uint8_t width;  /* bytes of a push */
    uint8_t count;
    struct {
        uint64_t linear, value;
    } slot[FRAME_MAX];
};
/* A frame on the present stack. */
void frame_begin(const struct vcpu *cpu, struct frame *frame, unsigned width);
/* A frame on a new stack for privilege level `cpl`; `segment` NULL: 64 bits. */
void frame_begin_at(const struct vcpu *cpu, struct frame *frame, const struct segment *segment,
                    uint64_t sp, unsigned cpl, unsigned width);
/* Notes a push; raises #SS(frame.error) if it is outside the segment or not canonical. */
void frame_push(struct vcpu *cpu, const struct insn *i, struct frame *frame, uint64_t value);
/* Makes sure that all of it can be written (raises if not), then writes it. frame.sp is the new stack pointer. */
void frame_commit(struct vcpu *cpu, const struct insn *i, const struct frame *frame);

#endif
