/* hvrun: a small hypervisor. Reads as the course of a run: options, image, machine, kernel, run, counters. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "image/image.h"
#include "runtime/console.h"
#include "runtime/loader.h"
#include "runtime/options.h"
#include "runtime/stub.h"
#include "runtime/vm.h"
#include "runtime/watchdog.h"

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Runs the image that was read. 0, or -1 with *err set; the exit code is vm->exit_code then or vm's. */
static int run(struct vm *vm, const struct image *image, struct error *err)
{
    if (loader_load(vm, image, err) < 0 || stub_attach(vm, image, err) < 0)
        return -1;
    if (watchdog_start(vm, err) < 0)
        return -1;
    double start = now();
    int result = vm->engine->run(vm, err);
    vm->wall_seconds = now() - start;
    watchdog_stop(vm);
    return result;
}

/* What is written after the guest has ended; the terminal is restored by then. */
static int conclude(struct vm *vm, const struct image *image, struct error *err)
{
    if (vm->config.summary)
        stats_summary(vm, image, stderr);
    return vm->config.stats ? stats_write(vm, vm->config.stats, err) : 0;
}

static int hvrun(const struct vm_config *config, struct error *err)
{
    struct image image;
    if (image_open(config->kernel, &image, err) < 0) {
        err->code = err->code == EXIT_IO ? HVRUN_HOST : HVRUN_IMAGE;
        return err->code;
    }
    struct vm *vm = calloc(1, sizeof *vm);
    if (!vm) {
        image_close(&image);
        fail(err, HVRUN_HOST, "out of memory");
        return err->code;
    }
    vm->config = *config;
    vm->engine = &soft_engine;
    vm->image = &image;
    int code = HVRUN_DONE;
    bool created = vm_create(vm, err) == 0;
    if (created && run(vm, &image, err) == 0)
        code = vm->exit_code;
    console_close(vm);
    if (created && vm->shutdown && conclude(vm, &image, err) < 0 && code == HVRUN_DONE)
        code = HVRUN_HOST;
    vm_destroy(vm);
    free(vm);
    image_close(&image);
    return err->code && code == HVRUN_DONE ? err->code : code;
}

int main(int argc, char **argv)
{
    struct options options;
    struct error err = {0};
    int code = HVRUN_DONE;

    if (options_parse(argc, argv, &options, &err) < 0)
        code = err.code;
    else if (options.help)
        options_help(stdout);
    else if (options.version)
        printf("hvrun %s\n", PATCHVISOR_VERSION);
    else
        code = hvrun(&options.config, &err);
    if (err.code)
        fprintf(stderr, "hvrun: %s\n", err.text);
    if (fflush(stdout) != 0 && code == HVRUN_DONE)
        code = HVRUN_HOST;
    return code;
}
