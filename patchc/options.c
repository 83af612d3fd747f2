/* SPDX-License-Identifier: MIT */
/* The command line's options: table, parser, --help. */
#include "patchc/options.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum option_kind { OPTION_STRING, OPTION_FLAG, OPTION_FORM, OPTION_RULE, OPTION_PERCENT };

struct option_row {
    char letter; /* 0: no short option */
    const char *name;
    const char *argument; /* NULL: takes none */
    unsigned commands;    /* enum command_bit */
    enum option_kind kind;
    size_t field;     /* offset in struct arguments */
    const char *help; /* one line */
};

#define FIELD(name) offsetof(struct arguments, name)

static const struct option_row rows[] = {
    {'l', "list", "LIST", COMMAND_BUILD | COMMAND_SCAN, OPTION_STRING, FIELD(list),
     "list: a file or a shipped one (kvm.list)"},
    {'o', "output", "OUT", COMMAND_BUILD, OPTION_STRING, FIELD(output),
     "patched image to write (IMAGE.patched)"},
    {'o', "output", "OUT", COMMAND_RESTORE, OPTION_STRING, FIELD(output),
     "file to write (required)"},
    {0, "report", "FILE", COMMAND_BUILD, OPTION_STRING, FIELD(report),
     "report to write (OUT.json)"},
    {0, "form", "FORM", COMMAND_BUILD, OPTION_FORM, FIELD(form),
     "auto, jump, call, branch or break (auto)"},
    {0, "only", "RULE", COMMAND_BUILD, OPTION_RULE, FIELD(only),
     "patch only sites that RULE matches; may be repeated"},
    {0, "skip", "RULE", COMMAND_BUILD, OPTION_RULE, FIELD(skip),
     "leave sites that RULE matches; may be repeated"},
    {0, "min-coverage", "PERCENT", COMMAND_BUILD, OPTION_PERCENT, FIELD(min_coverage),
     "exit 1 and write no image if fewer are patched"},
    {0, "assume-reserved", NULL, COMMAND_BUILD, OPTION_FLAG, FIELD(assume_reserved),
     "the guest leaves memory behind its image alone"},
    {0, "json", NULL, COMMAND_SCAN | COMMAND_INSPECT, OPTION_FLAG, FIELD(json),
     "print JSON instead of a table"},
    {0, "site", "ADDRESS", COMMAND_INSPECT, OPTION_STRING, FIELD(site),
     "one site in detail: 0x… or SYMBOL+OFFSET"},
    {0, "html", "FILE", COMMAND_INSPECT, OPTION_STRING, FIELD(html),
     "write it as a page for a browser, in one file"},
    {0, "diff", "OTHER", COMMAND_INSPECT, OPTION_STRING, FIELD(diff),
     "show what OTHER changed, site by site"},
    {'h', "help", NULL, COMMAND_ALL, OPTION_FLAG, FIELD(help), "print this help"},
    {'V', "version", NULL, COMMAND_ALL, OPTION_FLAG, FIELD(version), "print the version"},
};
#define ROWS (sizeof rows / sizeof rows[0])

static int take_form(const char *text, enum pv_form *form, struct error *err)
{
    static const char *const names[PV_FORMS] = {"auto", "jump", "call", "branch", "break"};

    for (unsigned i = 0; i < PV_FORMS; i++) {
        if (strcmp(text, names[i]) == 0) {
            *form = (enum pv_form)i;
            return 0;
        }
    }
    return fail(err, EXIT_USAGE, "--form '%s': the forms are auto, jump, call, branch and break",
                text);
}

static int take_percent(const char *text, double *percent, struct error *err)
{
    char *end;

    /* strtod() also takes "nan", "inf" and hexadecimal, none of which is a percentage. */
    if (text[0] != '\0' && strspn(text, "0123456789.") == strcspn(text, "%")) {
        *percent = strtod(text, &end);
        if (end != text && (*end == '\0' || strcmp(end, "%") == 0) && *percent <= 100)
            return 0;
    }
    return fail(err, EXIT_USAGE, "--min-coverage '%s': a number from 0 to 100 is needed", text);
}

static int take_rule(const char *option, const char *text, struct rules *rules, struct error *err)
{
    struct list **grown = realloc(rules->rule, (rules->count + 1) * sizeof *grown);
    char dashed[32];

    if (!grown)
        return fail(err, EXIT_IO, "out of memory");
    rules->rule = grown;
    snprintf(dashed, sizeof dashed, "--%s", option);
    grown[rules->count] = list_parse_rule(dashed, text, err);
    if (!grown[rules->count]) {
        if (err->code == EXIT_INPUT)
            err->code = EXIT_USAGE; /* a bad rule here is the command line's fault */
        return -1;
    }
    rules->count++;
    return 0;
}

static int take(const struct option_row *row, const char *value, struct arguments *arguments,
                struct error *err)
{
    void *field = (char *)arguments + row->field;

