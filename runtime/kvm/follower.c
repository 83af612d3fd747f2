/* SPDX-License-Identifier: MIT */
/* KVM as the follower in lockstep (lockstep.h): a VM whose exits are answered with what the leader's devices said. */
#include "runtime/kvm/follower.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/interrupts.h"
#include "runtime/kvm/kvm.h"
#include "runtime/kvmclock.h"
#include "runtime/trace.h"

#define LOOK_NS                                                                                    \
    100000000           /* how often KVM_RUN is interrupted, to see whether it is worth going on */
#define PATIENCE_S 10.0 /* without an exit, and more if the leader has executed much */
#define SLOWEST    1e5  /* instructions a second */
#define TRIES      100000u /* times that a searched address is passed */

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

struct kvm_follower {
    struct lockstep_follower base;
    struct vm *leader;
    struct kvm_cpu *cpu;
    timer_t timer;
    bool timer_runs;
    bool exited;      /* the last exit waits to be answered */
    uint32_t element; /* of it: how many accesses have been, if it is a string instruction's */
    double deadline;
};

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void looked(int signal)
{
    (void)signal;
}

/* KVM_RUN comes back now and then. */
static int start_timer(struct kvm_follower *f, struct error *err)
{
    struct sigaction action = {.sa_handler = looked};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGURG};
    struct itimerspec every = {{0, LOOK_NS}, {0, LOOK_NS}};
    event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
    sigaction(SIGURG, &action, NULL);
    if (timer_create(CLOCK_MONOTONIC, &event, &f->timer) < 0)
        return fail(err, HVRUN_HOST, "timer: %s", strerror(errno));
    f->timer_runs = true;
    return timer_settime(f->timer, 0, &every, NULL) < 0
               ? fail(err, HVRUN_HOST, "timer: %s", strerror(errno))
               : 0;
}

/* ---- running ---- */
static enum lockstep_answer differs(struct error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static enum lockstep_answer differs(struct error *err, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    return LOCKSTEP_DIFFERS;
}

/* KVM_RUN. THERE: f->exited. PASSED: it came back for nothing; f->deadline counts. */
static enum lockstep_answer run(struct kvm_follower *f, struct error *err)
{
    struct kvm_cpu *cpu = f->cpu;
    if (kvm_push(cpu, err) < 0)
        return LOCKSTEP_FAILED;
    cpu->run->cr8 = lapic_get_tpr(f->leader->vcpus[0]);
    cpu->kvm->runs++;
    int result = ioctl(cpu->fd, KVM_RUN, NULL);
    cpu->kvm->memory_changed = true;
    if (result >= 0) {
        f->exited = true;
        f->element = 0;
        return LOCKSTEP_THERE;
    }
    if (errno != EINTR && errno != EAGAIN) {
        fail(err, HVRUN_HOST, "KVM: KVM_RUN: %s", strerror(errno));
        return LOCKSTEP_FAILED;
    }
    return LOCKSTEP_PASSED;
}

/* An exit that is none of the guest's doing is dealt with: true. */
static bool settled(struct kvm_follower *f, struct error *err)
{
    struct kvm_run *run = f->cpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_SET_TPR:
        return true;
    case KVM_EXIT_INTERNAL_ERROR: /* an instruction that this KVM cannot execute */
        return run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
               kvm_soft_step(f->cpu, err) == 0;
    default:
        return false;
    }
}

/* Runs to the next exit that is the guest's doing. DIFFERS: there is none, for much longer than the leader took. */
static enum lockstep_answer next_exit(struct kvm_follower *f, struct error *err)
{
    while (!f->exited) {
        enum lockstep_answer answer = run(f, err);
        if (answer == LOCKSTEP_FAILED)
            return answer;
        if (f->exited && settled(f, err))
            f->exited = false;
        if (err->code)
            return LOCKSTEP_FAILED;
        if (f->exited)
            break;
        if (f->leader->stop_request != SHUTDOWN_NONE)
            return LOCKSTEP_PASSED;
        if (seconds() > f->deadline)
            return differs(err, "on KVM nothing of the kind happens");
    }
    return LOCKSTEP_THERE;
}

/* The exit was answered: KVM completes its instruction. DIFFERS: which accesses something else. */
static enum lockstep_answer complete(struct kvm_follower *f, struct error *err)
{
    f->exited = f->cpu->unfinished = false;
    f->cpu->run->immediate_exit = 1;
    enum lockstep_answer answer = run(f, err);
    f->cpu->run->immediate_exit = 0;
    if (answer == LOCKSTEP_THERE)
        return differs(err, "on KVM the instruction accesses more (exit reason %u)",
                       f->cpu->run->exit_reason);
    return answer == LOCKSTEP_PASSED ? LOCKSTEP_THERE : answer;
}

