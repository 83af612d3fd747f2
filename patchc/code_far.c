/* SPDX-License-Identifier: MIT */
/* Entry points and mode changes: PVH and multiboot headers, far transfers, descriptor tables. */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "image/boot.h"
#include "patchc/code_flow.h"

enum {
    LOOK_BACK = 6,  /* instructions before a far return that may push its target */
    FAR_MAX = 4096, /* far transfers looked at; kernels have a handful */
};

/* Boot code runs where it is loaded: a physical address is turned into the linked one. */
static bool linear_of_physical(const struct image *image, uint64_t physical, uint64_t *linear)
{
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *s = &image->segments[i];
        if (s->type == PT_LOAD && physical - s->paddr < s->file_size) {
            *linear = s->vaddr + (physical - s->paddr);
            return true;
        }
    }
    return false;
}

/* The linked address of what boot code calls `address`. */
static uint64_t linked(const struct image *image, uint64_t address)
{
    uint64_t linear;
    return linear_of_physical(image, address, &linear) ? linear : address;
}

/* Any version's header counts. *entry gets the entry address that it names, else 0. */
static bool multiboot_header(const struct image *image, uint64_t *entry)
{
    struct multiboot_header header = {0};
    bool found = image_multiboot(image, &header);
    *entry = header.has_addresses ? header.entry : 0;
    return found || image_multiboot2(image);
}

bool flow_has_other_mode(const struct flow *flow)
{
    uint64_t entry;
    return image_pvh_entry(flow->image, &entry) || multiboot_header(flow->image, &entry);
}

bool flow_push_entries(struct flow *flow)
{
    const struct image *image = flow->image;
    uint64_t entry, start = image->entry;
    bool other = image->machine == EM_386;
    if (!code_section_at(flow->code, start))
        start = linked(image, start); /* Linux gives the physical address */
    if (multiboot_header(image, &entry)) {
        other = true;
        if (entry)
            flow_push(flow, linked(image, entry), MODE_32);
    }
    if (image_pvh_entry(image, &entry)) {
        entry = linked(image, entry);
        flow_push(flow, entry, MODE_32);
        if (entry == start)
            other = true;
    }
    if (other || !flow->other_mode_only)
        flow_push(flow, start, other ? MODE_32 : MODE_64);
    return other;
}

bool flow_may_be_far(const struct length_info *info)
{
    if (info->flags & LENGTH_VEX)
        return false;
    unsigned reg = info->modrm >> 3 & 7;
    if (info->map == 0)
        return info->opcode == 0xca || info->opcode == 0xcb ||
               (info->opcode == 0xff && (reg == 3 || reg == 5));
    return info->map == 1 && info->opcode == 0x01 && reg == 2 && info->modrm < 0xc0; /* lgdt */
}

/* The address of a memory operand without registers other than RIP; false if it has some. */
static bool fixed_operand(const struct flow *flow, const ZydisDecodedOperand *operand,
                          uint64_t next, enum flow_mode mode, uint64_t *address)
{
    if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || operand->mem.index != ZYDIS_REGISTER_NONE)
        return false;
    if (operand->mem.base == ZYDIS_REGISTER_RIP) {
        *address = next + (uint64_t)operand->mem.disp.value;
        return true;
    }
    if (operand->mem.base != ZYDIS_REGISTER_NONE)
        return false;
    *address =
        mode == MODE_64 ? (uint64_t)operand->mem.disp.value : (uint32_t)operand->mem.disp.value;
    *address = linked(flow->image, *address);
    return true;
}

/* Remembers the table that an LGDT loads: 16-bit limit, then the base (SDM 2A, LGDT). */
static void note_gdt(struct flow *flow, uint64_t operand, enum flow_mode mode)
{
    const uint8_t *bytes = image_at(flow->image, operand, mode == MODE_64 ? 10 : 6);
    uint64_t base = 0;
    if (!bytes || flow->gdt_count == FLOW_GDTS)
        return;
    memcpy(&base, bytes + 2, mode == MODE_64 ? 8 : 4);
    flow->gdt[flow->gdt_count++] = (struct flow_gdt){.base = linked(flow->image, base),
                                                     .limit = bytes[0] | (uint32_t)bytes[1] << 8};
}

