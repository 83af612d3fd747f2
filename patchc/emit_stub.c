/* SPDX-License-Identifier: MIT */
/* The stub's tables: header, routine table (D5), routine and patch information. */
#include <stdlib.h>
#include <string.h>

#include "patchc/emit.h"

static int64_t from_header(const struct plan *plan, uint64_t address)
{
    return address ? (int64_t)(address - plan->header) : 0;
}

static int emit_header(const struct plan *plan, uint32_t patch_count, struct output_bytes *out,
                       struct error *err)
{
    struct pv_header header = {
        .abi_version = PV_ABI_VERSION,
        .header_size = sizeof header,
        .features = (plan->state ? PV_FEATURE_STATE : 0) |
                    (plan->cpuid_table ? PV_FEATURE_CPUID : 0) |
                    (plan->msr_table ? PV_FEATURE_MSR : 0),
        .routine_count = (uint32_t)plan->routine_count,
        .routine_table_offset = from_header(plan, plan->routine_table),
        .routine_info_offset = from_header(plan, plan->routine_info),
        .patch_info_offset = from_header(plan, plan->patch_info),
        .patch_count = patch_count,
        .doorbell_port = PV_DOORBELL_PORT,
        .cpuid_table_offset = from_header(plan, plan->cpuid_table),
        .msr_table_offset = from_header(plan, plan->msr_table),
        .state_offset = from_header(plan, plan->state),
        .state_size = plan->state_size,
    };
    memcpy(header.magic, PV_HEADER_MAGIC, sizeof header.magic);
    if (plan->cpuid_table) {
        struct pv_cpuid_table *empty = calloc(1, sizeof *empty);
        if (!empty || output_put(out, plan->cpuid_table, empty, sizeof *empty, err)) {
            free(empty);
            return -1;
        }
        free(empty);
    }
    if (plan->msr_table) {
        struct pv_msr_table empty = {0};
        if (output_put(out, plan->msr_table, &empty, sizeof empty, err))
            return -1;
    }
    return output_put(out, plan->header, &header, sizeof header, err);
}

static uint32_t operand_of(const struct site *site)
{
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    if (!site_decode(site, &instruction, operands))
        return 0;
    return template_operand(&instruction, operands);
}

static int emit_routines(const struct plan *plan, const uint32_t *patch_number,
                         struct output_bytes *out, struct error *err)
{
    for (size_t i = 0; i < plan->routine_count; i++) {
        const struct routine *r = &plan->routines[i];
        const struct patch *patch = &plan->patches[r->patch];
        if (!r->link) { /* its patch found no room: all-zero entries */
            static const struct pv_routine none;
            if (output_put(out, plan->routine_table + 8 * i, &none, 8, err) ||
                output_put(out, plan->routine_info + sizeof none * i, &none, sizeof none, err))
                return -1;
            continue;
        }
        bool first = i == patch->first_routine;
        uint64_t entry =
            first && !(patch->flags & PV_PATCH_REPLACEMENT) ? patch->trampoline : r->link;
        struct pv_routine info = {
            .site_offset = from_header(plan, plan->sites[r->site].address),
            .link_offset = from_header(plan, r->link),
            .native_offset = from_header(plan, r->native),
            .emulation_offset = from_header(plan, r->emulation),
            .tail_offset = from_header(plan, r->tail),
            .emulation_size = r->emulation_size,
            .kind = (uint16_t)r->kind,
            .form = patch->form,
            .flags = (uint8_t)r->flags,
            .operand = operand_of(&plan->sites[r->site]),
            .patch = patch_number[r->patch],
        };
        if (patch->flags & PV_PATCH_REPLACEMENT && first)
            entry = patch->trampoline;
        if (output_put(out, plan->routine_table + 8 * i, &entry, 8, err) ||
            output_put(out, plan->routine_info + sizeof info * i, &info, sizeof info, err))
            return -1;
    }
    return 0;
}

static int emit_patch_info(const struct plan *plan, struct output_bytes *out, uint32_t *numbers,
                           uint32_t *count, struct error *err)
{
    *count = 0;
    for (size_t i = 0; i < plan->patch_count; i++) {
        const struct patch *patch = &plan->patches[i];
        if (!patch->trampoline)
            continue;
        numbers[i] = *count;
        struct pv_patch info = {
            .window_offset = from_header(plan, patch->window),
            .trampoline_offset = from_header(plan, patch->trampoline),
            .island_offset = from_header(plan, patch->island),
            .window_size = patch->window_size,
            .trampoline_size = patch->trampoline_size,
            .first_routine = patch->routine_count ? patch->first_routine : 0,
            .routine_count = (uint16_t)patch->routine_count,
            .form = patch->form,
            .flags = patch->flags,
        };
        if (output_put(out, plan->patch_info + sizeof info * (*count)++, &info, sizeof info, err))
            return -1;
    }
    return 0;
}

int emit_stub(const struct plan *plan, struct output_bytes *out, struct error *err)
{
    uint32_t *numbers = calloc(plan->patch_count + 1, sizeof *numbers);
    uint32_t count;
    if (!numbers)
        return fail(err, EXIT_IO, "%s: out of memory", plan->image->name);
    int status = emit_patch_info(plan, out, numbers, &count, err) ||
                         emit_routines(plan, numbers, out, err) ||
                         emit_header(plan, count, out, err)
                     ? -1
                     : 0;
    free(numbers);
    return status;
}
