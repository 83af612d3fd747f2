/* SPDX-License-Identifier: MIT */
/* Differential test of the software processor: random user-mode code on the host processor and on the software
 * processor, from the same state; everything is compared.
 *
 *   differential [--cases N] [--seconds S] [--seed X] [--first I] [--only integer,string,sse,x87,vex] [--failures N]
 *                [--translated]
 *
 * A case is made from the seed and its number alone, so a failure is repeated by --seed X --first I --cases 1. Exit
 * status: 0 all the same, 1 a difference (or the host's process died), 2 usage or a host that cannot run it. */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "runtime/translator/translator.h"
#include "tests/tools/differential/case.h"

struct options {
    uint64_t cases, seed, first, failures;
    double seconds; /* 0 = no limit */
    unsigned mix;
    bool translated;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int usage(void)
{
    fputs("usage: differential [--cases N] [--seconds S] [--seed X] [--first I] [--failures N]\n"
          "                    [--only integer,string,sse,x87,vex] [--translated]\n",
          stderr);
    return 2;
}

static bool parse_mix(const char *text, unsigned *mix)
{
    static const char *const names[] = {"integer", "string", "sse", "x87", "vex"};
    char copy[64], *at = copy;
    if (strlen(text) >= sizeof copy)
        return false;
    strcpy(copy, text);
    *mix = 0;
    for (char *name; (name = strsep(&at, ","));) {
        unsigned n = 0;
        while (n < 5 && strcmp(name, names[n]) != 0)
            n++;
        if (n == 5)
            return false;
        *mix |= 1u << n;
    }
    return true;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option known[] = {
        {"cases", required_argument, NULL, 'c'}, {"seconds", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'},  {"first", required_argument, NULL, 'f'},
        {"only", required_argument, NULL, 'o'},  {"failures", required_argument, NULL, 'n'},
        {"translated", no_argument, NULL, 'r'},  {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'c':
            o->cases = strtoull(optarg, NULL, 0);
            break;
        case 't':
            o->seconds = strtod(optarg, NULL);
            break;
        case 's':
            o->seed = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            o->first = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            o->failures = strtoull(optarg, NULL, 0);
            break;
        case 'r':
            o->translated = true;
            break;
        case 'o':
            if (!parse_mix(optarg, &o->mix))
                return false;
            break;
        default:
            return false;
        }
    }
    return optind == argc;
}

static void report(const struct test_case *failing, const struct options *o, struct native *native,
                   struct soft_side *soft)
{
    static struct machine host_after, soft_after;
    struct test_case *c = malloc(sizeof *c);
    if (!c)
        return;
    *c = *failing;
    printf("# case %" PRIu64 " differs: --seed 0x%" PRIx64 " --first %" PRIu64 " --cases 1\n",
           c->index, c->seed, c->index);
    if (o->mix != MIX_ALL)
        printf("# (and the same --only)\n");
    shrink(c, native, soft);
    print_case(c, stdout);
    printf("# after:\n");
    if (agree(c, native, soft, &host_after, &soft_after))
        printf("#   nothing differs when it is run again\n");
    else
        same_outcome(c, &host_after, &soft_after, stdout);
    fflush(stdout);
    free(c);
}

struct tally {
    uint64_t done, failed, lost, instructions, faults;
};

static void run(const struct options *o, struct native *native, struct soft_side *soft,
                struct tally *tally)
{
    static struct test_case cases[BATCH];
    static struct machine host_after[BATCH], soft_after[BATCH];
    double end = now() + o->seconds;
    while (tally->done < o->cases && tally->failed < o->failures &&
           (o->seconds == 0 || now() < end)) {
        unsigned count =
            o->cases - tally->done < BATCH ? (unsigned)(o->cases - tally->done) : BATCH;
        for (unsigned n = 0; n < count; n++)
            generate(&cases[n], o->seed, o->first + tally->done + n, o->mix);
        native_begin(native, cases, count);
        for (unsigned n = 0; n < count; n++)
            soft_side_run(soft, &cases[n], &soft_after[n]);
        tally->done += count;
        if (!native_finish(native, host_after, count)) {
            tally->lost += count; /* what killed it would be the generator's fault */
            return;
        }
        for (unsigned n = 0; n < count; n++) {
            tally->instructions += cases[n].count;
            tally->faults += host_after[n].vector != VECTOR_END;
            if (same_outcome(&cases[n], &host_after[n], &soft_after[n], NULL))
                continue;
            if (++tally->failed <= o->failures)
                report(&cases[n], o, native, soft);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o = {.cases = 100000, .failures = 5, .mix = MIX_ALL};
    struct tally tally = {0};
    if (getrandom(&o.seed, sizeof o.seed, 0) != sizeof o.seed)
        o.seed = (uint64_t)time(NULL);
    if (!parse(argc, argv, &o))
        return usage();
    struct native *native = native_start();
    const char *missing = o.translated ? translator_missing() : NULL;
    if (missing)
        fprintf(stderr, "differential: no translator: %s\n", missing);
    struct soft_side *soft = native && !missing ? soft_side_create(o.translated) : NULL;
    if (!soft)
        return 2;
    printf("# seed 0x%" PRIx64 "\n", o.seed);
    double started = now();
    run(&o, native, soft, &tally);
    printf("# %" PRIu64 " cases, %" PRIu64 " instructions, %" PRIu64 " ended by a fault, %" PRIu64
           " lost, %" PRIu64 " differ, %.1f s\n",
           tally.done, tally.instructions, tally.faults, tally.lost, tally.failed, now() - started);
    soft_side_destroy(soft);
    native_stop(native);
    return tally.failed || tally.lost ? 1 : 0;
}
