/* SPDX-License-Identifier: MIT */
/* Traces: lines from the difference of two states, text from a cache of decoded instructions. */
#include "runtime/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <Zydis/Zydis.h>

#include "image/image.h"
#include "image/output.h"
#include "runtime/soft/decode.h"
#include "runtime/trace_state.h"
#include "runtime/vmcs.h"

#define BUFFER    (1u << 20)
#define LINE_MAX_ 4096u /* more than any line has */
#define TEXTS     (1u << 14)
#define TEXT_MAX  232u
#define INSN_MAX  ZYDIS_MAX_INSTRUCTION_LENGTH

/* The first four columns of an instruction's line. */
struct text {
    uint64_t address;
    uint8_t bits, available; /* code bits; 0 = empty */
    uint8_t length, used;    /* of the instruction; characters */
    uint8_t bytes[INSN_MAX];
    char line[TEXT_MAX];
};

struct trace {
    struct vm *vm;
    struct output *file;
    uint64_t lines;
    size_t used;
    char *buffer;
    ZydisDecoder decoders[3];
    ZydisFormatter formatter;
    struct text *texts;
    struct text next[VCPUS_MAX]; /* the instruction each vCPU is at */
    uint64_t pending[VCPUS_MAX]; /* its debug traps that wait */
    struct trace_state before[VCPUS_MAX];
};

/* ---- the file ---- */
static int flush(struct trace *t, struct error *err)
{
    struct iovec piece = {t->buffer, t->used};
    t->used = 0;
    if (output_append(t->file, &piece, 1, err) == 0)
        return 0;
    err->code = HVRUN_HOST;
    return -1;
}

static void release(struct trace *t)
{
    free(t->buffer);
    free(t->texts);
    free(t);
}

struct trace *trace_open(struct vm *vm, struct output *file, struct error *err)
{
    static const ZydisMachineMode modes[] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    static const ZydisStackWidth widths[] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
                                             ZYDIS_STACK_WIDTH_64};
    struct trace *t = calloc(1, sizeof *t);
    if (!t) {
        fail(err, HVRUN_HOST, "trace: out of memory");
        return NULL;
    }
    t->vm = vm;
    t->file = file;
    t->buffer = malloc(BUFFER);
    t->texts = calloc(TEXTS, sizeof *t->texts);
    for (unsigned n = 0; n < 3; n++)
        ZydisDecoderInit(&t->decoders[n], modes[n], widths[n]);
    ZydisFormatterInit(&t->formatter, ZYDIS_FORMATTER_STYLE_INTEL);
    if (t->buffer && t->texts)
        return t;
    fail(err, HVRUN_HOST, "trace: out of memory");
    release(t);
    return NULL;
}

int trace_close(struct trace *t, struct error *err)
{
    int result = flush(t, err);
    release(t);
    return result;
}

uint64_t trace_lines(const struct trace *t)
{
    return t->lines;
}

/* ---- the instruction ---- */
unsigned trace_fetch(struct vmcs *vmcs, uint64_t linear, uint8_t bytes[INSN_MAX])
{
    const struct vcpu *cpu = vmcs->cpu;
    const struct tlb_entry *e =
        &cpu->tlb_table[cpu->mode][linear >> PAGE_SHIFT & (TLB_ENTRIES - 1)];
    if (e->fetch == (linear & ~PAGE_OFFSET) && (linear & PAGE_OFFSET) <= PAGE_SIZE - INSN_MAX) {
        memcpy(bytes, (const void *)(linear + e->addend), INSN_MAX); // NOLINT
        return INSN_MAX;
    }
    return (unsigned)vmcs_read(vmcs, linear, bytes, INSN_MAX);
}

static char *put_symbol(const struct trace *t, char *at, uint64_t address)
{
    uint64_t offset = 0;
    const struct image_symbol *symbol =
        t->vm->image ? image_symbol_at(t->vm->image, address, &offset) : NULL;
    if (!symbol) {
        *at++ = '-';
        return at;
    }
    int length = snprintf(at, 72, "%.64s", symbol->name);
    at += length;
    if (offset) {
        at = trace_put_text(at, "+0x");
        at = trace_put_hex(at, offset);
    }
    return at;
}

