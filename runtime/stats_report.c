/* SPDX-License-Identifier: MIT */
/* The counters of a run, told: JSON for programs, a summary for people. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "image/image.h"
#include "image/json_whole.h"
#include "image/output.h"
#include "image/terminal.h"
#include "runtime/soft/engine.h"
#include "runtime/stats.h"
#include "runtime/stub.h"
#include "runtime/translator/translator.h"
#include "runtime/vm.h"

static const char *const kind_names[EXIT_KINDS] = {
    [EXIT_KIND_IO] = "io",
    [EXIT_KIND_CPUID] = "cpuid",
    [EXIT_KIND_MSR] = "msr",
    [EXIT_KIND_DOORBELL] = "doorbell",
    [EXIT_KIND_OTHER_LISTED] = "other_listed",
    [EXIT_KIND_HLT] = "hlt",
    [EXIT_KIND_INTERRUPT] = "interrupt",
    [EXIT_KIND_MMIO] = "mmio",
    [EXIT_KIND_CR3] = "cr3",
    [EXIT_KIND_CR] = "cr",
    [EXIT_KIND_DR] = "dr",
    [EXIT_KIND_EXCEPTION] = "exception",
};

static uint64_t total(const struct stats *stats)
{
    uint64_t sum = 0;
    for (unsigned k = 0; k < EXIT_KINDS_IN_TOTAL; k++)
        sum += stats->exits[k];
    return sum;
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *exits_json(const struct stats *stats)
{
    json_t *exits = json_object();
    json_object_set_new(exits, "total", number(total(stats)));
    for (unsigned k = 0; k < EXIT_KINDS; k++)
        json_object_set_new(exits, kind_names[k], number(stats->exits[k]));
    return exits;
}

/* All zero where nothing was translated. */
static json_t *translator_json(const struct vm *vm)
{
    static const char *const names[TRANSLATOR_EXITS] = {
        [TRANSLATOR_BUDGET] = "budget",     [TRANSLATOR_CHAIN] = "chain",
        [TRANSLATOR_JUMP] = "jump",         [TRANSLATOR_INTERPRET] = "interpret",
        [TRANSLATOR_INDIRECT] = "indirect", [TRANSLATOR_LOOKUP] = "lookup",
        [TRANSLATOR_ACCESS] = "access",     [TRANSLATOR_VECTORS] = "vectors",
        [TRANSLATOR_CALL] = "call",
    };
    static const struct translator_stats nothing = {0};
    const struct translator *translator = vm->soft ? vm->soft->translator : NULL;
    const struct translator_stats *stats = translator ? translator_stats(translator) : &nothing;
    json_t *exits = json_object();
    for (unsigned k = 0; k < TRANSLATOR_EXITS; k++)
        json_object_set_new(exits, names[k], number(stats->exits[k]));
    return json_pack("{s:o,s:o,s:o,s:o,s:f,s:o,s:o}", "blocks", number(stats->blocks), "traces",
                     number(stats->traces), "instructions", number(stats->instructions), "bytes",
                     number(stats->bytes), "seconds", (double)stats->nanoseconds * 1e-9, "flushes",
                     number(stats->flushes), "exits", exits);
}

static json_t *engine_json(const struct stats *stats)
{
    json_t *counts = json_object();
    for (unsigned k = 0; k < stats->engine_counts; k++)
        json_object_set_new(counts, stats->engine[k].name, number(stats->engine[k].value));
    return counts;
}

static json_t *stats_json(const struct vm *vm)
{
    const struct stats *stats = &vm->stats;
    json_t *forms = json_pack("{s:o,s:o,s:o,s:o}", "jump", number(stats->by_form[PV_FORM_JUMP]),
                              "call", number(stats->by_form[PV_FORM_CALL]), "branch",
                              number(stats->by_form[PV_FORM_BRANCH]), "break",
                              number(stats->by_form[PV_FORM_BREAK]));
    json_t *dispatch = json_pack("{s:o,s:o,s:o}", "routine_calls", number(stats->routine_calls),
                                 "host_calls", number(stats->host_calls), "by_form", forms);
    json_t *io = json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "coalesced", number(stats->coalesced), "instructions",
        number(stats->io_instructions), "events", number(stats->io_events), "posted",
        number(stats->posted), "block_hits", number(stats->block_hits), "block_misses",
        number(stats->block_misses), "hash_mismatches", number(stats->hash_mismatches),
        "table_ignored", number(stats->table_ignored));
    json_t *json = json_pack(
        "{s:s,s:s,s:f,s:o,s:o,s:o,s:o,s:o,s:o}", "engine", vm->engine->name, "shutdown",
        shutdown_names[vm->shutdown], "wall_seconds", vm->wall_seconds, "guest_instructions",
        number(stats->guest_instructions), "exits", exits_json(stats), "dispatch", dispatch, "io",
        io, "steps", number(stats->steps), "translator", translator_json(vm));
    if (stats->engine_counts)
        json_object_set_new(json, vm->engine->name, engine_json(stats));
    if (vm->config.lockstep)
        json_object_set_new(json, "lockstep",
                            json_pack("{s:o}", "points", number(stats->lockstep_points)));
    return json;
}

