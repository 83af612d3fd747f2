/* SPDX-License-Identifier: MIT */
/* hvrun's command line: the table, the parser, --help. */
#include "runtime/options.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "ioblock/scan.h"

enum option_kind {
    OPTION_STRING,
    OPTION_FLAG,
    OPTION_SIZE,
    OPTION_SMP,
    OPTION_SECONDS,
    OPTION_ENGINE,
    OPTION_IRQCHIP,
    OPTION_COUNT,
    OPTION_SWITCH,
    OPTION_IO_BLOCKS,
    OPTION_IO_EXTENT
};

struct option_row {
    char letter; /* 0: no short option */
    const char *name;
    const char *argument; /* NULL: takes none */
    enum option_kind kind;
    uint32_t field;   /* offset in struct options */
    const char *help; /* one line; NULL: for few, and only named there */
};

#define FIELD(name)  offsetof(struct options, name)
#define CONFIG(name) offsetof(struct options, config.name)

static const struct option_row rows[] = {
    {'e', "engine", "ENGINE", OPTION_ENGINE, CONFIG(engine), "auto, soft or kvm (auto)"},
    {0, "irqchip", "WHERE", OPTION_IRQCHIP, CONFIG(irqchip), NULL},
    {'m', "memory", "SIZE", OPTION_SIZE, CONFIG(memory), "guest memory: 512M, 2G (256M)"},
    {0, "smp", "N", OPTION_SMP, CONFIG(smp), "virtual processors, 1 to 4 (1)"},
    {'i', "initrd", "FILE", OPTION_STRING, CONFIG(initrd), "initial RAM disk; multiboot: modules"},
    {'a', "append", "STRING", OPTION_STRING, CONFIG(append), "added to the kernel's command line"},
    {0, "serial", "TARGET", OPTION_STRING, CONFIG(serial), "stdio, or a file to write (stdio)"},
    {0, "stats", "FILE", OPTION_STRING, CONFIG(stats), "write counters as JSON at the end"},
    {'s', "summary", NULL, OPTION_FLAG, CONFIG(summary),
     "print times and exits on stderr at the end"},
    {'t', "timeout", "SECONDS", OPTION_SECONDS, CONFIG(timeout),
     "end the guest after that time, exit code 124"},
    {0, "no-patch", NULL, OPTION_FLAG, CONFIG(no_patch),
     "leave a patched image's routines inactive"},
    {0, "link-all", NULL, OPTION_FLAG, CONFIG(link_all), NULL},
    {0, "deterministic", NULL, OPTION_FLAG, CONFIG(deterministic),
     "same guest time in every run, no waiting"},
    {0, "gdb", "WHERE", OPTION_STRING, CONFIG(gdb), "where gdb attaches: [HOST:]PORT or unix:PATH"},
    {0, "gdb-nowait", NULL, OPTION_FLAG, CONFIG(gdb_nowait), "the guest does not wait for gdb"},
    {0, "step", "N", OPTION_COUNT, CONFIG(step), "make N single steps, then stop and say where"},
    {0, "trace", "FILE", OPTION_STRING, CONFIG(trace), "write a line for each instruction"},
    {0, "trace-start", "WHERE", OPTION_STRING, CONFIG(trace_start), NULL},
    {0, "trace-stop", "WHERE", OPTION_STRING, CONFIG(trace_stop), NULL},
    {0, "trace-count", "N", OPTION_COUNT, CONFIG(trace_count), NULL},
    {0, "lockstep", NULL, OPTION_FLAG, CONFIG(lockstep), "run on two engines and compare them"},
    {0, "lockstep-stride", "N", OPTION_COUNT, CONFIG(lockstep_stride), NULL},
    {0, "lockstep-count", "N", OPTION_COUNT, CONFIG(lockstep_count), NULL},
    {0, "translator", "ON", OPTION_SWITCH, CONFIG(translator),
     "translate code that runs often: on or off (on)"},
    {0, "io-blocks", "MODE", OPTION_IO_BLOCKS, CONFIG(io_blocks),
     "blocks of IO in one exit: off, table, scan or auto"},
    {0, "io-extent", "POLICY", OPTION_IO_EXTENT, CONFIG(io_extent), NULL},
    {0, "jail", "DIR", OPTION_STRING, CONFIG(jail), "all that hvrun sees of the file system then"},
    {0, "jail-user", "USER", OPTION_STRING, CONFIG(jail_user), NULL},
    {0, "no-sandbox", NULL, OPTION_FLAG, CONFIG(no_sandbox), NULL},
    {0, "calibrate", NULL, OPTION_FLAG, FIELD(calibrate), "measure what an exit costs here"},
    {'h', "help", NULL, OPTION_FLAG, FIELD(help), "print this help"},
    {'V', "version", NULL, OPTION_FLAG, FIELD(version), "print the version"},
};
#define ROWS (sizeof rows / sizeof rows[0])

