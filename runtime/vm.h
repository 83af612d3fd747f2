/* SPDX-License-Identifier: MIT */
/* The virtual machine: memory, vCPUs, devices, on an engine. */
#ifndef RUNTIME_VM_H
#define RUNTIME_VM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/bus.h"
#include "runtime/clock.h"
#include "runtime/device.h"
#include "runtime/memory.h"
#include "runtime/stats.h"

#define VCPUS_MAX     4
#define VM_FIXED_DATE 1767225600 /* 2026-01-01 00:00:00, where the run is to be deterministic */

/* hvrun's exit codes (hvrun(1), EXIT STATUS). */
enum hvrun_exit {
    HVRUN_DONE = 0,
    HVRUN_DIFFERENCE = 1, /* --lockstep */
    HVRUN_USAGE = 2,
    HVRUN_IMAGE = 66,
    HVRUN_GUEST_DEATH = 70,
    HVRUN_HOST = 74,
    HVRUN_NO_ENGINE = 78,
    HVRUN_TIMEOUT = 124,
    HVRUN_SIGINT = 130,
    HVRUN_SIGTERM = 143,
};

/* How a run ended: "shutdown" in the stats. */
enum shutdown {
    SHUTDOWN_NONE, /* still running */
    SHUTDOWN_POWER_OFF,
    SHUTDOWN_HALT /* halted with interrupts off, for ever */,
    SHUTDOWN_RESET,
    SHUTDOWN_DEBUG_EXIT,
    SHUTDOWN_TRIPLE_FAULT,
    SHUTDOWN_TIMEOUT,
    SHUTDOWN_SIGNAL,
    SHUTDOWN_QUIT /* Ctrl-A x */,
    SHUTDOWN_STEPS,
    SHUTDOWN_HOST_ERROR,
    SHUTDOWN_DIFFERENCE, /* found by --lockstep */
    SHUTDOWNS
};
extern const char *const shutdown_names[SHUTDOWNS]; /* "power-off", … */

/* Which IO instructions share a virtualization event (io_dispatcher.h). */
enum io_blocks_mode {
    IO_BLOCKS_OFF,   /* none: each is an event */
    IO_BLOCKS_TABLE, /* those in a block of the image's table */
    IO_BLOCKS_SCAN,  /* those in a block that is found by scanning */
    IO_BLOCKS_AUTO   /* the table first, then scanning */
};

/* What the command line asks for. Strings are borrowed. */
struct vm_config {
    const char *kernel;  /* path */
    const char *engine;  /* "auto", "soft", "kvm" */
    const char *irqchip; /* "auto", "user", "kernel"; NULL = "auto" */
    uint64_t memory;     /* bytes */
    unsigned smp;        /* 1 .. VCPUS_MAX */
    const char *initrd;  /* NULL = none. Multiboot: "FILE [ARGS][,FILE [ARGS]]…" are modules */
    const char *append;  /* NULL = none */
    const char *serial;  /* "stdio" or a file */
    const char *stats;   /* file or NULL */
    bool summary;
    double timeout; /* seconds of wall time; 0 = none */
    bool no_patch;
    bool link_all; /* link every routine that works, profitable or not */
    /* a halted guest does not wait: guest time jumps to the next timer; the RTC starts at a fixed date */
    bool deterministic;
    const char *gdb;   /* where to listen for gdb (gdb.h), or NULL */
    bool gdb_nowait;   /* the guest does not wait for it */
    uint64_t step;     /* single steps to make from the start (stepper.h); 0 = it runs */
    const char *trace; /* file for a line for each instruction (trace.h), or NULL */
    /* where the trace begins and ends (stepper_check); NULL = start and end of the run */
    const char *trace_start;
    const char *trace_stop;
    bool
        lockstep; /* another engine runs the same guest, and is compared (lockstep.h, lockstep_pair.h) */
    uint64_t lockstep_stride; /* instructions at most from one look to the next; 0 = a block */
    uint64_t lockstep_count;  /* instructions after which it ends; 0 = with the guest */
    bool no_input;            /* nothing comes from standard input */
    uint64_t trace_count;     /* lines of it; 0 = no limit */
    bool translator;          /* the soft engine translates code that runs often */
    unsigned translator_hot;  /* samples that begin a trace, for tests; 0 = as is best */
    unsigned translator_warm; /* runs after which it does, for tests; 0 = as is best */
    bool translator_old_host; /* as if the host had no BMI2, for tests */
    uint64_t code_cache;      /* bytes for decoded code, for tests; 0 = as many as are useful */
    enum io_blocks_mode io_blocks;
    const char *io_extent; /* how far a scan looks (io_extent_parse); NULL = the default */
    const char
        *jail; /* folder that is all of the file system while the guest runs (contain.h), or NULL */
    const char *jail_user; /* whom root becomes there */
    bool no_sandbox;       /* system calls are not filtered */
};