static void make_text(struct trace *t, struct text *text)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    char *at = text->line, instruction[96];
    const ZydisDecoder *decoder = &t->decoders[text->bits >> 5];
    bool good = text->available &&
                ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder, text->bytes, text->available, &insn,
                                                    operands)) &&
                ZYAN_SUCCESS(ZydisFormatterFormatInstruction(
                    &t->formatter, &insn, operands, insn.operand_count_visible, instruction,
                    sizeof instruction, text->address, NULL));
    text->length = good ? insn.length : text->available;
    at = trace_put_text(at, "0x");
    at = trace_put_hex(at, text->address);
    *at++ = '\t';
    at = put_symbol(t, at, text->address);
    *at++ = '\t';
    for (unsigned n = 0; n < text->length; n++)
        at += snprintf(at, 3, "%02x", text->bytes[n]);
    *at++ = '\t';
    at = trace_put_text(at, good ? instruction : text->available ? "(undefined)" : "(not mapped)");
    text->used = (uint8_t)(at - text->line);
}

/* The line of the instruction that the vCPU is at, made or from the cache. */
static void look_ahead(struct trace *t, struct vmcs *vmcs)
{
    struct text *next = &t->next[vmcs->cpu->index];
    uint64_t address = vcpu_linear_rip(vmcs->cpu);
    uint8_t bits = (uint8_t)vcpu_code_bits(vmcs->cpu), bytes[INSN_MAX] = {0};
    unsigned available = trace_fetch(vmcs, address, bytes);
    struct text *cached = &t->texts[(address ^ address >> 14) & (TEXTS - 1)];
    if (!cached->bits || cached->address != address || cached->bits != bits ||
        cached->available > available || memcmp(cached->bytes, bytes, cached->length) != 0) {
        cached->address = address;
        cached->bits = bits;
        cached->available = (uint8_t)available;
        memcpy(cached->bytes, bytes, INSN_MAX);
        make_text(t, cached);
    }
    memcpy(next, cached, offsetof(struct text, line) + cached->used);
}

/* ---- the event ---- */
static char *put_event(char *at, const struct vmcs *vmcs)
{
    static const char *const names[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD",
                                        "#NM", "#DF", "#9",  "#TS", "#NP", "#SS", "#GP",
                                        "#PF", "#15", "#MF", "#AC", "#MC", "#XM"};
    const struct vmcs_event *e = &vmcs->delivered;
    bool interrupt = e->type == VMCS_EVENT_EXTERNAL || e->type == VMCS_EVENT_SOFTWARE;
    if (interrupt || e->vector >= sizeof names / sizeof names[0])
        return trace_put_hex(
            trace_put_text(at, e->type == VMCS_EVENT_SOFTWARE ? "int=" : "interrupt="), e->vector);
    at = trace_put_text(at, names[e->vector]);
    if (e->has_error)
        at = trace_put_hex(trace_put_text(at, " error="), e->error);
    if (e->vector == EXC_PF)
        at = trace_put_hex(trace_put_text(at, " cr2="), vmcs->cpu->cr2);
    return at;
}

/* Did the step deliver an event and execute nothing? */
static bool only_event(const struct trace *t, const struct vmcs *vmcs)
{
    const struct vmcs_event *e = &vmcs->delivered;
    return e->valid && (e->type == VMCS_EVENT_EXTERNAL || e->type == VMCS_EVENT_NMI ||
                        (e->vector == EXC_DB && t->pending[vmcs->cpu->index]));
}

/* ---- lines ---- */
void trace_begin(struct trace *t)
{
    for (unsigned k = 0; k < t->vm->vcpu_count; k++) {
        struct vmcs *vmcs = t->vm->vcpus[k]->vmcs;
        trace_state_take(&t->before[k], vmcs->cpu);
        t->pending[k] = vmcs->pending_debug;
        look_ahead(t, vmcs);
    }
}

int trace_step(struct trace *t, const struct vmcs *vmcs, struct error *err)
{
    unsigned k = vmcs->cpu->index;
    const struct text *text = &t->next[k];
    struct trace_state after;
    if (BUFFER - t->used < LINE_MAX_ && flush(t, err) < 0)
        return -1;
    char *at = t->buffer + t->used;
    if (t->vm->vcpu_count > 1) {
        *at++ = (char)('0' + k);
        *at++ = ':';
    }
    if (only_event(t, vmcs)) {
        at = trace_put_hex(trace_put_text(at, "0x"), text->address);
        *at++ = '\t';
        at = put_symbol(t, at, text->address);
        at = trace_put_text(at, "\t\t");
    } else {
        memcpy(at, text->line, text->used);
        at += text->used;
    }
    *at++ = '\t';
    trace_state_take(&after, vmcs->cpu);
    at = trace_state_put(at, &t->before[k], &after);
    *at++ = '\t';
    if (vmcs->delivered.valid)
        at = put_event(at, vmcs);
    *at++ = '\n';
    t->used = (size_t)(at - t->buffer);
    t->lines++;
    t->before[k] = after;
    t->pending[k] = vmcs->pending_debug;
    look_ahead(t, vmcs->cpu->vmcs);
    return 0;
}
