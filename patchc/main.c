/* SPDX-License-Identifier: MIT */
/* patchc: the command line. Each command is a row of the table; it turns its arguments into one
 * call of the part that does the work. Data goes to stdout, one line per error to stderr. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image/error.h"
#include "patchc/build.h"
#include "patchc/inspect.h"
#include "patchc/options.h"
#include "patchc/restore.h"
#include "patchc/scan.h"
#include "image/terminal.h"
#include "patchc/verify.h"

/* The output replaces whatever stands there, so it must not be what we read. */
static int check_output(const char *input, const char *output, struct error *err)
{
    struct stat in, out;

    if (stat(output, &out) < 0)
        return 0;
    if (S_ISDIR(out.st_mode))
        return fail(err, EXIT_IO, "%s: is a directory; name a file to write", output);
    if (stat(input, &in) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
        return fail(err, EXIT_USAGE, "%s: is the input; name another file to write", output);
    return 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static void print_outcome(const struct build_result *result, const struct build_options *options)
{
    struct build_counts counts = build_count(result);

    printf("%s: %zu of %zu sites patched (%.1f %%), report %s\n", base_name(options->output_path),
           counts.patched + counts.block, counts.eligible, build_coverage(&counts),
           base_name(options->report_path));
}

/* --min-coverage failed: says by how much, unless build_run() has said it. */
static int too_little(const struct build_result *result, const struct build_options *options,
                      struct error *err)
{
    struct build_counts counts = build_count(result);

    return fail(err, EXIT_CHECK,
                "%s: %zu of %zu sites patched (%.1f %%), fewer than --min-coverage %g; no image is "
                "written, the report is %s",
                base_name(options->image_path), counts.patched + counts.block, counts.eligible,
                build_coverage(&counts), options->min_coverage, base_name(options->report_path));
}

static int build_with(const struct build_options *options, struct error *err)
{
    struct build_result result = {0};
    int status;

    if (check_output(options->image_path, options->output_path, err) < 0 ||
        check_output(options->image_path, options->report_path, err) < 0)
        return -1;
    status = build_run(options, &result, err);
    if (status == 0)
        print_outcome(&result, options);
    else if (status == EXIT_CHECK)
        status = too_little(&result, options, err);
    build_result_free(&result);
    return status == 0 ? 0 : -1;
}

static int run_build(const struct arguments *arguments, struct error *err)
{
    char *list = NULL, *output = NULL, *report = NULL;
    int status = -1;

    if (asprintf(&output, "%s.patched", arguments->operand[0]) < 0 ||
        asprintf(&report, "%s.json", arguments->output ? arguments->output : output) < 0) {
        fail(err, EXIT_IO, "out of memory");
    } else if (find_list(arguments->list, &list, err) == 0) {
        struct build_options options = {
            .image_path = arguments->operand[0],
            .list_path = list,
            .output_path = arguments->output ? arguments->output : output,
            .report_path = arguments->report ? arguments->report : report,
            .form = arguments->form,
            .only = arguments->only.rule,
            .only_count = arguments->only.count,
            .skip = arguments->skip.rule,
            .skip_count = arguments->skip.count,
            .min_coverage = arguments->min_coverage,
            .assume_reserved = arguments->assume_reserved,
        };

        status = build_with(&options, err);
    }
    free(report);
    free(output);
    free(list);
    return status;
}

static int run_scan(const struct arguments *arguments, struct error *err)
{
    struct build_options options = {.image_path = arguments->operand[0], .min_coverage = -1};
    struct build_result result = {0};
    char *list;
    int status;

    if (find_list(arguments->list, &list, err) < 0)
        return -1;
    options.list_path = list;
    status = build_scan(&options, &result, err);
    if (status == 0)
        status = scan_print(&result, arguments->json, stdout, err);
    build_result_free(&result);
    free(list);
    return status;
}

static int run_inspect(const struct arguments *arguments, struct error *err)
{
    struct inspect_options options = {
        .path = arguments->operand[0],
        .site = arguments->site,
        .html = arguments->html,
        .diff = arguments->diff,
        .json = arguments->json,
    };

    return inspect_run(&options, stdout, err);
}

static int run_verify(const struct arguments *arguments, struct error *err)
{
    return verify_run(arguments->operand[0], arguments->operand[1], stdout, err);
}

static int run_restore(const struct arguments *arguments, struct error *err)
{
    if (!arguments->output)
        return fail(err, EXIT_USAGE, "restore needs -o OUT: the file to write");
    if (check_output(arguments->operand[0], arguments->output, err) < 0)
        return -1;
    return restore_run(arguments->operand[0], arguments->output, err);
}

static const struct command commands[] = {
    {"build", COMMAND_BUILD, "IMAGE", 1, "patch a guest kernel and write a report",
     "Replaces the instructions of IMAGE that the list names by jumps to routines.\n"
     "IMAGE is an ELF kernel or a Linux bzImage. Writes an ELF and a JSON report.\n",
     run_build},
    {"scan", COMMAND_SCAN, "IMAGE", 1, "show which instructions a list names",
     "Lists the instructions of IMAGE that the list names, and those of them that\n"
     "must not be touched. Writes no file.\n",
     run_scan},
    {"inspect", COMMAND_INSPECT, "PATCHED|REPORT", 1, "show what was done to an image",
     "Summarises a patched image or a report, or shows one site in detail.\n", run_inspect},
    {"verify", COMMAND_VERIFY, "ORIGINAL PATCHED", 2, "check a patched image against its original",
     "Checks every changed byte, from the two images alone. Exits 1 if one is wrong.\n",
     run_verify},
    {"restore", COMMAND_RESTORE, "PATCHED", 1, "give the original image back",
     "Writes the image that PATCHED was made from, bit for bit; of a bzImage that is\n"
     "its unpacked payload.\n",
     run_restore},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static void print_help(FILE *out)
{
    fputs("Usage: patchc COMMAND [OPTION]... FILE...\n"
          "Patches guest kernels: what a hypervisor would trap runs in the guest.\n\n"
          "Commands:\n",
          out);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\nOptions:\n"
          "  -h, --help     print this help; 'patchc COMMAND --help' tells about a command\n"
          "  -V, --version  print the version\n\n"
          "Exit status: 0 done, 1 a check failed, 2 usage, 3 unusable input,\n"
          "4 read or write error.\n"
          "Manual: patchc(1), patchc-list(5), patchc-report(5).\n",
          out);
}

static int print_version(void)
{
    puts("patchc " PATCHVISOR_VERSION);
    return 0;
}

static int run_command(const struct command *command, int argc, char **argv, struct error *err)
{
    struct arguments arguments;
    int status = arguments_parse(command, argc, argv, &arguments, err);

    if (status == 0) {
        if (arguments.help)
            command_help(command, stdout);
        else if (arguments.version)
            print_version();
        else
            status = command->run(&arguments, err);
    }
    arguments_free(&arguments);
    return status;
}

static int run(int argc, char **argv, struct error *err)
{
    const char *word = argc > 1 ? argv[1] : NULL;

    if (!word)
        return fail(err, EXIT_USAGE,
                    "a command is needed: build, scan, inspect, verify or restore; "
                    "see 'patchc --help'");
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help(stdout);
        return 0;
    }
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0)
        return print_version();
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(word, commands[i].name) == 0)
            return run_command(&commands[i], argc - 1, argv + 1, err);
    return fail(err, EXIT_USAGE, "unknown %s '%s'; see 'patchc --help'",
                word[0] == '-' ? "option" : "command", word);
}

int main(int argc, char **argv)
{
    struct error err = {0};
    int status;

    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a write error: nothing half-written is left */
    status = run(argc, argv, &err);

    /* A full disk shows only here: what was printed must have arrived. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fail(&err, EXIT_IO, "standard output: %s", strerror(errno));
        status = -1;
    }
    if (status != 0) {
        terminal_clean(err.text); /* one line, whatever the names in it hold */
        fprintf(stderr, "patchc: %s\n", err.text);
        return err.code ? err.code : EXIT_IO;
    }
    return EXIT_DONE;
}
