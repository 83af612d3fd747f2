/* SPDX-License-Identifier: MIT */
/* Emulation paths: each is a template, filled for the very instruction that its routine stands for
 * (D8), and continues at the routine's tail. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/template.h"
#include "patchc/verify_internal.h"

/* Flags that say where a routine is; the others are its template's. (An STI before the site is the
 * host's to emulate, together with the site: nothing may come between them.) */
enum { PLACE_FLAGS = PV_ROUTINE_REPLACEMENT | PV_ROUTINE_STI };

struct routine_check {
    struct verify *v;
    const struct pv_routine *routine;
    uint32_t index;
    ZydisDecodedInstruction instruction; /* the site, in the original */
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    uint64_t site;
    uint64_t address; /* of the template's code */
    const uint8_t *code;
    size_t size;
    const struct template_set *set;
    const struct template *match;
};

static void wrong(const struct routine_check *c, const char *what)
{
    verify_mismatch(c->v, "routine %u: site 0x%" PRIx64 ", emulation 0x%" PRIx64 ": %s", c->index,
                    c->site, c->address, what);
}

/* 0 where the header has no such thing. */
static uint64_t optional(const struct verify *v, int64_t offset)
{
    return offset ? verify_place(v, offset) : 0;
}

static struct template_values values_of(const struct routine_check *c)
{
    const struct verify *v = c->v;
    return (struct template_values){
        .instruction = &c->instruction,
        .operands = c->operands,
        .address = c->site,
        .index = c->index,
        .native = verify_place(v, c->routine->native_offset),
        .tail = verify_place(v, c->routine->tail_offset),
        .next = c->site + c->instruction.length,
        .state = optional(v, v->header.state_offset),
        .cpuid_table = optional(v, v->header.cpuid_table_offset),
        .msr_table = optional(v, v->header.msr_table_offset),
    };
}

/* Is the code this template, filled for this instruction? Called for every template there is. */
static void try_template(const struct template *t, void *context)
{
    struct routine_check *c = context;
    uint8_t flags = c->routine->flags & ~PLACE_FLAGS;
    if (c->match || template_size(t) != c->size || template_kind(t) != c->routine->kind ||
        template_flags(t) != flags)
        return;
    struct template_available all = {
        .context = ~0u, .state = true, .cpuid = true, .msr = true, .deprivileged = true};
    if (template_find(c->set, template_name(t), &c->instruction, c->operands, &all, NULL) != t)
        return;
    uint8_t *filled = malloc(c->size + 1);
    struct template_values values = values_of(c);
    struct error ignored = {0};
    if (!filled)
        c->v->out_of_memory = true;
    else if (template_fill(t, &values, c->address, filled, &ignored) == 0 &&
             memcmp(filled, c->code, c->size) == 0)
        c->match = t;
    free(filled);
}

static void check_routine(struct verify *v, const struct template_set *set, uint32_t index)
{
    const struct pv_routine *r = &v->routines[index];
    struct routine_check c = {.v = v, .routine = r, .index = index, .set = set};
    c.site = verify_place(v, r->site_offset);
    uint64_t available = 15;
    const uint8_t *bytes = NULL;
    while (available && !(bytes = image_at(&v->before, c.site, available)))
        available--;
    if (!bytes || !ZYAN_SUCCESS(ZydisDecoderDecodeFull(&v->decoder, bytes, available,
                                                       &c.instruction, c.operands))) {
        wrong(&c, "its site is no instruction of the original");
        return;
    }
    if (r->operand != template_operand(&c.instruction, c.operands))
        wrong(&c, "its operand is not that of its instruction");
    if (r->emulation_offset == 0) {
        if (r->emulation_size || (r->flags & ~PLACE_FLAGS) || r->kind != PV_KIND_NATIVE_ONLY)
            wrong(&c, "it has no emulation path, but a size, flags or a kind of one");
        return;
    }
    c.address = verify_place(v, r->emulation_offset);
    c.size = r->emulation_size;
    c.code = image_at(&v->after, c.address, (uint64_t)c.size + 5);
    if (!c.code) {
        wrong(&c, "it is not in the image");
        return;
    }
    verify_claim(v, c.address, (uint64_t)c.size + 5, CLAIM_PADDING, "emulation path");
    const uint8_t *jump = c.code + c.size;
    uint64_t to = c.address + c.size + 5 + (uint64_t)read_s32(jump + 1);
    if (jump[0] != 0xe9 || to != verify_place(v, r->tail_offset))
        wrong(&c, "it does not end with a jump to the routine's tail");
    template_each(set, try_template, &c);
    if (!c.match)
        wrong(&c, "its code, kind and flags are of no template, filled for its instruction");
}

void verify_emulation(struct verify *v)
{
    struct template_set *set = template_set_open(v->err);
    if (!set) {
        v->mismatches++; /* v->err says why */
        return;
    }
    for (uint32_t i = 0; i < v->header.routine_count; i++)
        if (!verify_dead_routine(v, i))
            check_routine(v, set, i);
    template_set_close(set);
}
