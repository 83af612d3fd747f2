/* SPDX-License-Identifier: MIT */
/* What is shown of a virtual processor whose guest died: registers, code, and whom the stack names. */
#include "runtime/dump.h"

#include <elf.h>
#include <inttypes.h>

#include "image/image.h"
#include "image/terminal.h"
#include "runtime/soft/tlb.h"
#include "runtime/vm.h"

#define CODE_BYTES  16
#define STACK_WORDS 512 /* looked at */
#define STACK_NAMES 12  /* shown */

/* Guest memory as a debugger reads it. False if it is not there. */
static bool peek(const struct vcpu *cpu, uint64_t linear, void *to, unsigned size)
{
    uint8_t *bytes = to;
    for (unsigned n = 0; n < size; n++) {
        uint64_t physical;
        if (!tlb_peek((struct vcpu *)cpu, linear + n, &physical) ||
            !memory_read(&cpu->vm->memory, physical, bytes + n, 1))
            return false;
    }
    return true;
}

/* The symbol at or before `address`, which is one that the kernel is linked at or, early on, loaded at. */
static const struct image_symbol *symbol_at(const struct vcpu *cpu, uint64_t address,
                                            uint64_t *offset)
{
    const struct image *image = cpu->vm->image;
    const struct image_symbol *symbol = image ? image_symbol_at(image, address, offset) : NULL;
    for (size_t k = 0; image && !symbol && k < image->segment_count; k++) {
        const struct image_segment *s = &image->segments[k];
        if (s->type == PT_LOAD && address - s->paddr < s->mem_size)
            symbol = image_symbol_at(image, address - s->paddr + s->vaddr, offset);
    }
    return symbol;
}

/* " name+0x12" */
static void print_name(const struct vcpu *cpu, uint64_t address, FILE *stream)
{
    uint64_t offset;
    const struct image_symbol *symbol = symbol_at(cpu, address, &offset);
    char name[128];
    if (symbol)
        fprintf(stream, " %s+0x%" PRIx64, terminal_copy(name, sizeof name, symbol->name), offset);
}

static void print_registers(const struct vcpu *cpu, FILE *stream)
{
    static const char *const names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    for (unsigned n = 0; n < 16; n++)
        fprintf(stream, "  %-3s %016" PRIx64 "%s", names[n], cpu->r[n], n % 4 == 3 ? "\n" : "");
    fprintf(stream, "  rip %016" PRIx64 "  rflags %08" PRIx64 "  cpl %u ", cpu->rip,
            vcpu_rflags(cpu), cpu->cpl);
    print_name(cpu, vcpu_linear_rip(cpu), stream);
    fprintf(stream,
            "\n  cr0 %08" PRIx64 "  cr2 %016" PRIx64 "  cr3 %012" PRIx64 "  cr4 %08" PRIx64
            "  efer %04" PRIx64 "\n",
            cpu->cr0, cpu->cr2, cpu->cr3, cpu->cr4, cpu->efer);
}

static void print_segments(const struct vcpu *cpu, FILE *stream)
{
    static const char *const names[] = {"es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"};
    for (unsigned n = 0; n < SEGS; n++)
        fprintf(stream, "  %-4s %04x  base %016" PRIx64 "  limit %08x  rights %05x\n", names[n],
                cpu->segment[n].selector, cpu->segment[n].base, cpu->segment[n].limit,
                cpu->segment[n].rights);
    fprintf(stream, "  gdt  base %016" PRIx64 "  limit %04x\n", cpu->gdt_base, cpu->gdt_limit);
    fprintf(stream, "  idt  base %016" PRIx64 "  limit %04x\n", cpu->idt_base, cpu->idt_limit);
}

static void print_code(const struct vcpu *cpu, FILE *stream)
{
    uint64_t at = vcpu_linear_rip(cpu);
    uint8_t byte;
    fprintf(stream, "  code");
    for (unsigned n = 0; n < CODE_BYTES && peek(cpu, at + n, &byte, 1); n++)
        fprintf(stream, " %02x", byte);
    fprintf(stream, "\n");
}

/* kallsyms has no STT_FUNC. */
static bool is_function(const struct image_symbol *symbol)
{
    return symbol->function || symbol->type == 't' || symbol->type == 'T';
}

/* Every word that lies in a function: the callers, and some that are stale. */
static void print_stack(const struct vcpu *cpu, FILE *stream)
{
    bool wide = vcpu_code64(cpu);
    unsigned size = wide ? 8 : 4, shown = 0;
    uint64_t base = wide ? 0 : cpu->segment[SEG_SS].base;
    for (unsigned n = 0; n < STACK_WORDS && shown < STACK_NAMES && cpu->vm->image; n++) {
        uint64_t word = 0;
        if (!peek(cpu, base + cpu->r[RSP] + n * size, &word, size))
            return;
        uint64_t offset;
        const struct image_symbol *symbol = symbol_at(cpu, word, &offset);
        if (!symbol || !is_function(symbol))
            continue;
        fprintf(stream, "  stack+0x%03x %016" PRIx64, n * size, word);
        print_name(cpu, word, stream);
        fprintf(stream, "\n");
        shown++;
    }
}

void vcpu_dump(const struct vcpu *cpu, FILE *stream)
{
    print_registers(cpu, stream);
    print_segments(cpu, stream);
    print_code(cpu, stream);
    print_stack(cpu, stream);
}

const char *vcpu_place(const struct vcpu *cpu, char *text, size_t size)
{
    uint64_t offset;
    const struct image_symbol *symbol = symbol_at(cpu, vcpu_linear_rip(cpu), &offset);
    char name[128];
    if (symbol)
        snprintf(text, size, "RIP 0x%" PRIx64 " (%s+0x%" PRIx64 ")", cpu->rip,
                 terminal_copy(name, sizeof name, symbol->name), offset);
    else
        snprintf(text, size, "RIP 0x%" PRIx64, cpu->rip);
    return text;
}
