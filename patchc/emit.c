/* SPDX-License-Identifier: MIT */
/* Generation of trampolines and patches: displaced instructions are the original bytes with their
 * relative parts corrected; nothing is encoded anew that could lose a prefix or change a length. */
#include "patchc/emit.h"

#include <string.h>

#include "image/length.h"
#include "patchc/atoms.h"

#define PAGE_SHIFT 12

int output_put(struct output_bytes *out, uint64_t address, const void *bytes, size_t length,
               struct error *err)
{
    uint64_t offset = address - out->appended_address;
    if (out->appended && offset < out->appended_size && length <= out->appended_size - offset) {
        memcpy(out->appended + offset, bytes, length);
        return 0;
    }
    if (!image_offset(out->image, address, length, &offset))
        return fail(err, EXIT_INPUT, "%s: 0x%llx: no bytes of the file are loaded there",
                    out->image->name, (unsigned long long)address);
    output_put_file(out, offset, bytes, length);
    return 0;
}

void output_put_file(struct output_bytes *out, uint64_t offset, const void *bytes, size_t length)
{
    memcpy(out->edited + offset, bytes, length);
    for (uint64_t page = offset >> PAGE_SHIFT;
         length && page <= (offset + length - 1) >> PAGE_SHIFT; page++)
        out->dirty[page] = 1;
}

/* --- sizes --------------------------------------------------------------------------------- */

static const uint8_t *atom_bytes(const struct plan *plan, const struct atom *atom)
{
    return image_at(plan->image, atom->address, atom->length);
}

static bool is_jump_label(const struct plan *plan, const struct atom *atom)
{
    size_t first;
    return linux_table_range(&plan->tables->table[LINUX_JUMP_TABLE], atom->address,
                             atom->address + 1, &first) > 0;
}

/* A call that ends a window pushes the original return address, so that backtraces see it. */
static bool is_pushed_call(const struct plan *plan, const struct patch *patch, uint32_t index)
{
    enum reason excluded;
    return index + 1 == patch->atom_count && (patch->atoms[index].flags & ATOM_CALL) &&
           !(patch->flags & PV_PATCH_REPLACEMENT) &&
           (context_at(plan->context, patch->window, &excluded) & CONTEXT_STACK);
}

uint32_t emit_size(const struct plan *plan, const struct patch *patch, uint32_t index)
{
    const struct atom *atom = &patch->atoms[index];
    struct length_info info;
    if (atom->kind == ATOM_PADDING)
        return 0;
    if (atom->kind == ATOM_REGION)
        return (atom->flags & ATOM_GROW) ? REGION_MIN : atom->length;
    if (atom->kind == ATOM_STI)
        return atom->length;
    if (is_pushed_call(plan, patch, index))
        return EMIT_PUSHED_CALL_SIZE;
    if (atom->length == 2 && is_jump_label(plan, atom))
        return EMIT_JUMP_SIZE;
    if (!length_decode(atom_bytes(plan, atom), atom->length, &info) || !(info.flags & LENGTH_REL8))
        return atom->length;
    if (info.opcode == 0xeb)
        return EMIT_JUMP_SIZE;
    return (info.opcode & 0xf0) == 0x70 ? 6 : (uint32_t)(atom->length + 7);
}

bool emit_falls_out(const struct plan *plan, const struct patch *patch)
{
    uint32_t last = patch->atom_count - 1;
    if (patch->atoms[last].kind == ATOM_PADDING)
        return false;
    return !(patch->atoms[last].flags & ATOM_NO_FALL) && !is_pushed_call(plan, patch, last);
}

/* --- bytes --------------------------------------------------------------------------------- */

struct writer {
    const struct plan *plan;
    uint8_t *bytes;   /* of the whole trampoline */
    uint64_t address; /* of bytes[0] */
    uint32_t at;      /* bytes written */
};

static void put8(struct writer *w, uint8_t value)
{
    w->bytes[w->at++] = value;
}

static void put32(struct writer *w, uint32_t value)
{
    memcpy(w->bytes + w->at, &value, 4);
    w->at += 4;
}

/* The four-byte displacement that ends an instruction and leads to `target`. */
static void put_relative(struct writer *w, uint64_t target)
{
    put32(w, (uint32_t)(target - (w->address + w->at + 4)));
}

static void put_jump(struct writer *w, uint64_t target)
{
    put8(w, 0xe9);
    put_relative(w, target);
}

/* Copies an instruction; what it addresses relative to RIP stays the same. */
static void copy_instruction(struct writer *w, uint64_t original, const uint8_t *code,
                             unsigned length)
{
    struct length_info info;
    uint32_t start = w->at;
    memcpy(w->bytes + start, code, length);
    w->at += length;
    if (!length_decode(code, length, &info))
        return;
    unsigned field = info.flags & LENGTH_RIP     ? info.displacement
                     : info.flags & LENGTH_REL32 ? info.immediate
                                                 : 0;
    if (!field)
        return;
    int32_t displacement;
    memcpy(&displacement, code + field, 4);
    uint64_t target = original + length + (uint64_t)(int64_t)displacement;
    if (info.flags & LENGTH_REL32)
        target = plan_forward(w->plan, target);
    uint32_t corrected = (uint32_t)(target - (w->address + start + length));
    memcpy(w->bytes + start + field, &corrected, 4);
}

