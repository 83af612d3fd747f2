/* SPDX-License-Identifier: MIT */
/* Following control flow from entry points whose mode is known.
 *
 * An item of work is an address and the mode in which control arrives there. It is decoded until
 * control cannot go on; direct branches and calls make new items of the same mode. A far transfer
 * may change the mode: its selector is looked up in the image's own GDT, found through the operand
 * of an LGDT in followed code (code_far.c). Such transfers wait until all else is followed, because
 * the LGDT may stand in a routine that is called before. Every (address, mode) is decoded at most
 * once, so the work is bounded by the image's size.
 *
 * In proved 64-bit code further functions are proved by what refers to them: an address that equals
 * a function symbol, taken by an instruction or stored in an aligned slot of data. */
#include "patchc/code_flow.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

bool flow_push(struct flow *flow, uint64_t address, enum flow_mode mode)
{
    const struct code_section *section = code_section_at(flow->code, address);
    if (!section)
        return true;
    uint32_t flat = section->flat + (uint32_t)(address - section->address);
    if (bit_get(flow->seen[mode], flat))
        return true;
    if (flow->count == flow->room) {
        size_t room = flow->room ? flow->room * 2 : 256;
        struct flow_item *larger = realloc(flow->items, room * sizeof *larger);
        if (!larger) {
            flow->failed = true;
            return false;
        }
        flow->items = larger;
        flow->room = room;
    }
    flow->items[flow->count++] = (struct flow_item){.flat = flat, .mode = mode};
    return true;
}

/* True if a function symbol with a size is exactly at this address. */
static bool is_function(const struct flow *flow, uint64_t address)
{
    const struct code_section *section = code_section_at(flow->code, address);
    return section && bit_get(flow->functions + section->flat / 64, address - section->address);
}

static void push_function(struct flow *flow, uint64_t address)
{
    if (is_function(flow, address))
        flow_push(flow, address, MODE_64);
}

/* The value of the immediate or RIP-relative address that an instruction may load; false if it is
 * none of the forms that take addresses: lea, mov and push of an immediate. */
static bool taken_address(const uint8_t *bytes, uint64_t next, const struct length_info *info,
                          uint64_t *value)
{
    int32_t word;
    unsigned size = info->length - info->immediate;
    if (info->map != 0 || info->flags & LENGTH_VEX)
        return false;
    if (info->opcode == 0x8d && info->flags & LENGTH_RIP) {
        memcpy(&word, bytes + info->displacement, sizeof word);
        *value = next + (uint64_t)(int64_t)word;
        return true;
    }
    if (!((info->opcode >= 0xb8 && info->opcode <= 0xbf) || info->opcode == 0xc7 ||
          info->opcode == 0x68) ||
        info->immediate == 0)
        return false;
    if (size == 8) {
        memcpy(value, bytes + info->immediate, sizeof *value);
        return true;
    }
    if (size != 4)
        return false;
    memcpy(&word, bytes + info->immediate, sizeof word);
    /* mov r32, imm32 zero-extends, the others sign-extend. */
    *value =
        info->opcode >= 0xb8 && info->opcode <= 0xbf ? (uint32_t)word : (uint64_t)(int64_t)word;
    return true;
}

/* The end of the function symbol around an address; 0 if there is none. *start gets its start. */
static uint64_t function_around(const struct image *image, uint64_t address, uint64_t *start)
{
    size_t low = 0, high = image->symbol_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        *(image->symbols[middle].address <= address ? &low : &high) =
            image->symbols[middle].address <= address ? middle + 1 : middle;
    }
    for (size_t back = 0; back < 64 && low > 0; back++) { /* labels may stand between */
        const struct image_symbol *symbol = &image->symbols[--low];
        *start = symbol->address;
        if (symbol->function && symbol->size)
            return address - symbol->address < symbol->size ? symbol->address + symbol->size : 0;
    }
    return 0;
}

/* jmp *table(,%reg,8): each entry that leads into the same function is a way to go on. The table
 * ends where one does not; what may follow is the next table of the same function, whose entries
 * are as good. */
