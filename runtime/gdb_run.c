/* SPDX-License-Identifier: MIT */
/* The machine under a debugger: it runs until something stops it, and stands while packets come. */
#include "runtime/gdb.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/breakpoints.h"
#include "runtime/console.h"
#include "runtime/gdb_server.h"
#include "runtime/soft/engine.h"

#define POLL_NS 1000000u /* guest time between two looks at the connection */

/* ---- sending: one write a reply ---- */
void gdb_send_reply(struct gdb *gdb)
{
    gdb_frame(&gdb->output, gdb->owes_ack);
    gdb->owes_ack = false;
    gdb_send(&gdb->connection, gdb->output.frame, gdb->output.frame_length);
}

void gdb_send_text(struct gdb *gdb, const char *text, size_t length)
{
    const size_t most = (GDB_PACKET_MAX - 1) / 2;
    for (size_t part; length; text += part, length -= part) {
        part = length < most ? length : most;
        gdb->output.length = 0;
        gdb_put(&gdb->output, "O");
        gdb_put_hex(&gdb->output, text, part);
        gdb_send_reply(gdb);
    }
    gdb->output.length = 0;
}

static void send_sign(struct gdb *gdb, const char *sign)
{
    gdb_send(&gdb->connection, sign, 1);
}

/* ---- packets ---- */
static void answer(struct gdb *gdb, const char *text, size_t length)
{
    gdb->owes_ack = !gdb->no_ack;
    gdb_execute(gdb, text, length);
    if (!gdb->silent)
        gdb_send_reply(gdb);
    else if (gdb->owes_ack)
        send_sign(gdb, "+");
    gdb->owes_ack = false;
    if (gdb->start_no_ack)
        gdb->no_ack = true;
}

static void refuse_damaged(struct gdb *gdb)
{
    if (!gdb->no_ack) { /* send it again */
        send_sign(gdb, "-");
        return;
    }
    gdb_error(gdb, GDB_BAD_PACKET);
    gdb_send_reply(gdb);
}

static void send_again(struct gdb *gdb)
{
    size_t sign = gdb->output.frame_length && gdb->output.frame[0] == '+';
    gdb_send(&gdb->connection, gdb->output.frame + sign, gdb->output.frame_length - sign);
}

void gdb_take_packets(struct gdb *gdb)
{
    char *text;
    size_t length;
    while (!gdb->running && !gdb->killed) {
        switch (gdb_input_next(&gdb->input, &text, &length)) {
        case GDB_NOTHING:
            return;
        case GDB_PACKET:
            answer(gdb, text, length);
            break;
        case GDB_DAMAGED:
            refuse_damaged(gdb);
            break;
        case GDB_NACK:
            send_again(gdb);
            break;
        case GDB_INTERRUPT: /* it stands already */
        case GDB_ACK:
            break;
        }
    }
}

/* ---- the client ---- */
/* False: it has gone. */
static bool receive(struct gdb *gdb)
{
    size_t room;
    uint8_t *to = gdb_input_room(&gdb->input, &room);
    if (room == 0) { /* only while the guest runs, when there is nothing but Ctrl-C to be said */
        gdb_drop(&gdb->connection);
        return false;
    }
    ssize_t count = gdb_receive(&gdb->connection, to, room);
    if (count < 0)
        return false;
    gdb_input_add(&gdb->input, (size_t)count);
    return true;
}

/* Looks after the client that is there and one that waits, who may come in if the other has
 * gone. True: another one is there now, or none any more. */
static bool client_changed(struct gdb *gdb)
{
    bool gone = gdb->connection.client >= 0 && !receive(gdb);
    bool come = gdb_accept(&gdb->connection);
    if (gone || come)
        gdb_forget_client(gdb);
    return gone || come;
}

static void stand(struct gdb *gdb, unsigned index, int signal)
{
    gdb->running = false;
    gdb->general = gdb->stopped = index;
    gdb->signal = signal;
}

/* The same, and the client, which waits for it, is told. */
static void stop(struct gdb *gdb, unsigned index, int signal)
{
    stand(gdb, index, signal);
    if (gdb->connection.client < 0)
        return;
    gdb->output.length = 0;
    gdb_stop_reply(gdb);
    gdb_send_reply(gdb);
}

/* A look at the connection while the guest runs: true if it is to come to a halt, or to go on
 * otherwise. */
static bool poll_client(struct gdb *gdb)
{
    gdb->stop_kind = STOP_NONE;
    if (client_changed(gdb)) { /* a new client finds the guest standing */
        if (gdb->connection.client >= 0)
            stand(gdb, gdb->stopped, GDB_SIGTRAP);
        return true;
    }
    if (!gdb_input_interrupt(&gdb->input))
        return false;
    gdb->interrupted = true; /* the registers that it is told are known when the entry has ended */
    return true;
}