/* A short branch in its four-byte form; loop and jrcxz, which have none, over a jump. */
static void widen_branch(struct writer *w, uint64_t original, const uint8_t *code, unsigned length,
                         uint8_t opcode)
{
    uint64_t target =
        plan_forward(w->plan, original + length + (uint64_t)(int64_t)(int8_t)code[length - 1]);
    if (opcode == 0xeb) {
        put_jump(w, target);
    } else if ((opcode & 0xf0) == 0x70) {
        put8(w, 0x0f);
        put8(w, (uint8_t)(opcode + 0x10));
        put_relative(w, target);
    } else {
        memcpy(w->bytes + w->at, code, length - 1); /* prefixes and opcode */
        w->at += length - 1;
        put8(w, 2);
        put8(w, 0xeb);
        put8(w, EMIT_JUMP_SIZE);
        put_jump(w, target);
    }
}

/* push of the original return address without touching flags, then a jump to the function. */
static void push_call(struct writer *w, const struct atom *atom, const uint8_t *code)
{
    static const uint8_t reserve[] = {0x48, 0x8d, 0x64, 0x24, 0xf8, 0x50, 0x48, 0x8d, 0x05};
    static const uint8_t store[] = {0x48, 0x89, 0x44, 0x24, 0x08, 0x58};
    int32_t displacement;
    memcpy(&displacement, code + atom->length - 4, 4);
    uint64_t end = atom->address + atom->length;
    memcpy(w->bytes + w->at, reserve, sizeof reserve);
    w->at += sizeof reserve;
    put_relative(w, end);
    memcpy(w->bytes + w->at, store, sizeof store);
    w->at += sizeof store;
    put_jump(w, plan_forward(w->plan, end + (uint64_t)(int64_t)displacement));
}

static void copy_region(struct writer *w, const struct atom *atom, const uint8_t *code)
{
    uint32_t start = w->at;
    for (uint32_t done = 0; done < atom->length;) {
        struct length_info info;
        unsigned length = length_decode(code + done, atom->length - done, &info);
        if (!length)
            length = atom->length - done;
        copy_instruction(w, atom->address + done, code + done, length);
        done += length;
    }
    while ((atom->flags & ATOM_GROW) && w->at - start < REGION_MIN)
        put8(w, 0x90);
}

static void copy_jump_label(struct writer *w, const struct atom *atom, const uint8_t *code)
{
    static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
    if (code[0] == 0xeb) {
        widen_branch(w, atom->address, code, 2, 0xeb);
        return;
    }
    memcpy(w->bytes + w->at, nop5, sizeof nop5);
    w->at += sizeof nop5;
}

static void copy_atom(struct writer *w, const struct patch *patch, uint32_t index)
{
    const struct atom *atom = &patch->atoms[index];
    const uint8_t *code = atom_bytes(w->plan, atom);
    struct length_info info;
    if (atom->kind == ATOM_PADDING)
        return;
    if (atom->kind == ATOM_REGION) {
        copy_region(w, atom, code);
    } else if (atom->kind == ATOM_STI) {
        put8(w, code[0]);
        copy_instruction(w, atom->address + 1, code + 1, atom->length - 1);
    } else if (is_pushed_call(w->plan, patch, index)) {
        push_call(w, atom, code);
    } else if (atom->length == 2 && is_jump_label(w->plan, atom)) {
        copy_jump_label(w, atom, code);
    } else if (length_decode(code, atom->length, &info) && (info.flags & LENGTH_REL8)) {
        widen_branch(w, atom->address, code, atom->length, info.opcode);
    } else {
        copy_instruction(w, atom->address, code, atom->length);
    }
}

/* The emulation path of one routine: the filled template, then a jump to the tail. */
static int emit_emulation(struct writer *w, const struct routine *r, uint32_t index,
                          struct error *err)
{
    const struct plan *plan = w->plan;
    const struct site *site = &plan->sites[r->site];
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!site_decode(site, &instruction, operands))
        return fail(err, EXIT_INPUT, "%s: 0x%llx: cannot decode the site", plan->image->name,
                    (unsigned long long)site->address);
    struct template_values values = {
        .instruction = &instruction,
        .operands = operands,
        .address = site->address,
        .index = index,
        .native = r->native,
        .tail = r->tail,
        .next = site->address + site->length,
        .state = plan->state,
        .cpuid_table = plan->cpuid_table,
        .msr_table = plan->msr_table,
    };
    if (template_fill(r->template, &values, w->address + w->at, w->bytes + w->at, err))
        return -1;
    w->at += r->emulation_size;
    put_jump(w, r->tail);
    return 0;
}