static void jump_table(struct flow *flow, const uint8_t *bytes, const struct length_info *info,
                       uint64_t at)
{
    uint64_t start, end;
    int32_t table;
    if (info->map != 0 || info->opcode != 0xff || info->modrm != 0x24 || info->displacement == 0 ||
        (bytes[info->displacement - 1] & 0xc7) != 0xc5)
        return;
    end = function_around(flow->image, at, &start);
    memcpy(&table, bytes + info->displacement, sizeof table);
    for (uint64_t slot = (uint64_t)(int64_t)table; end && flow->slots_left > 0; slot += 8) {
        const uint8_t *entry = image_at(flow->image, slot, 8);
        uint64_t target;
        if (!entry)
            return;
        memcpy(&target, entry, sizeof target);
        if (target < start || target >= end)
            return;
        flow->slots_left--;
        flow_push(flow, target, MODE_64);
    }
}

/* Decodes one 64-bit instruction and makes items of where it leads. Returns its length, 0 where
 * control does not go on. */
static unsigned step_64(struct flow *flow, const struct code_section *section, uint64_t offset)
{
    const uint8_t *bytes = section->bytes + offset;
    struct length_info info;
    unsigned length = length_decode(bytes, section->size - offset, &info);
    if (length == 0)
        return 0;
    uint64_t next = section->address + offset + length, value;
    code_set_start(flow->code, section, offset);
    code_note(flow->code, section, offset, &info, flow->part);
    flow->proved_64 = true;
    if (info.flags & LENGTH_REL8) {
        flow_push(flow, next + (uint64_t)(int64_t)(int8_t)bytes[length - 1], MODE_64);
    } else if (info.flags & LENGTH_REL32) {
        int32_t displacement;
        memcpy(&displacement, bytes + length - 4, sizeof displacement);
        flow_push(flow, next + (uint64_t)(int64_t)displacement, MODE_64);
    } else if (taken_address(bytes, next, &info, &value)) {
        push_function(flow, value);
    } else if (flow_may_be_far(&info)) {
        flow_far(flow, section, offset, MODE_64);
    } else {
        jump_table(flow, bytes, &info, section->address + offset);
    }
    return info.flags & LENGTH_NO_FALL ? 0 : length;
}

/* The same for 16- and 32-bit code. */
static unsigned step_other(struct flow *flow, const struct code_section *section, uint64_t offset,
                           enum flow_mode mode)
{
    ZydisDecodedInstruction in;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&flow->decoder[mode], section->bytes + offset,
                                             section->size - offset, &in, op)))
        return 0;
    for (unsigned i = 0; i < in.length; i++) {
        bit_set(section->other_mode, offset + i);
        code_clear_start(flow->code, section, offset + i);
    }
    if (in.operand_count_visible && op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
        op[0].imm.is_relative) {
        uint64_t target = section->address + offset + in.length + (uint64_t)op[0].imm.value.s;
        if (flow->image->elf_class == 32)
            target &= 0xffffffff;
        flow_push(flow, target, mode);
        return in.mnemonic == ZYDIS_MNEMONIC_JMP ? 0 : in.length;
    }
    switch (in.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_RET:
    case ZYDIS_MNEMONIC_IRET:
    case ZYDIS_MNEMONIC_IRETD:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_INT3:
        flow_far(flow, section, offset, mode);
        return 0;
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_LGDT:
        flow_far(flow, section, offset, mode);
        return in.length;
    default:
        return in.length;
    }
}

/* Decodes from an item on. */
static void follow(struct flow *flow, struct flow_item item)
{
    const struct code_section *section = code_flat_section(flow->code, item.flat);
    uint64_t offset = item.flat - section->flat;
    uint64_t *seen = flow->seen[item.mode] + section->flat / 64;
    if (item.mode == MODE_64 && flow->other_mode_only) {
        uint64_t start;
        if (code_covering(section, offset, &start))
            code_clear_start(flow->code, section, start);
        code_repair(flow->code, section, offset, flow->part);
        return;
    }
    while (offset < section->size && !bit_get(seen, offset)) {
        bit_set(seen, offset);
        unsigned length = item.mode == MODE_64 ? step_64(flow, section, offset)
                                               : step_other(flow, section, offset, item.mode);
        if (length == 0)
            break;
        offset += length;
    }
}