    switch (row->kind) {
    case OPTION_STRING:
        if (value[0] == '\0')
            return fail(err, EXIT_USAGE, "option '--%s' needs a %s that is not empty", row->name,
                        row->argument);
        *(const char **)field = value;
        return 0;
    case OPTION_FLAG:
        *(bool *)field = true;
        return 0;
    case OPTION_FORM:
        return take_form(value, field, err);
    case OPTION_RULE:
        return take_rule(row->name, value, field, err);
    case OPTION_PERCENT:
        return take_percent(value, field, err);
    }
    return -1;
}

/* What getopt_long() could not take. Its optopt is a short option's letter, or a long option's
 * row + 256 if that one was recognised, or 0. */
static int refuse(const struct command *command, int answer, char **argv, struct error *err)
{
    char text[64];

    if (optopt >= 256)
        snprintf(text, sizeof text, "--%s", rows[optopt - 256].name);
    else if (optopt)
        snprintf(text, sizeof text, "-%c", optopt);
    else
        snprintf(text, sizeof text, "%.*s", (int)strcspn(argv[optind - 1], "="), argv[optind - 1]);
    if (answer == ':')
        return fail(err, EXIT_USAGE, "option '%s' needs a value; see 'patchc %s --help'", text,
                    command->name);
    if (optopt >= 256)
        return fail(err, EXIT_USAGE, "option '%s' takes no value", text);
    return fail(err, EXIT_USAGE, "unknown option '%s'; see 'patchc %s --help'", text,
                command->name);
}

/* Fills getopt_long()'s two descriptions of the options of one command; long options answer with
 * their row's number + 256. */
static void describe(const struct command *command, char *letters, struct option *longs)
{
    size_t count = 0;

    *letters++ = ':';
    for (size_t i = 0; i < ROWS; i++) {
        if (!(rows[i].commands & command->bit))
            continue;
        longs[count++] = (struct option){
            .name = rows[i].name,
            .has_arg = rows[i].argument ? required_argument : no_argument,
            .val = (int)i + 256,
        };
        if (rows[i].letter) {
            *letters++ = rows[i].letter;
            if (rows[i].argument)
                *letters++ = ':';
        }
    }
    *letters = '\0';
    longs[count] = (struct option){0};
}

static const struct option_row *row_of(const struct command *command, int answer)
{
    if (answer >= 256)
        return &rows[answer - 256];
    for (size_t i = 0; i < ROWS; i++)
        if (rows[i].letter == answer && (rows[i].commands & command->bit))
            return &rows[i];
    return NULL;
}

int arguments_parse(const struct command *command, int argc, char **argv,
                    struct arguments *arguments, struct error *err)
{
    char letters[2 * ROWS + 2];
    struct option longs[ROWS + 1];
    int answer;

    *arguments = (struct arguments){.min_coverage = -1};
    describe(command, letters, longs);
    opterr = 0;
    optind = 0; /* reinitialise: main has its own options before the command's */
    while ((answer = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        const struct option_row *row =
            answer == '?' || answer == ':' ? NULL : row_of(command, answer);
        if (!row)
            return refuse(command, answer, argv, err);
        if (take(row, optarg, arguments, err) < 0)
            return -1;
        if (arguments->help || arguments->version)
            return 0;
    }
    if ((unsigned)(argc - optind) != command->operand_count)
        return fail(err, EXIT_USAGE, "usage: patchc %s [OPTION]... %s%s; see 'patchc %s --help'",
                    command->name, command->operands,
                    command->bit == COMMAND_RESTORE ? " -o OUT" : "", command->name);
    for (unsigned i = 0; i < command->operand_count; i++)
        arguments->operand[i] = argv[(unsigned)optind + i];
    return 0;
}

static void rules_free(struct rules *rules)
{
    for (size_t i = 0; i < rules->count; i++)
        list_free(rules->rule[i]);
    free(rules->rule);
}

void arguments_free(struct arguments *arguments)
{
    rules_free(&arguments->only);
    rules_free(&arguments->skip);
}

void command_help(const struct command *command, FILE *out)
{
    fprintf(out, "Usage: patchc %s [OPTION]... %s%s\n%s\n", command->name, command->operands,
            command->bit == COMMAND_RESTORE ? " -o OUT" : "", command->description);
    for (size_t i = 0; i < ROWS; i++) {
        char left[40];

        if (!(rows[i].commands & command->bit))
            continue;
        if (rows[i].letter)
            snprintf(left, sizeof left, "-%c, --%s%s%s", rows[i].letter, rows[i].name,
                     rows[i].argument ? " " : "", rows[i].argument ? rows[i].argument : "");
        else
            snprintf(left, sizeof left, "    --%s%s%s", rows[i].name, rows[i].argument ? " " : "",
                     rows[i].argument ? rows[i].argument : "");
        fprintf(out, "  %-26s %s\n", left, rows[i].help);
    }
}