/* ---- standing ---- */
/* Nothing can make the guest go on any more. */
static bool over(const struct gdb *gdb)
{
    if (!gdb->dead)
        return gdb->vm->shutdown;
    return gdb->killed || gdb->connection.client < 0 || gdb->vm->stop_request != SHUTDOWN_NONE;
}

/* Waits for bytes, a client, or somebody who wakes the machine up. */
static void wait_for_client(struct gdb *gdb)
{
    struct pollfd wait[] = {{.fd = gdb->connection.client, .events = POLLIN},
                            {.fd = gdb->vm->wake_fd, .events = POLLIN},
                            {.fd = gdb->connection.listener, .events = POLLIN}};
    if (poll(wait, 3, -1) < 0)
        return;
    if (wait[1].revents)
        vm_attend(gdb->vm);
    if (wait[2].revents)
        client_changed(gdb);
    else if (wait[0].revents && !receive(gdb))
        gdb_forget_client(gdb);
}

static void talk(struct gdb *gdb)
{
    console_flush(gdb->vm);
    while (gdb_take_packets(gdb), !gdb->running && !over(gdb))
        wait_for_client(gdb);
}

/* ---- running ---- */
/* Halted with interrupts off, every one of them: the guest has ended. */
static bool halted_for_ever(const struct gdb *gdb)
{
    for (unsigned n = 0; n < gdb->vm->vcpu_count; n++) {
        const struct vcpu *cpu = gdb->vm->vcpus[n];
        bool waits = cpu->activity == ACTIVITY_WAIT_FOR_SIPI ||
                     (cpu->activity == ACTIVITY_HLT && !(cpu->rflags & RFLAGS_IF));
        if (!waits || cpu->events & (VCPU_EVENT_NMI | VCPU_EVENT_INIT | VCPU_EVENT_SIPI) ||
            gdb->resume[n].action == GDB_HOLD)
            return false;
    }
    return true;
}

/* Asked during an entry, between two turns: true = come back. */
static bool ask(void *context)
{
    struct gdb *gdb = context;
    struct vm *vm = gdb->vm;
    uint64_t now = clock_now(&vm->clock);
    if (halted_for_ever(gdb)) {
        vm_stop(vm, SHUTDOWN_HALT, HVRUN_DONE);
        return true;
    }
    if (now - gdb->last_poll < POLL_NS)
        return false;
    gdb->last_poll = now;
    return poll_client(gdb);
}

/* What the next entry is to do with this vCPU. Interrupts that wait are held back from an
 * instruction that is stepped, unless the client wants to see them, as behind STI; but not from
 * a vCPU that waits for one. */
static void control(struct gdb *gdb, unsigned index)
{
    struct vmcs *vmcs = gdb->vmcs[index];
    enum gdb_action action = gdb->resume[index].action;
    vmcs->held = action == GDB_HOLD;
    vmcs->single_step = action == GDB_STEP;
    if (vmcs->single_step && !gdb->step_events && vmcs->activity == ACTIVITY_ACTIVE &&
        !(vmcs->interruptibility & VMCS_BLOCKED_MOVSS))
        vmcs->interruptibility |= VMCS_BLOCKED_STI;
}

/* A watchpoint that was met counts as such in a step too. True: there was one. */
static bool met_watchpoint(struct gdb *gdb, const struct vmcs *vmcs)
{
    static const enum stop_kind kinds[] = {[VMCS_WATCH_WRITE] = STOP_WRITE,
                                           [VMCS_WATCH_READ] = STOP_READ,
                                           [VMCS_WATCH_ACCESS] = STOP_ACCESS};
    if (!vmcs->watch_kind)
        return false;
    gdb->stop_kind = kinds[vmcs->watch_kind];
    gdb->stop_address = vmcs->watch_linear;
    return true;
}

/* The exit of this vCPU: does it stop the machine? */
static void exited(struct gdb *gdb, const struct vmcs *vmcs)
{
    unsigned index = vmcs->cpu->index;
    const struct gdb_resume *resume = &gdb->resume[index];
    gdb->stop_kind = STOP_NONE;
    switch (vmcs->exit_reason) {
    case VMCS_EXIT_STEP:
        if (met_watchpoint(gdb, vmcs) ||
            vmcs->cpu->rip - resume->start >= resume->end - resume->start)
            stop(gdb, index, GDB_SIGTRAP);
        return;
    case VMCS_EXIT_WATCHPOINT:
        met_watchpoint(gdb, vmcs);
        stop(gdb, index, GDB_SIGTRAP);
        return;
    case VMCS_EXIT_BREAKPOINT:
        gdb->stop_kind = breakpoint_kind(gdb->vm, vmcs->qualification);
        stop(gdb, index, GDB_SIGTRAP);
        return;
    case VMCS_EXIT_TRIPLE_FAULT:
        cpu_triple_fault(vmcs->cpu);
        return;
    default: /* the connection wanted attention, or the machine has ended */
        return;
    }
}