/* "256M", "2G", "65536K", bytes: a whole number of megabytes in the end. */
static int take_size(const char *text, uint64_t *size, struct error *err)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (*end == 'K' || *end == 'k')
        shift = 10;
    else if (*end == 'M' || *end == 'm')
        shift = 20;
    else if (*end == 'G' || *end == 'g')
        shift = 30;
    if (shift)
        end++;
    if (text[0] < '0' || text[0] > '9' || *end || value == 0 || value > UINT64_MAX >> shift >> 20)
        return fail(err, HVRUN_USAGE, "--memory '%s': a size such as 256M or 2G is needed", text);
    *size = (uint64_t)value << shift;
    if (*size < 1 << 20 || *size > 64ull << 30 || *size & 0xfffff)
        return fail(err, HVRUN_USAGE, "--memory '%s': whole megabytes, from 1M to 64G", text);
    return 0;
}

static int take_seconds(const char *text, double *seconds, struct error *err)
{
    char *end;
    *seconds = strtod(text, &end);
    if (strspn(text, "0123456789.") != strlen(text) || end == text || *end || *seconds <= 0 ||
        *seconds > 1e8)
        return fail(err, HVRUN_USAGE, "--timeout '%s': a number of seconds is needed", text);
    return 0;
}

static int take_smp(const char *text, unsigned *smp, struct error *err)
{
    if (text[0] < '1' || text[0] > '0' + VCPUS_MAX || text[1])
        return fail(err, HVRUN_USAGE, "--smp '%s': from 1 to %d virtual processors", text,
                    VCPUS_MAX);
    *smp = (unsigned)(text[0] - '0');
    return 0;
}

static int take_io_blocks(const char *text, enum io_blocks_mode *mode, struct error *err)
{
    static const char *const names[] = {[IO_BLOCKS_OFF] = "off",
                                        [IO_BLOCKS_TABLE] = "table",
                                        [IO_BLOCKS_SCAN] = "scan",
                                        [IO_BLOCKS_AUTO] = "auto"};
    for (unsigned k = 0; k < sizeof names / sizeof names[0]; k++)
        if (!strcmp(text, names[k])) {
            *mode = (enum io_blocks_mode)k;
            return 0;
        }
    return fail(err, HVRUN_USAGE, "--io-blocks '%s': off, table, scan or auto is needed", text);
}

static int take_io_extent(const char *text, const char **policy, struct error *err)
{
    struct io_extent extent;
    if (!io_extent_parse(text, &extent))
        return fail(err, HVRUN_USAGE,
                    "--io-extent '%s': line, page, engine or bytes:N (1 to %u) is needed", text,
                    IO_BLOCK_BYTES_MAX);
    *policy = text;
    return 0;
}

static int take_count(const char *name, const char *text, uint64_t *count, struct error *err)
{
    char *end;
    *count = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || *count == 0 || *count > INT64_MAX)
        return fail(err, HVRUN_USAGE, "--%s '%s': a number of 1 or more is needed", name, text);
    return 0;
}

