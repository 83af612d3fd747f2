/* SPDX-License-Identifier: MIT */
/* The command line: one table of options, from which both getopt_long() and --help are fed, so
 * that what is documented there is what is accepted. */
#ifndef PATCHC_OPTIONS_H
#define PATCHC_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "hvstub/hvstub.h"
#include "image/error.h"
#include "patchc/list.h"

/* The commands, as bits: each option says which of them take it. */
enum command_bit {
    COMMAND_BUILD = 1,
    COMMAND_SCAN = 2,
    COMMAND_INSPECT = 4,
    COMMAND_VERIFY = 8,
    COMMAND_RESTORE = 16,
    COMMAND_ALL = 31,
};

struct rules { /* of --only or --skip, each parsed as a list of one rule */
    struct list **rule;
    size_t count;
};

/* A parsed command line. Strings are borrowed from argv. */
struct arguments {
    const char *list; /* NULL: not given, as all below */
    const char *output;
    const char *report;
    const char *site;
    const char *html;
    const char *diff;
    enum pv_form form; /* PV_FORM_NONE: auto */
    struct rules only, skip;
    double min_coverage; /* percent; negative: not given */
    bool assume_reserved;
    bool json;
    bool help, version; /* if either is set nothing else has been checked */
    const char *operand[2];
};

struct command {
    const char *name;
    enum command_bit bit;
    const char *operands;    /* as --help prints them: "ORIGINAL PATCHED" */
    unsigned operand_count;  /* all are required, at most 2 */
    const char *summary;     /* one line */
    const char *description; /* a few lines for --help, the last ends with a newline */
    int (*run)(const struct arguments *arguments, struct error *err); /* 0 or -1 */
};

/* Parses argv[1 .. argc), argv[0] being the command's name. 0, or -1 with *err set (EXIT_USAGE).
 * In both cases the caller owns *arguments: arguments_free(). */
int arguments_parse(const struct command *command, int argc, char **argv,
                    struct arguments *arguments, struct error *err);
void arguments_free(struct arguments *arguments);

/* Prints a command's --help: fits a screen of 80 by 24. */
void command_help(const struct command *command, FILE *out);

/* Finds the list file that -l LIST means; without `name`, the default list. A name without a slash
 * that is no file here is looked for among the shipped lists, ".list" may be left off. The caller
 * frees *path. 0, or -1 with *err set (EXIT_IO). */
int find_list(const char *name, char **path, struct error *err);

#endif
