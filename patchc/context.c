/* SPDX-License-Identifier: MIT */
/* Site context: what is known of Linux code by the names that delimit it. */
#include "patchc/context.h"

#include <stdlib.h>
#include <string.h>

#define CONTEXT_ALL                                                                                \
    (CONTEXT_STACK | CONTEXT_KERNEL_TABLES | CONTEXT_HIGH | CONTEXT_NMI_SAFE | CONTEXT_FREE_LABELS)

/* What code between two symbols lacks, or why it is not touched. `end` NULL: to the next symbol;
 * `bytes` not 0: that many bytes instead. Facts: docs/linux.md. */
static const struct {
    const char *start, *end;
    uint64_t bytes;
    unsigned lacks;
    enum reason excluded;
} linux_ranges[] = {
    /* Runs at a low identity address before the kernel's own page tables are in place. */
    {"_text", NULL, 0x2000, CONTEXT_HIGH, REASON_NONE},
    {"sme_encrypt_execute", NULL, 0, CONTEXT_HIGH, REASON_NONE},
    /* Before RSP is set up. */
    {"startup_64", "verify_cpu", 0, CONTEXT_STACK | CONTEXT_HIGH, REASON_NONE},
    /* Under PTI with the user page tables; RSP is the user's or the entry stack's. */
    {"__entry_text_start", "__entry_text_end", 0,
     CONTEXT_STACK | CONTEXT_KERNEL_TABLES | CONTEXT_NMI_SAFE, REASON_NONE},
    {"__noinstr_text_start", "__noinstr_text_end", 0, CONTEXT_NMI_SAFE, REASON_NONE},
    /* Saved RIPs are compared with these. */
    {"native_irq_return_iret", NULL, 16, CONTEXT_FREE_LABELS, REASON_CONTEXT},
    {"asm_load_gs_index_gs_change", NULL, 0, CONTEXT_FREE_LABELS, REASON_CONTEXT},
    {"repeat_nmi", "end_repeat_nmi", 0, CONTEXT_FREE_LABELS, REASON_CONTEXT},
    {"entry_SYSCALL_64", "entry_SYSCALL_64_safe_stack", 0, CONTEXT_FREE_LABELS, REASON_CONTEXT},
    {"entry_SYSRETQ_unsafe_stack", "entry_SYSRETQ_end", 0, CONTEXT_FREE_LABELS, REASON_CONTEXT},
    {"entry_SYSCALL_compat", "entry_SYSCALL_compat_safe_stack", 0, CONTEXT_FREE_LABELS,
     REASON_CONTEXT},
    {"entry_SYSRETL_compat_unsafe_stack", "entry_SYSRETL_compat_end", 0, CONTEXT_FREE_LABELS,
     REASON_CONTEXT},
    /* Copied elsewhere before it runs. */
    {"relocate_kernel", NULL, 0x800, 0, REASON_COPIED_CODE},
    {"__enc_copy", NULL, 0, 0, REASON_COPIED_CODE},
    {"core_restore_code", NULL, 0, 0, REASON_COPIED_CODE},
    {"ftrace_caller", "ftrace_caller_end", 0, 0, REASON_COPIED_CODE},
    {"ftrace_regs_caller", "ftrace_regs_caller_end", 0, 0, REASON_COPIED_CODE},
};

static uint64_t next_symbol(const struct image *image, uint64_t address)
{
    size_t low = 0, high = image->symbol_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (image->symbols[middle].address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < image->symbol_count ? image->symbols[low].address : address + 4096;
}

int context_open(const struct image *image, struct context *context, struct error *err)
{
    const size_t rows = sizeof linux_ranges / sizeof linux_ranges[0];
    *context = (struct context){.linux_image = image_is_linux(image)};
    if (!context->linux_image)
        return 0;
    context->linux_without_names = image->symbol_count == 0;
    context->ranges = calloc(rows, sizeof *context->ranges);
    if (!context->ranges)
        return fail(err, EXIT_IO, "%s: out of memory", image->name);
    for (size_t i = 0; i < rows; i++) {
        const struct image_symbol *start = image_symbol_named(image, linux_ranges[i].start);
        if (!start)
            continue;
        uint64_t end = start->address + linux_ranges[i].bytes;
        if (!linux_ranges[i].bytes)
            end = next_symbol(image, start->address);
        if (linux_ranges[i].end) {
            const struct image_symbol *last = image_symbol_named(image, linux_ranges[i].end);
            if (last && last->address > start->address)
                end = last->address;
        }
        context->ranges[context->count++] = (struct context_range){
            start->address, end, linux_ranges[i].lacks, linux_ranges[i].excluded};
    }
    return 0;
}

void context_close(struct context *context)
{
    free(context->ranges);
    *context = (struct context){0};
}

unsigned context_at(const struct context *context, uint64_t address, enum reason *excluded)
{
    /* NMI handlers call into the kernel at large: no shared spill slot is safe in Linux. */
    unsigned has = CONTEXT_ALL;
    if (context->linux_image)
        has &= ~(unsigned)CONTEXT_NMI_SAFE;
    *excluded = REASON_NONE;
    for (size_t i = 0; i < context->count; i++) {
        const struct context_range *range = &context->ranges[i];
        if (address < range->start || address >= range->end)
            continue;
        has &= ~range->lacks;
        if (range->excluded)
            *excluded = range->excluded;
    }
    return has;
}

bool context_may_move(const struct context *context, uint64_t address, uint64_t length)
{
    for (size_t i = 0; i < context->count; i++) {
        const struct context_range *range = &context->ranges[i];
        if (range->excluded && address < range->end && address + length > range->start)
            return false;
    }
    return true;
}