static void note_far(struct flow *flow, uint16_t selector, uint64_t target)
{
    if (flow->far_count == flow->far_room) {
        size_t room = flow->far_room ? flow->far_room * 2 : 16;
        struct flow_far *larger = realloc(flow->far, room * sizeof *larger);
        if (!larger) {
            flow->failed = true;
            return;
        }
        flow->far = larger;
        flow->far_room = room;
    }
    flow->far[flow->far_count++] =
        (struct flow_far){.selector = selector, .target = linked(flow->image, target)};
}

/* Reads a far pointer in memory: offset of `size` bytes, then the selector. */
static void note_far_pointer(struct flow *flow, uint64_t pointer, unsigned size)
{
    const uint8_t *bytes = image_at(flow->image, pointer, size + 2);
    uint64_t target = 0;
    if (!bytes)
        return;
    memcpy(&target, bytes, size);
    note_far(flow, (uint16_t)(bytes[size] | bytes[size + 1] << 8), target);
}

/* What is known of the registers and the two topmost stack slots in a stretch of straight code. */
struct known {
    bool has[16];
    uint64_t value[16];
    bool has_slot[2];
    uint64_t slot[2]; /* 0: top */
};

static int register_number(ZydisRegister reg)
{
    ZydisRegister large = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
    return large >= ZYDIS_REGISTER_RAX && large <= ZYDIS_REGISTER_R15
               ? (int)large - ZYDIS_REGISTER_RAX
               : -1;
}

/* Follows mov of immediates, lea of fixed addresses and push; forgets what else is written. */
static void learn(const struct flow *flow, struct known *known, uint64_t next, enum flow_mode mode,
                  const ZydisDecodedInstruction *in, const ZydisDecodedOperand *op)
{
    bool has = false;
    uint64_t value = 0;
    const ZydisDecodedOperand *source = &op[in->mnemonic == ZYDIS_MNEMONIC_PUSH ? 0 : 1];
    int from =
        source->type == ZYDIS_OPERAND_TYPE_REGISTER ? register_number(source->reg.value) : -1;
    if (source->type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        has = true, value = source->imm.value.u;
    else if (in->mnemonic == ZYDIS_MNEMONIC_LEA)
        has = fixed_operand(flow, source, next, mode, &value);
    else if (from >= 0)
        has = known->has[from], value = known->value[from];
    if (in->mnemonic == ZYDIS_MNEMONIC_PUSH) {
        known->has_slot[1] = known->has_slot[0], known->slot[1] = known->slot[0];
        known->has_slot[0] = has, known->slot[0] = value;
        return;
    }
    bool copies = in->mnemonic == ZYDIS_MNEMONIC_MOV || in->mnemonic == ZYDIS_MNEMONIC_LEA;
    for (unsigned i = 0; i < in->operand_count; i++) {
        if (op[i].type != ZYDIS_OPERAND_TYPE_REGISTER ||
            !(op[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            continue;
        int to = register_number(op[i].reg.value);
        if (op[i].reg.value == ZYDIS_REGISTER_RSP || op[i].reg.value == ZYDIS_REGISTER_ESP)
            known->has_slot[0] = known->has_slot[1] = false;
        if (to >= 0)
            known->has[to] = copies && has && i == 0, known->value[to] = value;
    }
}

/* Learns from the straight code before the instruction at `offset`. */
static void learn_before(const struct flow *flow, const struct code_section *section,
                         uint64_t offset, enum flow_mode mode, struct known *known)
{
    uint64_t starts[LOOK_BACK];
    unsigned count = 0;
    const uint64_t *seen = flow->seen[mode] + section->flat / 64;
    memset(known, 0, sizeof *known);
    for (uint64_t at = offset; at > 0 && offset - at < 15 * LOOK_BACK && count < LOOK_BACK;) {
        at--;
        if (bit_get(seen, at))
            starts[count++] = at;
    }
    while (count > 0) {
        ZydisDecodedInstruction in;
        ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
        uint64_t from = starts[--count], following = count ? starts[count - 1] : offset;
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&flow->decoder[mode], section->bytes + from,
                                                 section->size - from, &in, op)) ||
            from + in.length != following)
            memset(known, 0, sizeof *known);
        else
            learn(flow, known, section->address + following, mode, &in, op);
    }
}

/* The address of a memory operand: fixed, or a register whose value is known. */
static bool known_operand(const struct flow *flow, const struct code_section *section,
                          uint64_t offset, enum flow_mode mode, const ZydisDecodedOperand *operand,
                          uint64_t next, uint64_t *address)
{
    struct known known;
    if (fixed_operand(flow, operand, next, mode, address))
        return true;
    if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || operand->mem.index != ZYDIS_REGISTER_NONE)
        return false;
    int base = register_number(operand->mem.base);
    learn_before(flow, section, offset, mode, &known);
    if (base < 0 || !known.has[base])
        return false;
    *address = linked(flow->image, known.value[base] + (uint64_t)operand->mem.disp.value);
    return true;
}

