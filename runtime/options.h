/* SPDX-License-Identifier: MIT */
/* hvrun's command line: one table of options, from which both getopt_long() and --help are fed. */
#ifndef RUNTIME_OPTIONS_H
#define RUNTIME_OPTIONS_H

#include <stdbool.h>
#include <stdio.h>

#include "image/error.h"
#include "runtime/vm.h"

struct options {
    struct vm_config config; /* defaults filled in; strings are borrowed from argv */
    bool help, version;      /* if either is set nothing else has been checked */
    bool calibrate;          /* no kernel is named */
};

/* 0, or -1 with *err set (HVRUN_USAGE). */
int options_parse(int argc, char **argv, struct options *options, struct error *err);
void options_help(FILE *stream);

#endif
