/* SPDX-License-Identifier: MIT */
/* What one exit costs on this machine, by reason: a guest that does the same thing again and again, on each engine. */
#include "runtime/calibrate.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "image/output.h"
#include "runtime/calibrate_guest.h"
#include "runtime/kvm/kvm.h"

#define MEMORY     (16ull << 20)
#define LONG_RUN   8e-3 /* s: long enough to be measured */
#define ROUNDS_MIN 64u
#define ROUNDS_MAX (1u << 22)
#define PATIENCE   3.0 /* s for an engine; then it goes on with shorter and fewer runs */
#define ATTEMPTS   3   /* the shortest counts: others were disturbed */

struct column {
    const char *name;
    const struct engine *engine;
    double *costs; /* ns, by row */
    double due;    /* from that time on it need not be exact */
};

static double seconds(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Processor time, in seconds, that so many rounds take: others on a busy host do not count. Negative: they do not end
 * as they should. */
static double time_rounds(const struct column *column, const struct calibrate_row *row,
                          uint32_t rounds, struct error *err)
{
    double result = -1;
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm)
        return fail(err, HVRUN_HOST, "--calibrate: out of memory");
    vm->config = (struct vm_config){.memory = MEMORY, .smp = 1};
    vm->engine = column->engine;
    if (vm_create(vm, err) == 0) {
        if (calibrate_load(vm, row, rounds, err) == 0) {
            double start = seconds(CLOCK_PROCESS_CPUTIME_ID);
            int ran = vm->engine->run(vm, err);
            if (ran == 0 && vm->shutdown == SHUTDOWN_DEBUG_EXIT)
                result = seconds(CLOCK_PROCESS_CPUTIME_ID) - start;
            else
                fail(err, HVRUN_HOST, "--calibrate: %s: the guest ends by %s", row->name,
                     shutdown_names[vm->shutdown]);
        }
        vm_destroy(vm);
    }
    free(vm);
    return result;
}

static bool late(const struct column *column)
{
    return seconds(CLOCK_MONOTONIC) > column->due;
}

static double best(const struct column *column, const struct calibrate_row *row, uint32_t rounds,
                   struct error *err)
{
    double least = time_rounds(column, row, rounds, err);
    for (unsigned n = 1; n < ATTEMPTS && least >= 0 && !late(column); n++) {
        double again = time_rounds(column, row, rounds, err);
        least = again < least ? again : least;
    }
    return least;
}

/* ns of one round, the loop around it taken off. */
static int measure(const struct column *column, const struct calibrate_row *row, double *cost,
                   struct error *err)
{
    uint32_t rounds = ROUNDS_MIN;
    double once = time_rounds(column, row, rounds, err);
    double enough = late(column) ? LONG_RUN / 8 : LONG_RUN;
    while (once >= 0 && once < enough && rounds < ROUNDS_MAX) {
        rounds *= once < LONG_RUN / 8 ? 8 : 2;
        once = time_rounds(column, row, rounds, err);
    }
    if (once < 0)
        return -1;
    double all = 0, loop = 0;
    for (unsigned n = 0; n < ATTEMPTS && all >= 0 && loop >= 0 && all <= loop; n++) {
        all = best(column, row, rounds, err);
        loop = best(column, &calibrate_rows[0], rounds, err);
    }
    if (all < 0 || loop < 0)
        return -1;
    *cost = all > loop ? (all - loop) / rounds * 1e9 : 0;
    return 0;
}

static int fill(struct column *column, struct error *err)
{
    column->due = seconds(CLOCK_MONOTONIC) + PATIENCE;
    column->costs = calloc(calibrate_row_count, sizeof *column->costs);
    if (!column->costs)
        return fail(err, HVRUN_HOST, "--calibrate: out of memory");
    for (size_t n = 1; n < calibrate_row_count; n++)
        if (measure(column, &calibrate_rows[n], &column->costs[n], err) < 0)
            return -1;
    return 0;
}

/* ---- told ---- */
static void print_number(double ns)
{
    printf(ns < 100 ? " %11.1f" : " %11.0f", ns);
}

static void print(const struct column *columns, size_t count)
{
    printf("Nanoseconds that one of these takes here:\n\n%-12s %-46s", "", "");
    for (size_t c = 0; c < count; c++)
        printf(" %11s", columns[c].name);
    printf("  counter\n");
    for (size_t n = 1; n < calibrate_row_count; n++) {
        const struct calibrate_row *row = &calibrate_rows[n];
        printf("%-12s %-46s", row->name, row->what);
        for (size_t c = 0; c < count; c++)
            print_number(columns[c].costs[n]);
        printf("  %s\n", row->counter ? row->counter : "-");
    }
    printf("\nWhat patching saves: run the guest unpatched and patched with --stats; the "
           "difference of a\n"
           "counter, times the nanoseconds in its row, less those of what stands in the exit's "
           "place.\n");
}

static int write_json(const struct column *columns, size_t count, const char *path,
                      struct error *err)
{
    json_t *json = json_object();
    for (size_t n = 1; n < calibrate_row_count; n++) {
        json_t *costs = json_object();
        for (size_t c = 0; c < count; c++)
            json_object_set_new(costs, columns[c].name, json_real(columns[c].costs[n]));
        json_object_set_new(json, calibrate_rows[n].name, costs);
    }
    char *text = json_dumps(json, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(json);
    if (!text)
        return fail(err, HVRUN_HOST, "%s: out of memory", path);
    size_t length = strlen(text);
    text[length++] = '\n'; /* in place of the NUL */
    int result = output_write(path, &(struct iovec){text, length}, 1, 0644, err);
    free(text);
    if (result < 0)
        err->code = HVRUN_HOST;
    return result;
}

/* ---- which engines ---- */
/* The soft engine first: KVM's limits on features come for good. */
static int measure_soft(struct column *columns, size_t *count, struct error *err)
{
    columns[*count] = (struct column){.name = "soft", .engine = &soft_engine};
    return fill(&columns[(*count)++], err);
}

static int measure_kvm(struct column *columns, size_t *count, bool named, struct error *err)
{
    struct kvm_quality quality;
    struct error why = {0};
    if (kvm_probe(&quality, &why) < 0 || kvm_limit_features(&quality, &why) < 0) {
        if (named) {
            *err = why;
            return -1;
        }
        if (!kvm_absent())
            fprintf(stderr, "hvrun: %s\n", why.text);
        return 0;
    }
    if (quality.why_not[0])
        fprintf(stderr, "hvrun: %s\n", quality.why_not);
    columns[*count] = (struct column){.name = "kvm-user", .engine = &kvm_engine};
    if (fill(&columns[(*count)++], err) < 0)
        return -1;
    if (quality.no_chips)
        return 0;
    columns[*count] = (struct column){.name = "kvm-kernel", .engine = &kvm_chips_engine};
    return fill(&columns[(*count)++], err);
}

int calibrate(const struct vm_config *config, struct error *err)
{
    struct column columns[3];
    size_t count = 0;
    int result = 0;
    if (strcmp(config->engine, "kvm"))
        result = measure_soft(columns, &count, err);
    if (result == 0 && strcmp(config->engine, "soft"))
        result = measure_kvm(columns, &count, !strcmp(config->engine, "kvm"), err);
    if (result == 0) {
        print(columns, count);
        if (config->stats)
            result = write_json(columns, count, config->stats, err);
    }
    for (size_t c = 0; c < count; c++)
        free(columns[c].costs);
    return result;
}