static int take_switch(const char *name, const char *text, bool *on, struct error *err)
{
    *on = !strcmp(text, "on");
    if (!*on && strcmp(text, "off"))
        return fail(err, HVRUN_USAGE, "--%s '%s': on or off is needed", name, text);
    return 0;
}

static int take(const struct option_row *row, const char *value, struct options *options,
                struct error *err)
{
    void *field = (char *)options + row->field;

    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case OPTION_STRING:
        if (value[0] == '\0' && row->field != CONFIG(append))
            return fail(err, HVRUN_USAGE, "option '--%s' needs a %s that is not empty", row->name,
                        row->argument);
        *(const char **)field = value;
        return 0;
    case OPTION_ENGINE:
        if (strcmp(value, "auto") && strcmp(value, "soft") && strcmp(value, "kvm"))
            return fail(err, HVRUN_USAGE, "--engine '%s': auto, soft or kvm is needed", value);
        *(const char **)field = value;
        return 0;
    case OPTION_IRQCHIP:
        if (strcmp(value, "auto") && strcmp(value, "user") && strcmp(value, "kernel"))
            return fail(err, HVRUN_USAGE, "--irqchip '%s': auto, user or kernel is needed", value);
        *(const char **)field = value;
        return 0;
    case OPTION_SWITCH:
        return take_switch(row->name, value, field, err);
    case OPTION_COUNT:
        return take_count(row->name, value, field, err);
    case OPTION_IO_BLOCKS:
        return take_io_blocks(value, field, err);
    case OPTION_IO_EXTENT:
        return take_io_extent(value, field, err);
    case OPTION_SIZE:
        return take_size(value, field, err);
    case OPTION_SMP:
        return take_smp(value, field, err);
    case OPTION_SECONDS:
        return take_seconds(value, field, err);
    }
    return -1;
}

static int refuse(int answer, char **argv, struct error *err)
{
    char text[64];

    if (optopt >= 256)
        snprintf(text, sizeof text, "--%s", rows[optopt - 256].name);
    else if (optopt)
        snprintf(text, sizeof text, "-%c", optopt);
    else
        snprintf(text, sizeof text, "%.*s", (int)strcspn(argv[optind - 1], "="), argv[optind - 1]);
    if (answer == ':')
        return fail(err, HVRUN_USAGE, "option '%s' needs a value; see 'hvrun --help'", text);
    if (optopt >= 256)
        return fail(err, HVRUN_USAGE, "option '%s' takes no value", text);
    return fail(err, HVRUN_USAGE, "unknown option '%s'; see 'hvrun --help'", text);
}

static void describe(char *letters, struct option *longs)
{
    *letters++ = ':';
    for (size_t i = 0; i < ROWS; i++) {
        longs[i] = (struct option){.name = rows[i].name,
                                   .has_arg = rows[i].argument ? required_argument : no_argument,
                                   .val = (int)i + 256};
        if (rows[i].letter) {
            *letters++ = rows[i].letter;
            if (rows[i].argument)
                *letters++ = ':';
        }
    }
    *letters = '\0';
    longs[ROWS] = (struct option){0};
}

static const struct option_row *row_of(int answer)
{
    if (answer >= 256)
        return &rows[answer - 256];
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].letter == answer)
            return &rows[i];
    return NULL;
}

/* Both engines are to do the same at a time that does not depend on the host: on KVM that is the guest's own instructions
 * alone. */
static int for_lockstep(struct vm_config *config, struct error *err)
{
    if (config->gdb || config->step || config->trace)
        return fail(err, HVRUN_USAGE, "--lockstep: not together with --gdb, --step or --trace");
    config->deterministic = true;
    if (!strcmp(config->engine, "soft")) {
        if (!config->translator)
            return fail(err, HVRUN_USAGE, "--lockstep: not together with --translator off");
        config->no_input = true;
        return 0;
    }
    if (strcmp(config->engine, "auto"))
        return fail(err, HVRUN_USAGE, "--lockstep: with --engine soft, or without --engine");
    if (config->lockstep_stride || config->lockstep_count)
        return fail(err, HVRUN_USAGE,
                    "--lockstep-stride and -count: only together with --engine soft");
    if (config->smp > 1)
        return fail(err, HVRUN_USAGE, "--lockstep: with one virtual processor only");
    config->no_patch = true;
    config->io_blocks = IO_BLOCKS_OFF;
    return 0;
}