struct vcpu;
struct vmcs;
struct breakpoints;
struct interrupt_chips;
struct console;
struct gdb;
struct stub;
struct stub_routine;
struct soft;
struct kvm;
struct io_blocks;
struct output;

struct engine {
    const char *name;
    /* 0, or -1 with *err: destroy is called then too. Run with everything else of the VM in place. */
    int (*create)(struct vm *vm, struct error *err);
    /* Runs all vCPUs until vm->shutdown is set. 0, or -1 with *err for a host failure. */
    int (*run)(struct vm *vm, struct error *err);
    void (*destroy)(struct vm *vm);
    /* A VM entry (vmcs.h), begun for the `count` control structures of `list`: runs to the first exit and returns
     * whose it is. NULL: the soft processor does it. */
    struct vmcs *(*enter)(struct vm *vm, struct vmcs *const *list, unsigned count);
    /* Guest and devices take turns on one thread: what a patched guest's state page shows of devices is exact. */
    bool takes_turns;
    /* It has interrupt chips and 8254 of its own (interrupts.h); NULL: they are devices of the machine. */
    const struct interrupt_chips *chips;
    /* Whether a routine that works is worth linking (rule of profit); NULL: what the guest answers by itself is, and
     * with --link-all the others are. */
    bool (*links)(const struct vm *vm, const struct stub_routine *r);
};
extern const struct engine soft_engine;      /* soft/engine.c */
extern const struct engine kvm_engine;       /* kvm/engine.c */
extern const struct engine kvm_chips_engine; /* the same, with chips of the kernel */

struct vm {
    struct vm_config config;
    struct memory memory;
    struct bus bus;
    struct clock clock;
    struct stats stats;
    int64_t start_date; /* seconds since 1970-01-01 at power-on: the host's, or VM_FIXED_DATE */

    struct vcpu *vcpus[VCPUS_MAX];
    unsigned vcpu_count;
    struct vcpu *running; /* the vCPU whose instruction is being executed, or NULL */

    const struct device_type *device_type[DEVICES_MAX];
    void *device[DEVICES_MAX]; /* same index */
    unsigned device_count;
    /* devices that others must find; set by their create */
    void *uart, *i8254, *i8259, *ioapic, *i8042, *mc146818;

    const struct engine *engine;
    struct kvm *kvm;                 /* the KVM engine's own (kvm/kvm.h) */
    struct soft *soft;               /* the soft engine's own: block cache (soft/engine.h) */
    struct stub *stub;               /* a patched image's stub, or NULL (stub.h) */
    struct io_blocks *io_blocks;     /* what is known of them (io_entries.h); NULL = off */
    const struct image *image;       /* the kernel, for symbol names; may be NULL */
    struct breakpoints *breakpoints; /* a debugger's, or NULL (breakpoints.h) */
    struct gdb *gdb;                 /* the server for gdb, or NULL (gdb.h) */
    struct output *trace_file;       /* where the trace goes (stepper.h); NULL: nowhere */
    struct console *console;
    bool output_lost; /* some of the guest's output could not be written */

    enum shutdown shutdown; /* set by vm_stop; the engine returns when it sees it */
    int exit_code;          /* enum hvrun_exit or a debug exit's value */
    double wall_seconds;

    struct {
        bool (*ask)(void *context); /* NULL: none */
        void *context;
        int fd;               /* -1: none */
    } poll;                   /* vmcs_poll */
    atomic_bool exit_request; /* vmcs_interrupt */

    /* Set by other threads and signal handlers, polled by the engine at least every millisecond:
     * console input arrived, timeout or signal (the watchdog stores which). */
    atomic_bool attention;
    atomic_int stop_request; /* VM_STOP_REQUEST asked for from outside; SHUTDOWN_NONE = none */
    int wake_fd;             /* eventfd: wakes a VM whose vCPUs are all halted */
};

/* Creates memory, vCPUs and devices in power-on state, then the engine and the console. `vm` is zeroed by
 * the caller but for config and engine (NULL: none is made); config.serial NULL: no console.
 * 0, or -1 with *err set and nothing left to destroy. */
int vm_create(struct vm *vm, struct error *err);
void vm_destroy(struct vm *vm);

/* Ends the run, from the vCPU thread; the first call counts. */
void vm_stop(struct vm *vm, enum shutdown shutdown, int exit_code);

/* From any thread or a signal handler: asks the vCPU thread to end the run; the first one counts. */
void vm_request_stop(struct vm *vm, enum shutdown shutdown, int exit_code);
#define VM_STOP_REQUEST(shutdown, exit_code) ((int)(shutdown) | (exit_code) << 8)

/* From any thread or a signal handler: makes the engine look at attention and stop_request. */
void vm_wake(struct vm *vm);
/* The engine's answer, on the vCPU thread: stop requests become vm_stop, console input goes to the UART. */
void vm_attend(struct vm *vm);

/* System reset as asked for by a device or a triple fault handled as such: ends the run (SHUTDOWN_RESET, exit code 0). */
void vm_reset_requested(struct vm *vm);

#endif