/* A far return: the code before it may have pushed selector and offset. */
static void far_return(struct flow *flow, const struct code_section *section, uint64_t offset,
                       enum flow_mode mode)
{
    struct known known;
    learn_before(flow, section, offset, mode, &known);
    if (known.has_slot[0] && known.has_slot[1])
        note_far(flow, (uint16_t)known.slot[1], known.slot[0]);
}

void flow_far(struct flow *flow, const struct code_section *section, uint64_t offset,
              enum flow_mode mode)
{
    ZydisDecodedInstruction in;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t address;
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&flow->decoder[mode], section->bytes + offset,
                                             section->size - offset, &in, op)))
        return;
    uint64_t next = section->address + offset + in.length;
    bool far = in.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    if ((!far && in.mnemonic != ZYDIS_MNEMONIC_LGDT) || flow->far_seen++ >= FAR_MAX)
        return;
    if (in.mnemonic == ZYDIS_MNEMONIC_LGDT) {
        if (known_operand(flow, section, offset, mode, &op[0], next, &address))
            note_gdt(flow, address, mode);
    } else if (in.mnemonic == ZYDIS_MNEMONIC_RET) {
        far_return(flow, section, offset, mode);
    } else if (op[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
        note_far(flow, op[0].ptr.segment, op[0].ptr.offset);
    } else if (op[0].size >= 32 &&
               known_operand(flow, section, offset, mode, &op[0], next, &address)) {
        note_far_pointer(flow, address, op[0].size / 8 - 2);
    }
}

/* The mode of a code segment: its descriptor's L and D bits (SDM 3A 3.4.5, 5.2.1). */
static bool segment_mode(const struct flow *flow, uint16_t selector, enum flow_mode *mode)
{
    bool found = false;
    for (unsigned i = 0; i < flow->gdt_count; i++) {
        const struct flow_gdt *gdt = &flow->gdt[i];
        uint32_t offset = selector & 0xfff8u;
        const uint8_t *bytes = image_at(flow->image, gdt->base + offset, 8);
        if (offset + 7 > gdt->limit || offset == 0 || selector & 4 || !bytes)
            continue;
        if ((bytes[5] & 0x98) != 0x98) /* present, code or data, code */
            continue;
        enum flow_mode this = bytes[6] & 0x20 ? MODE_64 : bytes[6] & 0x40 ? MODE_32 : MODE_16;
        if (found && this != *mode)
            return false; /* two tables disagree: not proved */
        found = true;
        *mode = this;
    }
    return found;
}

bool flow_resolve_far(struct flow *flow)
{
    bool any = false;
    size_t left = 0;
    for (size_t i = 0; i < flow->far_count; i++) {
        enum flow_mode mode = MODE_16;
        if (segment_mode(flow, flow->far[i].selector, &mode)) {
            flow_push(flow, flow->far[i].target, mode);
            any = true;
        } else {
            flow->far[left++] = flow->far[i];
        }
    }
    flow->far_count = left;
    return any;
}