/* What KVM came back with, in words. */
static enum lockstep_answer other_exit(const struct kvm_follower *f, const char *wanted,
                                       struct error *err)
{
    const struct kvm_run *run = f->cpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        return differs(err, "%s; on KVM %s port 0x%x, %u bytes", wanted,
                       run->io.direction == KVM_EXIT_IO_IN ? "IN" : "OUT", run->io.port,
                       run->io.size);
    case KVM_EXIT_MMIO:
        return differs(err, "%s; on KVM a %s at 0x%llx, %u bytes", wanted,
                       run->mmio.is_write ? "write" : "read", run->mmio.phys_addr, run->mmio.len);
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        return differs(err, "%s; on KVM an access to MSR 0x%x", wanted, run->msr.index);
    case KVM_EXIT_HLT:
        return differs(err, "%s; on KVM HLT", wanted);
    case KVM_EXIT_SHUTDOWN:
        return differs(err, "%s; on KVM a triple fault", wanted);
    case KVM_EXIT_DEBUG:
        return differs(err, "%s; on KVM a debug exception at 0x%llx", wanted, run->debug.arch.pc);
    default:
        return differs(err, "%s; on KVM exit reason %u", wanted, run->exit_reason);
    }
}

/* ---- points ---- */
static bool is_port(const struct kvm_run *run, const struct bus_access *a)
{
    return run->exit_reason == KVM_EXIT_IO && a->port && run->io.port == a->address &&
           run->io.size == a->width && (run->io.direction == KVM_EXIT_IO_OUT) == a->write;
}

static bool is_memory(const struct kvm_run *run, const struct bus_access *a)
{
    return run->exit_reason == KVM_EXIT_MMIO && !a->port && run->mmio.phys_addr == a->address &&
           run->mmio.len == a->width && run->mmio.is_write == a->write;
}

static enum lockstep_answer one_access(struct kvm_follower *f, const struct bus_access *a,
                                       struct error *err)
{
    struct kvm_run *run = f->cpu->run;
    uint64_t value = 0;
    char wanted[96];
    snprintf(wanted, sizeof wanted, "%s %s 0x%" PRIx64 ", %u bytes, value 0x%" PRIx64,
             a->write ? "a write to" : "a read of", a->port ? "port" : "physical address",
             a->address, a->width, a->value);
    enum lockstep_answer answer = next_exit(f, err);
    if (answer != LOCKSTEP_THERE)
        return answer;
    bool port = is_port(run, a);
    if (!port && !is_memory(run, a))
        return other_exit(f, wanted, err);
    uint8_t *data =
        port ? (uint8_t *)run + run->io.data_offset + f->element * run->io.size : run->mmio.data;
    if (a->write) {
        memcpy(&value, data, a->width);
        if (value != a->value)
            return differs(err, "%s; on KVM value 0x%" PRIx64, wanted, value);
    } else {
        memcpy(data, &a->value, a->width);
    }
    f->element++;
    f->exited = port && f->element < run->io.count; /* of a string instruction: more to come */
    return LOCKSTEP_THERE;
}

/* KVM looks only with its next KVM_RUN whether a string instruction has more to do. */
static bool finished(struct kvm_follower *f, const struct lockstep_point *point, struct error *err)
{
    const struct vcpu *v = f->cpu->vcpu;
    return f->base.state(&f->base, false, err) == 0 &&
           !(v->rip == point->rip && point->cpu->rip != point->rip && v->r[RCX] == 0);
}

static enum lockstep_answer accesses(struct kvm_follower *f, const struct lockstep_point *point,
                                     struct error *err)
{
    for (unsigned n = 0; n < point->count; n++) {
        enum lockstep_answer answer = one_access(f, &point->accesses[n], err);
        if (answer != LOCKSTEP_THERE)
            return answer;
    }
    if (f->exited)
        return LOCKSTEP_PASSED;
    enum lockstep_answer answer = complete(f, err);
    return answer == LOCKSTEP_THERE && !finished(f, point, err) ? LOCKSTEP_PASSED : answer;
}

/* Of those that KVM keeps its own value is what the guest gets. */
static enum lockstep_answer kept_msr(struct kvm_follower *f, bool writes, struct error *err)
{
    f->cpu->unfinished = true;
    if ((writes ? kvm_exit_wrmsr(f->cpu, err) : kvm_exit_rdmsr(f->cpu, err)) < 0)
        return LOCKSTEP_FAILED;
    if (f->cpu->unfinished)
        return complete(f, err);
    f->exited = false;
    return LOCKSTEP_THERE;
}

/* The paravirtual clock is the leader's: KVM, left to itself, would write another one. */
static bool is_clock(uint32_t msr)
{
    return msr == MSR_KVM_WALL_CLOCK || msr == MSR_KVM_SYSTEM_TIME;
}