int options_parse(int argc, char **argv, struct options *options, struct error *err)
{
    char letters[2 * ROWS + 2];
    struct option longs[ROWS + 1];
    int answer;

    *options = (struct options){.config = {.engine = "auto",
                                           .irqchip = "auto",
                                           .memory = 256ull << 20,
                                           .smp = 1,
                                           .serial = "stdio",
                                           .jail_user = "nobody",
                                           .translator = true,
                                           .io_blocks = IO_BLOCKS_AUTO}};
    describe(letters, longs);
    opterr = 0;
    optind = 0;
    while ((answer = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        const struct option_row *row = answer == '?' || answer == ':' ? NULL : row_of(answer);
        if (!row)
            return refuse(answer, argv, err);
        if (take(row, optarg, options, err) < 0)
            return -1;
        if (options->help || options->version)
            return 0;
    }
    if (options->calibrate)
        return argc == optind ? 0 : fail(err, HVRUN_USAGE, "--calibrate: takes no KERNEL");
    if (argc - optind != 1)
        return fail(err, HVRUN_USAGE,
                    argc == optind ? "no KERNEL given; see 'hvrun --help'"
                                   : "one KERNEL only; see 'hvrun --help'");
    if (!strcmp(options->config.irqchip, "kernel") && !strcmp(options->config.engine, "soft"))
        return fail(err, HVRUN_USAGE, "--irqchip kernel: only with --engine kvm");
    if (options->config.gdb_nowait && !options->config.gdb)
        return fail(err, HVRUN_USAGE, "--gdb-nowait: only together with --gdb");
    if (options->config.gdb && (options->config.step || options->config.trace))
        return fail(err, HVRUN_USAGE, "--gdb: not together with --step or --trace");
    if (!options->config.trace &&
        (options->config.trace_start || options->config.trace_stop || options->config.trace_count))
        return fail(err, HVRUN_USAGE,
                    "--trace-start, -stop and -count: only together with --trace");
    if ((options->config.lockstep_stride || options->config.lockstep_count) &&
        !options->config.lockstep)
        return fail(err, HVRUN_USAGE,
                    "--lockstep-stride and -count: only together with --lockstep");
    options->config.kernel = argv[optind];
    return options->config.lockstep ? for_lockstep(&options->config, err) : 0;
}

static void help_row(const struct option_row *row, FILE *stream)
{
    char left[48];
    snprintf(left, sizeof left, "--%s%s%s", row->name, row->argument ? " " : "",
             row->argument ? row->argument : "");
    if (row->letter)
        fprintf(stream, "  -%c, %-22s %s\n", row->letter, left, row->help);
    else
        fprintf(stream, "      %-22s %s\n", left, row->help);
}

/* The names of the options that have no line of their own. */
static void help_others(FILE *stream)
{
    const size_t width = 78;
    size_t column = 0;
    for (size_t i = 0; i < ROWS; i++) {
        size_t length = strlen(rows[i].name) + 3;
        if (rows[i].help)
            continue;
        if (column == 0 || column + length > width)
            column = (size_t)fprintf(stream, column ? "\n     " : "     ");
        column += (size_t)fprintf(stream, " --%s", rows[i].name);
    }
    fprintf(stream, "\n");
}

void options_help(FILE *stream)
{
    fprintf(stream,
            "usage: hvrun [OPTION]... KERNEL\n"
            "Runs a kernel: vmlinux, bzImage, PVH or multiboot, patched by patchc or not.\n\n");
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].help)
            help_row(&rows[i], stream);
    fprintf(stream, "\nFor special cases:\n");
    help_others(stream);
    fprintf(stream, "On a terminal, Ctrl-A x ends the guest. Exit codes and all else: hvrun(1).\n");
}
