/* SPDX-License-Identifier: MIT */
/* hvrun: a small hypervisor. Reads as the course of a run: options, image, machine, kernel, run, counters. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "image/image.h"
#include "image/terminal.h"
#include "runtime/clerk.h"
#include "runtime/calibrate.h"
#include "runtime/console.h"
#include "runtime/contain.h"
#include "runtime/engine_choice.h"
#include "runtime/dump.h"
#include "runtime/gdb.h"
#include "runtime/io_dispatcher.h"
#include "runtime/kvm/follower.h"
#include "runtime/loader.h"
#include "runtime/lockstep.h"
#include "runtime/lockstep_pair.h"
#include "runtime/options.h"
#include "runtime/stepper.h"
#include "runtime/stub.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"
#include "runtime/watchdog.h"

/* A standard descriptor that is closed would become the next file opened, and messages would go there. What stands
 * in for it can be read, and is at its end; writing fails, as it would have. */
static void open_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---- files ---- */
static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino && S_ISREG(x.st_mode);
}

/* What is written must not be what is read. */
static int check_outputs(const struct vm_config *config, struct error *err)
{
    const char *serial = strcmp(config->serial, "stdio") ? config->serial : NULL;
    const struct {
        const char *option, *path;
    } outputs[] = {{"--serial", serial}, {"--stats", config->stats}, {"--trace", config->trace}};
    for (size_t k = 0; k < 3; k++)
        if (same_file(outputs[k].path, config->kernel) ||
            same_file(outputs[k].path, config->initrd))
            return fail(err, HVRUN_USAGE, "%s: is an input; name another file for %s",
                        outputs[k].path, outputs[k].option);
    if (serial && config->stats &&
        (!strcmp(serial, config->stats) || same_file(serial, config->stats)))
        return fail(err, HVRUN_USAGE, "%s: --serial and --stats need a file each", serial);
    for (size_t k = 0; k < 2 && config->trace; k++)
        if (outputs[k].path &&
            (!strcmp(outputs[k].path, config->trace) || same_file(outputs[k].path, config->trace)))
            return fail(err, HVRUN_USAGE, "%s: %s and --trace need a file each", config->trace,
                        outputs[k].option);
    return 0;
}

static int open_kernel(const struct vm_config *config, struct image *image, struct error *err)
{
    if (image_open(config->kernel, image, err) == 0)
        return 0;
    /* a file that can be read is not to blame for what else goes wrong */
    bool host = err->code == EXIT_IO && access(config->kernel, R_OK) == 0;
    err->code = host ? HVRUN_HOST : HVRUN_IMAGE;
    return -1;
}

/* ---- the run ---- */
/* With --lockstep: who does the same as the VM. */
struct partner {
    struct lockstep_follower *kvm;
    struct vm *interpreter;
};

/* Runs the guest in the way that was asked for. */
static int go(struct vm *vm, const struct partner *partner, struct error *err)
{
    if (vm->config.lockstep)
        return partner->kvm ? lockstep_run(vm, partner->kvm, stderr, err)
                            : lockstep_pair_run(vm, partner->interpreter, stderr, err);
    if (vm->gdb)
        return gdb_run(vm, err);
    return stepper_wanted(vm) ? stepper_run(vm, err) : vm->engine->run(vm, err);
}

static int load(struct vm *vm, const struct image *image, struct error *err)
{
    return loader_load(vm, image, err) < 0 || stub_attach(vm, image, err) < 0 ||
                   io_blocks_attach(vm, image, err) < 0
               ? -1
               : 0;
}

/* Before the process is contained. */
static int open_partner(struct vm *vm, const struct image *image, struct partner *partner,
                        struct error *err)
{
    if (!vm->config.lockstep)
        return 0;
    if (!strcmp(vm->config.engine, "soft")) {
        partner->interpreter = lockstep_twin_open(vm, err);
        return partner->interpreter ? load(partner->interpreter, image, err) : -1;
    }
    partner->kvm = kvm_follower_open(vm, err);
    return partner->kvm ? 0 : -1;
}

static void close_partner(struct partner *partner)
{
    if (partner->kvm)
        partner->kvm->close(partner->kvm);
    lockstep_twin_close(partner->interpreter);
}

/* Runs the image that was read. 0 once the guest has ended, or -1 with *err set. */
static int run_with(struct vm *vm, const struct image *image, struct partner *partner,
                    struct error *err)
{
    if (watchdog_start(vm, err) < 0 || (vm->config.gdb && gdb_open(vm, err) < 0) ||
        load(vm, image, err) < 0 || stepper_check(vm, err) < 0 ||
        open_partner(vm, image, partner, err) < 0)
        return -1;
    image_release_segments(image); /* the guest has its copy */
    if (watchdog_set_timer(vm, err) < 0 || contain(&vm->config, err) < 0)
        return -1;
    double start = now();
    int result = go(vm, partner, err);
    vm->wall_seconds = now() - start;
    if (result == 0 && vm->config.lockstep)
        lockstep_conclude(vm);
    return result;
}

static int run(struct vm *vm, const struct image *image, struct error *err)
{
    struct partner partner = {0};
    int result = run_with(vm, image, &partner, err);
    close_partner(&partner);
    return result;
}