static void copy_clock(struct kvm_follower *f, uint64_t value)
{
    uint8_t bytes[32]; /* the larger structure */
    uint64_t at = value & ~3ull;
    if (memory_read(&f->leader->memory, at, bytes, sizeof bytes))
        memory_write(&f->base.vm->memory, at, bytes, sizeof bytes);
}

static enum lockstep_answer msr(struct kvm_follower *f, const struct lockstep_point *point,
                                struct error *err)
{
    struct kvm_run *run = f->cpu->run;
    char wanted[64];
    enum lockstep_answer answer = next_exit(f, err);
    if (answer != LOCKSTEP_THERE)
        return answer;
    bool writes = run->exit_reason == KVM_EXIT_X86_WRMSR;
    snprintf(wanted, sizeof wanted, "an access to MSR 0x%x", point->msr);
    if ((run->exit_reason != KVM_EXIT_X86_RDMSR && !writes) || run->msr.index != point->msr)
        return other_exit(f, wanted, err);
    if (writes && !point->faulted && run->msr.data != point->value)
        return differs(err, "0x%" PRIx64 " is written to MSR 0x%x, on KVM 0x%llx", point->value,
                       point->msr, run->msr.data);
    if (kvm_asks_to_count(f->cpu) && !is_clock(point->msr))
        return kept_msr(f, writes, err);
    if (!writes)
        run->msr.data = point->value;
    run->msr.error = point->faulted;
    enum lockstep_answer behind = complete(f, err);
    if (writes && is_clock(point->msr) && behind == LOCKSTEP_THERE)
        copy_clock(f, point->value);
    return behind;
}

static enum lockstep_answer simple(struct kvm_follower *f, uint32_t reason, const char *wanted,
                                   struct error *err)
{
    enum lockstep_answer answer = next_exit(f, err);
    if (answer != LOCKSTEP_THERE)
        return answer;
    if (f->cpu->run->exit_reason != reason)
        return other_exit(f, wanted, err);
    f->exited = false;
    return LOCKSTEP_THERE;
}

/* ---- stopping at an instruction ---- */
static int set_stop(struct kvm_follower *f, uint64_t linear, bool on, struct error *err)
{
    struct kvm_guest_debug debug = {.control = 0};
    if (on) {
        debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        debug.arch.debugreg[0] = linear;
        debug.arch.debugreg[7] = 0x402;
    }
    return kvm_cpu_ioctl(f->cpu, KVM_SET_GUEST_DEBUG, &debug, "KVM_SET_GUEST_DEBUG", err);
}

static bool same_registers(const struct vcpu *a, const struct vcpu *b)
{
    return a->rip == b->rip && memcmp(a->r, b->r, 16 * sizeof a->r[0]) == 0;
}

/* Past the instruction at the breakpoint. (RFLAGS.RF would let it through, but software KVM does not know it.) */
static enum lockstep_answer pass(struct kvm_follower *f, uint64_t linear, struct error *err)
{
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
    if (kvm_cpu_ioctl(f->cpu, KVM_SET_GUEST_DEBUG, &debug, "KVM_SET_GUEST_DEBUG", err) < 0)
        return LOCKSTEP_FAILED;
    enum lockstep_answer answer = simple(f, KVM_EXIT_DEBUG, "an instruction without accesses", err);
    return answer == LOCKSTEP_THERE && set_stop(f, linear, true, err) < 0 ? LOCKSTEP_FAILED
                                                                          : answer;
}

/* Runs until it is there. It may pass with other registers if it `searches`. */
static enum lockstep_answer run_to(struct kvm_follower *f, const struct vcpu *leader, bool searches,
                                   struct error *err)
{
    for (unsigned tries = 0; tries < TRIES; tries++) {
        enum lockstep_answer answer =
            simple(f, KVM_EXIT_DEBUG, "an instruction without accesses", err);
        if (answer != LOCKSTEP_THERE || !searches)
            return answer;
        if (f->base.state(&f->base, false, err) < 0)
            return LOCKSTEP_FAILED;
        if (same_registers(leader, f->cpu->vcpu))
            return LOCKSTEP_THERE;
        answer = pass(f, vcpu_linear_rip(leader), err);
        if (answer != LOCKSTEP_THERE)
            return answer;
    }
    return differs(err, "on KVM the registers are never the same at that address");
}