/* Works until nothing is left: near transfers first, then the far ones that wait. */
static void follow_all(struct flow *flow)
{
    do {
        while (flow->count > 0 && !flow->failed)
            follow(flow, flow->items[--flow->count]);
    } while (!flow->failed && flow_resolve_far(flow) && flow->count > 0);
}

/* Function symbols in executable sections; whether all of them are 64-bit code is another question.
 */
static void mark_functions(struct flow *flow)
{
    for (size_t i = 0; i < flow->image->symbol_count; i++) {
        const struct image_symbol *symbol = &flow->image->symbols[i];
        const struct code_section *s = code_section_at(flow->code, symbol->address);
        if (s && symbol->function && symbol->size)
            bit_set(flow->functions + s->flat / 64, symbol->address - s->address);
    }
}

static void push_all_functions(struct flow *flow)
{
    for (size_t i = 0; i < flow->image->symbol_count; i++)
        if (flow->image->symbols[i].function)
            flow_push(flow, flow->image->symbols[i].address, MODE_64);
}

/* Takes each aligned slot in the image's loaded bytes that holds exactly the address of a function.
 */
static void push_stored_functions(struct flow *flow)
{
    const struct image *image = flow->image;
    uint64_t budget = image->size; /* segments that share bytes do not make more work */
    for (size_t i = 0; i < image->segment_count; i++) {
        const struct image_segment *s = &image->segments[i];
        if (s->type != PT_LOAD || s->file_size > budget)
            continue;
        budget -= s->file_size;
        for (uint64_t at = -s->vaddr & 7; at + 8 <= s->file_size; at += 8) {
            uint64_t value;
            memcpy(&value, image->bytes + s->offset + at, sizeof value);
            if (value && !code_is_start(flow->code, s->vaddr + at))
                push_function(flow, value);
        }
    }
}

/* Bytes that were reached in two modes are proved for none. */
static void drop_ambiguous(struct code *code)
{
    for (size_t i = 0; i < code->section_count; i++) {
        const struct code_section *s = &code->sections[i];
        for (uint64_t word = 0; word < (s->size + 63) / 64; word++)
            for (uint64_t both = s->starts[word] & s->other_mode[word]; both; both &= both - 1)
                code_clear_start(code, s, word * 64 + (uint64_t)__builtin_ctzll(both));
    }
}

static int flow_open(struct flow *flow, struct error *err)
{
    struct code *code = flow->code;
    size_t words = code->index->bits / 64;
    flow->part = code_add_part(code);
    flow->block = calloc(words, (FLOW_MODES + 1) * sizeof(uint64_t));
    if (!flow->part || !flow->block) {
        fail(err, EXIT_IO, "%s: out of memory", flow->image->name);
        return -1;
    }
    for (int mode = 0; mode < FLOW_MODES; mode++)
        flow->seen[mode] = flow->block + (size_t)mode * words;
    flow->slots_left = flow->image->size / 8;
    flow->functions = flow->block + FLOW_MODES * words;
    ZydisDecoderInit(&flow->decoder[MODE_16], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&flow->decoder[MODE_32], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&flow->decoder[MODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return 0;
}

int code_follow(const struct image *image, struct code *code, bool other_mode_only,
                struct error *err)
{
    struct flow flow = {.image = image, .code = code, .other_mode_only = other_mode_only};
    if (other_mode_only && !flow_has_other_mode(&flow))
        return 0;
    int result = flow_open(&flow, err);
    if (result == 0) {
        mark_functions(&flow);
        bool other = flow_push_entries(&flow);
        if (!other && !other_mode_only)
            push_all_functions(&flow);
        follow_all(&flow);
        if (!other_mode_only && flow.proved_64) {
            push_stored_functions(&flow);
            follow_all(&flow);
        }
        drop_ambiguous(code);
        if (flow.failed)
            result = fail(err, EXIT_IO, "%s: out of memory", image->name);
    }
    free(flow.block);
    free(flow.items);
    free(flow.far);
    return result;
}