/* The end as the guest wanted it. */
static bool ended_by_itself(enum shutdown shutdown)
{
    return shutdown == SHUTDOWN_POWER_OFF || shutdown == SHUTDOWN_HALT ||
           shutdown == SHUTDOWN_RESET || shutdown == SHUTDOWN_DEBUG_EXIT ||
           shutdown == SHUTDOWN_STEPS;
}

/* The exit code of a guest that ran, the console being closed. Its last words may have been lost, or may have found
 * nobody who took them until the timeout. */
static int exit_code(const struct vm *vm)
{
    int request = vm->stop_request;
    if (!ended_by_itself(vm->shutdown))
        return vm->exit_code;
    if (vm->output_lost)
        return HVRUN_HOST;
    return request != SHUTDOWN_NONE ? request >> 8 : vm->exit_code;
}

/* A guest that was ended from outside: by what, and what it was doing. */
static void report_end(const struct vm *vm, int code)
{
    if (code == HVRUN_TIMEOUT)
        fprintf(stderr, "hvrun: ended by --timeout after %g s\n", vm->config.timeout);
    else if (code > 128 && vm->stop_request >> 8 == code)
        fprintf(stderr, "hvrun: ended by SIG%s\n", sigabbrev_np(code - 128));
    else
        return;
    for (unsigned k = 0; k < vm->vcpu_count; k++) {
        char place[256];
        const char *activity = vm->vcpus[k]->activity == ACTIVITY_ACTIVE ? "" : ", halted";
        fprintf(stderr, "hvrun: vCPU %u was at %s%s\n", k,
                vcpu_place(vm->vcpus[k], place, sizeof place), activity);
    }
}

/* What is written after the guest has ended. */
static int conclude(struct vm *vm, const struct image *image, struct clerk *clerk,
                    struct error *err)
{
    if (vm->config.summary)
        stats_summary(vm, image, stderr);
    if (vm->trace_file && clerk_commit(clerk, CLERK_TRACE, err) < 0)
        return -1;
    if (!clerk->files[CLERK_STATS])
        return 0;
    return stats_write(vm, clerk->files[CLERK_STATS], err) < 0
               ? -1
               : clerk_commit(clerk, CLERK_STATS, err);
}

/* Runs the kernel in a VM that was allocated. Returns hvrun's exit code; *err is set if there is a message. */
static int run_vm(struct vm *vm, struct image *image, struct clerk *clerk, struct error *err)
{
    int code;
    vm->trace_file = clerk->files[CLERK_TRACE];
    if (vm_create(vm, err) < 0)
        return err->code;
    bool ran = run(vm, image, err) == 0;
    console_close(vm); /* the watchdog is on: output that nobody takes cannot keep it from ending */
    watchdog_stop();
    code = ran ? exit_code(vm) : err->code;
    if (ran) {
        report_end(vm, code);
        if (conclude(vm, image, clerk, err) < 0 && ended_by_itself(vm->shutdown))
            code = err->code;
    }
    gdb_close(vm);
    clerk_remove_socket(clerk);
    vm_destroy(vm);
    return code;
}

/* Runs it on the engine that suits. Returns hvrun's exit code; *err is set if there is a message. */
static int run_image(const struct vm_config *config, struct image *image, struct clerk *clerk,
                     struct error *err)
{
    const struct engine *engine = engine_choose(config, image, err);
    if (!engine)
        return err->code;
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm) {
        fail(err, HVRUN_HOST, "out of memory");
        return err->code;
    }
    vm->config = *config;
    vm->engine = engine;
    vm->image = image;
    int code = run_vm(vm, image, clerk, err);
    free(vm);
    return code;
}

static int hvrun(const struct vm_config *config, struct error *err)
{
    struct image image;
    struct clerk clerk;
    if (check_outputs(config, err) < 0 || open_kernel(config, &image, err) < 0)
        return err->code;
    int code;
    if (clerk_start(&clerk, config, err) < 0) {
        code = err->code;
    } else {
        code = run_image(config, &image, &clerk, err);
        clerk_end(&clerk);
    }
    image_close(&image);
    return code;
}

int main(int argc, char **argv)
{
    struct options options;
    struct error err = {0};
    int code = HVRUN_DONE;

    contain_note_inherited();
    open_standard_descriptors();
    signal(SIGPIPE, SIG_IGN); /* readers that went away and full disks are write errors */
    signal(SIGXFSZ, SIG_IGN);
    if (options_parse(argc, argv, &options, &err) < 0)
        code = err.code;
    else if (options.help)
        options_help(stdout);
    else if (options.version)
        printf("hvrun %s\n", PATCHVISOR_VERSION);
    else if (options.calibrate)
        code = calibrate(&options.config, &err) < 0 ? err.code : HVRUN_DONE;
    else
        code = hvrun(&options.config, &err);
    if ((fflush(stdout) != 0 || ferror(stdout)) && code == HVRUN_DONE) {
        fail(&err, HVRUN_HOST, "standard output: cannot write it: %s", strerror(errno));
        code = HVRUN_HOST;
    }
    if (err.code) {
        terminal_clean(err.text); /* one line, whatever the names in it hold */
        fprintf(stderr, "hvrun: %s\n", err.text);
    }
    return code;
}