static enum lockstep_answer stop_at(struct kvm_follower *f, const struct vcpu *leader,
                                    bool searches, struct error *err)
{
    const struct kvm_debug *can = &f->cpu->kvm->debug;
    if (!(leader->cpl == 3 ? can->ring3 : can->ring0)) {
        if (searches) /* the interrupt waits on */
            return LOCKSTEP_PASSED;
        fail(err, HVRUN_NO_ENGINE,
             "lockstep: this KVM cannot be stopped at an instruction at privilege level %u",
             leader->cpl);
        return LOCKSTEP_FAILED;
    }
    if (leader->dr[7] & 0xff) {
        fail(err, HVRUN_NO_ENGINE, "lockstep: the guest has the debug registers in use");
        return LOCKSTEP_FAILED;
    }
    if (set_stop(f, vcpu_linear_rip(leader), true, err) < 0)
        return LOCKSTEP_FAILED;
    enum lockstep_answer answer = run_to(f, leader, searches, err);
    struct error second = {0};
    return set_stop(f, 0, false, answer == LOCKSTEP_THERE ? err : &second) < 0 ? LOCKSTEP_FAILED
                                                                               : answer;
}

static enum lockstep_answer come(struct lockstep_follower *follower,
                                 const struct lockstep_point *point, struct error *err)
{
    struct kvm_follower *f = follower->own;
    f->deadline = seconds() + PATIENCE_S + (double)point->instructions / SLOWEST;
    switch (point->kind) {
    case LOCKSTEP_ACCESS:
        return accesses(f, point, err);
    case LOCKSTEP_MSR:
        return msr(f, point, err);
    case LOCKSTEP_HALT:
        return simple(f, KVM_EXIT_HLT, "HLT", err);
    case LOCKSTEP_SHUTDOWN:
        return simple(f, KVM_EXIT_SHUTDOWN, "a triple fault", err) == LOCKSTEP_DIFFERS
                   ? LOCKSTEP_DIFFERS
                   : LOCKSTEP_PASSED; /* what state that leaves is not said */
    case LOCKSTEP_BEFORE:
    case LOCKSTEP_SEARCH:
        return stop_at(f, point->cpu, point->kind == LOCKSTEP_SEARCH, err);
    }
    return LOCKSTEP_FAILED;
}

/* ---- a follower that is there ---- */
static int interrupt(struct lockstep_follower *follower, uint8_t vector, struct error *err)
{
    struct kvm_follower *f = follower->own;
    struct kvm_interrupt interrupt = {.irq = vector};
    if (kvm_push(f->cpu, err) < 0)
        return -1;
    return kvm_cpu_ioctl(f->cpu, KVM_INTERRUPT, &interrupt, "KVM_INTERRUPT", err);
}

static int give(struct lockstep_follower *follower, const struct vcpu *leader, struct error *err)
{
    struct kvm_follower *f = follower->own;
    struct vcpu *v = f->cpu->vcpu;
    f->cpu->pulled = false;
    if (kvm_pull(f->cpu, err) < 0)
        return -1;
    memcpy(v->r, leader->r, 16 * sizeof v->r[0]);
    v->rip = leader->rip;
    v->shadow = 0;
    vcpu_set_rflags(v, vcpu_rflags(leader));
    return 0; /* pushed with the next KVM_RUN */
}

static int state(struct lockstep_follower *follower, bool all, struct error *err)
{
    struct kvm_follower *f = follower->own;
    if (f->cpu->pulled)
        return 0;
    if (!all)
        return kvm_pull_registers(f->cpu, err);
    int result = kvm_pull(f->cpu, err);
    f->cpu->pulled = false; /* a look: the kernel's stays the one that counts */
    return result;
}

static void close_follower(struct lockstep_follower *follower)
{
    struct kvm_follower *f = follower->own;
    if (f->timer_runs)
        timer_delete(f->timer);
    if (f->base.vm && f->base.vm->vcpu_count)
        vm_destroy(f->base.vm);
    free(f->base.vm);
    free(f);
}

struct lockstep_follower *kvm_follower_open(struct vm *leader, struct error *err)
{
    struct kvm_follower *f = calloc(1, sizeof *f);
    struct vm *vm = calloc(1, sizeof *vm);
    if (!f || !vm) {
        free(f);
        free(vm);
        fail(err, HVRUN_HOST, "lockstep: out of memory");
        return NULL;
    }
    vm->config = leader->config;
    vm->config.serial = NULL;
    vm->engine = &kvm_engine;
    f->leader = leader;
    f->base = (struct lockstep_follower){.name = "kvm",
                                         .vm = vm,
                                         .own = f,
                                         .come = come,
                                         .interrupt = interrupt,
                                         .give = give,
                                         .state = state,
                                         .close = close_follower};
    if (vm_create(vm, err) < 0 || start_timer(f, err) < 0) {
        close_follower(&f->base);
        return NULL;
    }
    f->cpu = &vm->kvm->cpus[0];
    kvm_probe_debug(vm->kvm->fd, &vm->kvm->debug);
    lockstep_copy(vm, leader);
    return &f->base;
}