int stats_write(const struct vm *vm, struct output *file, struct error *err)
{
    json_t *json = stats_json(vm);
    char *text = json_whole(json, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(json);
    if (!text)
        return fail(err, HVRUN_HOST, "counters: out of memory");
    size_t length = strlen(text);
    text[length++] = '\n'; /* in place of the NUL */
    int result = output_append(file, &(struct iovec){text, length}, 1, err);
    free(text);
    if (result < 0)
        err->code = HVRUN_HOST;
    return result;
}

/* ---- the ten hottest symbols ---- */
#define HOTTEST 10

struct hot_symbol {
    const char *name; /* NULL: no symbol there */
    uint64_t address, count;
};

static int by_count(const void *a, const void *b)
{
    uint64_t x = ((const struct hot_symbol *)a)->count, y = ((const struct hot_symbol *)b)->count;
    return (x < y) - (x > y);
}

static int by_name(const void *a, const void *b)
{
    const struct hot_symbol *x = a, *y = b;
    if (x->name == y->name)
        return (x->address > y->address) - (x->address < y->address);
    return (x->name > y->name) - (x->name < y->name);
}

static size_t collect(const struct vm *vm, const struct image *image, struct hot_symbol *hot)
{
    const struct stats *stats = &vm->stats;
    size_t count = 0;
    for (size_t k = 0; k < HOT_ADDRESSES; k++) {
        if (!stats->hot[k].count)
            continue;
        uint64_t address = stats->hot[k].address;
        if (vm->stub)
            address = stub_site(vm->stub, address);
        const struct image_symbol *symbol = image ? image_symbol_at(image, address, NULL) : NULL;
        hot[count++] = (struct hot_symbol){symbol ? symbol->name : NULL,
                                           symbol ? symbol->address : address, stats->hot[k].count};
    }
    qsort(hot, count, sizeof *hot, by_name);
    size_t merged = 0;
    for (size_t k = 0; k < count; k++)
        if (merged && hot[k].name && hot[merged - 1].name == hot[k].name)
            hot[merged - 1].count += hot[k].count;
        else
            hot[merged++] = hot[k];
    qsort(hot, merged, sizeof *hot, by_count);
    return merged;
}

/* Two functions may have one name: the address tells them apart. */
static void print_hot(const struct hot_symbol *hot, const char *before, FILE *stream)
{
    char name[100] = "no symbol";
    if (hot->name)
        terminal_copy(name, sizeof name, hot->name);
    fprintf(stream, "%s%10" PRIu64 "  0x%016" PRIx64 " %s\n", before, hot->count, hot->address,
            name);
}

/* "io 12, msr 3": those that happened. */
static void print_kinds(const struct stats *stats, unsigned first, unsigned end, const char *before,
                        FILE *stream)
{
    for (unsigned k = first; k < end; k++)
        if (stats->exits[k]) {
            fprintf(stream, "%s%s %" PRIu64, before, kind_names[k], stats->exits[k]);
            before = ", ";
        }
}

void stats_exits(const struct vm *vm, const struct image *image, const char *before, FILE *stream)
{
    const struct stats *stats = &vm->stats;
    fprintf(stream, "%sexits %" PRIu64, before, total(stats));
    print_kinds(stats, 0, EXIT_KINDS_IN_TOTAL, ": ", stream);
    print_kinds(stats, EXIT_KINDS_IN_TOTAL, EXIT_KINDS, "; beside these: ", stream);
    fputc('\n', stream);
    struct hot_symbol *hot = malloc(HOT_ADDRESSES * sizeof *hot);
    size_t count = hot ? collect(vm, image, hot) : 0;
    if (count)
        fprintf(stream, "%smost of them from:\n", before);
    for (size_t k = 0; k < count && k < HOTTEST; k++)
        print_hot(&hot[k], before, stream);
    free(hot);
}

void stats_summary(const struct vm *vm, const struct image *image, FILE *stream)
{
    const struct stats *stats = &vm->stats;
    double seconds = vm->wall_seconds;
    fprintf(stream, "hvrun: %s after %.2f s, %" PRIu64 " guest instructions (%.0f MIPS)\n",
            shutdown_names[vm->shutdown], seconds, stats->guest_instructions,
            seconds > 0 ? (double)stats->guest_instructions / seconds / 1e6 : 0);
    stats_exits(vm, image, "hvrun: ", stream);
    const char *before = "hvrun: kvm:";
    for (unsigned k = 0; k < stats->engine_counts; k++)
        if (stats->engine[k].value) {
            fprintf(stream, "%s %s %" PRIu64, before, stats->engine[k].name,
                    stats->engine[k].value);
            before = ",";
        }
    if (stats->engine_counts)
        fputc('\n', stream);
}