/* An entry passes over breakpoints that vCPUs stand at; gdb means them to be met, and steps over
 * them where it does not. True: one was. */
static bool stands_at_breakpoint(struct gdb *gdb)
{
    for (unsigned n = 0; n < gdb->vm->vcpu_count; n++) {
        struct vcpu *cpu = gdb->vm->vcpus[n];
        if (gdb->resume[n].action != GDB_GO || cpu->activity != ACTIVITY_ACTIVE ||
            !breakpoint_reached(cpu))
            continue;
        gdb->stop_kind = cpu->stop.kind;
        stop(gdb, n, GDB_SIGTRAP);
        return true;
    }
    return false;
}

void gdb_enter(struct gdb *gdb)
{
    struct vm *vm = gdb->vm;
    for (unsigned n = 0; n < vm->vcpu_count; n++)
        control(gdb, n);
    bool connected = gdb->connection.client >= 0;
    vmcs_poll(vm, connected ? gdb->connection.client : gdb->connection.listener, ask, gdb);
    exited(gdb, vm_enter_any(vm));
    if (gdb->interrupted && gdb->running)
        stop(gdb, gdb->stopped, GDB_SIGINT);
    gdb->interrupted = false;
}

/* Runs the machine until it is to stand. */
static void run(struct gdb *gdb)
{
    struct vm *vm = gdb->vm;
    if (gdb->connection.client >= 0 && stands_at_breakpoint(gdb))
        return;
    while (gdb->running && !vm->shutdown)
        gdb_enter(gdb);
}

/* ---- the end ---- */
/* A guest that died can be looked at. */
static void post_mortem(struct gdb *gdb)
{
    struct vm *vm = gdb->vm;
    if (vm->shutdown != SHUTDOWN_TRIPLE_FAULT || gdb->connection.client < 0 || !gdb->running)
        return;
    unsigned who = 0;
    for (unsigned n = 0; n < vm->vcpu_count; n++)
        if (vm->vcpus[n]->activity == ACTIVITY_SHUTDOWN)
            who = n;
    gdb->dead = true;
    gdb->stop_kind = STOP_NONE;
    stop(gdb, who, GDB_SIGABRT);
    talk(gdb);
}

static void tell_end(struct gdb *gdb)
{
    int code = gdb->vm->exit_code;
    if (gdb->connection.client < 0 || !gdb->running)
        return;
    if (gdb->vm->shutdown == SHUTDOWN_TIMEOUT)
        code = 128 + 14; /* gdb's number of SIGALRM */
    gdb->output.length = 0;
    gdb_printf(&gdb->output, code > 128 ? "X%02x" : "W%02x", code & 0x7f);
    gdb_send_reply(gdb);
}

int gdb_run(struct vm *vm, struct error *err)
{
    struct gdb *gdb = vm->gdb;
    for (unsigned n = 0; n < vm->vcpu_count; n++)
        if (!(gdb->vmcs[n] = vmcs_create(vm->vcpus[n], err)))
            return -1;
    while (!vm->shutdown) {
        talk(gdb);
        run(gdb);
    }
    post_mortem(gdb);
    tell_end(gdb);
    vmcs_poll(vm, -1, NULL, NULL);
    console_flush(vm);
    vm->stats.guest_instructions = soft_instructions(vm);
    return 0;
}

/* ---- opening and closing ---- */
int gdb_open(struct vm *vm, struct error *err)
{
    struct gdb *gdb = calloc(1, sizeof *gdb);
    if (!gdb)
        return fail(err, HVRUN_HOST, "no memory for the gdb server");
    if (gdb_listen(&gdb->connection, vm->config.gdb, err) < 0 || breakpoints_create(vm, err) < 0) {
        gdb_unlisten(&gdb->connection);
        free(gdb);
        return -1;
    }
    gdb->vm = vm;
    gdb->signal = GDB_SIGTRAP;
    gdb->running = vm->config.gdb_nowait;
    gdb_resume_all(gdb, GDB_GO);
    vm->gdb = gdb;
    fprintf(stderr, "hvrun: gdb: target remote %s\n", gdb->connection.name);
    return 0;
}

void gdb_close(struct vm *vm)
{
    if (!vm->gdb)
        return;
    gdb_unlisten(&vm->gdb->connection);
    for (unsigned n = 0; n < vm->vcpu_count; n++)
        vmcs_destroy(vm->gdb->vmcs[n]);
    breakpoints_destroy(vm);
    free(vm->gdb);
    vm->gdb = NULL;
}