static uint64_t leaves_to(const struct plan *plan, const struct patch *patch)
{
    if (patch->returns)
        return plan->return_thunk;
    if (patch->flags & PV_PATCH_REPLACEMENT) {
        const struct linux_entry *entry =
            &plan->tables->table[LINUX_ALTERNATIVES].entries[patch->entry];
        uint32_t length = entry->length < REGION_MIN ? REGION_MIN : entry->length;
        return plan_moved(plan, entry->address) + length;
    }
    return patch->window + patch->window_size;
}

static int emit_trampoline(const struct plan *plan, const struct patch *patch,
                           struct output_bytes *out, struct error *err)
{
    static const uint8_t endbr64[] = {0xf3, 0x0f, 0x1e, 0xfa};
    uint8_t bytes[8192];
    struct writer w = {plan, bytes, patch->trampoline, 0};
    if (patch->total_size > sizeof bytes)
        return fail(err, EXIT_INPUT, "%s: 0x%llx: trampoline too large", plan->image->name,
                    (unsigned long long)patch->window);
    if (patch->form == PV_FORM_CALL && !(patch->flags & PV_PATCH_REPLACEMENT)) {
        memcpy(bytes, endbr64, sizeof endbr64);
        w.at = sizeof endbr64;
    }
    for (uint32_t i = 0; i < patch->atom_count; i++) {
        if (patch->atoms[i].site >= 0) {
            put8(&w, 0xe9); /* the link: inactive */
            put32(&w, 0);
        }
        copy_atom(&w, patch, i);
    }
    if (emit_falls_out(plan, patch))
        put_jump(&w, leaves_to(plan, patch));
    for (uint32_t i = 0; i < patch->routine_count; i++)
        if (emit_emulation(&w, &plan->routines[patch->first_routine + i], patch->first_routine + i,
                           err))
            return -1;
    return output_put(out, patch->trampoline, bytes, w.at, err);
}

/* A five-byte jump or call from `at` to `target`. */
static int put_transfer(struct output_bytes *out, uint64_t at, uint8_t opcode, uint64_t target,
                        struct error *err)
{
    uint8_t bytes[EMIT_JUMP_SIZE] = {opcode};
    uint32_t relative = (uint32_t)(target - (at + sizeof bytes));
    memcpy(bytes + 1, &relative, 4);
    return output_put(out, at, bytes, sizeof bytes, err);
}

static unsigned encode_break(uint8_t *bytes, uint32_t index)
{
    bytes[0] = 0x0f;
    bytes[1] = 0xb9;
    if (index < PV_BREAK_SHORT_LIMIT) {
        bytes[2] = (uint8_t)(0x40 | (index >> 8) << 3);
        bytes[3] = (uint8_t)index;
        return 4;
    }
    bytes[2] = 0x80;
    memcpy(bytes + 3, &index, 4);
    return 7;
}

static int emit_window(const struct plan *plan, const struct patch *patch, struct output_bytes *out,
                       struct error *err)
{
    uint8_t window[256];
    uint32_t size = patch->window_size;
    if (size > sizeof window)
        return fail(err, EXIT_INPUT, "%s: 0x%llx: window too large", plan->image->name,
                    (unsigned long long)patch->window);
    memset(window, 0xcc, size);
    if (patch->form == PV_FORM_BREAK) {
        encode_break(window, patch->first_routine);
    } else if (patch->form == PV_FORM_BRANCH) {
        window[0] = 0xeb;
        window[1] = (uint8_t)(patch->island - (patch->window + 2));
    } else {
        uint64_t target = patch->form == PV_FORM_CALL ? patch->island : patch->trampoline;
        uint32_t relative = (uint32_t)(target - (patch->window + EMIT_JUMP_SIZE));
        window[0] = patch->form == PV_FORM_CALL ? 0xe8 : 0xe9;
        memcpy(window + 1, &relative, 4);
        if (patch->form == PV_FORM_CALL && emit_call_entry(plan, patch, out, err))
            return -1;
    }
    return output_put(out, patch->window, window, size, err);
}

int emit_patches(const struct plan *plan, struct output_bytes *out, struct error *err)
{
    for (size_t i = 0; i < plan->patch_count; i++) {
        const struct patch *patch = &plan->patches[i];
        if (!patch->trampoline || patch->shares >= 0)
            continue;
        if (emit_trampoline(plan, patch, out, err))
            return -1;
        if (patch->flags & PV_PATCH_REPLACEMENT) {
            if (put_transfer(out, patch->island, patch->returns ? 0xe8 : 0xe9, patch->trampoline,
                             err))
                return -1;
        } else if (emit_window(plan, patch, out, err)) {
            return -1;
        }
    }
    /* Islands last: they may stand in the windows of neighbours that made room. */
    for (size_t i = 0; i < plan->patch_count; i++) {
        const struct patch *patch = &plan->patches[i];
        if (patch->trampoline && patch->form == PV_FORM_BRANCH &&
            put_transfer(out, patch->island, 0xe9, patch->trampoline, err))
            return -1;
    }
    return 0;
}
