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
#include "runtime/interrupts.h"
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

/* What has come and can be taken, until the guest is to run. */
static void take_packets(struct gdb *gdb)
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

static void stand(struct gdb *gdb, unsigned index, int signal)
{
    struct vcpu *cpu = gdb->vm->vcpus[index];
    gdb->running = false;
    gdb->general = gdb->stopped = index;
    gdb->signal = signal;
    gdb->stop_kind = cpu->stop.kind;
    gdb->stop_address = cpu->stop.address;
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

/* A look at the connection while the guest runs: true if it is to come to a halt, or to go on otherwise. */
static bool poll_client(struct gdb *gdb)
{
    if (gdb_accept(&gdb->connection)) { /* a new client finds the guest standing */
        gdb_forget_client(gdb);
        stand(gdb, gdb->stopped, GDB_SIGTRAP);
        return true;
    }
    if (gdb->connection.client < 0)
        return false;
    if (!receive(gdb)) {
        gdb_forget_client(gdb);
        return true;
    }
    if (!gdb_input_interrupt(&gdb->input))
        return false;
    stop(gdb, gdb->stopped, GDB_SIGINT);
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
    if (wait[0].revents && !receive(gdb))
        gdb_forget_client(gdb);
    if (wait[2].revents && gdb_accept(&gdb->connection))
        gdb_forget_client(gdb);
}

static void talk(struct gdb *gdb)
{
    console_flush(gdb->vm);
    while (take_packets(gdb), !gdb->running && !over(gdb))
        wait_for_client(gdb);
}

/* ---- running ---- */
/* One instruction. Interrupts that wait are held back, unless the client wants to see them; one that ends a halt is not. */
static void step_one(struct gdb *gdb, struct vcpu *cpu)
{
    const uint32_t held = VCPU_EVENT_INTERRUPT | VCPU_EVENT_NMI | VCPU_EVENT_SMI;
    uint32_t before = cpu->events & held;
    bool hold = !gdb->step_events && cpu->activity == ACTIVITY_ACTIVE;
    if (hold)
        cpu->events &= ~held;
    soft_step(cpu);
    if (hold) {
        cpu->events |= before & ~VCPU_EVENT_INTERRUPT;
        lapic_update(cpu);
    }
    gdb->vm->stats.steps++;
}

static bool stepping(const struct gdb *gdb)
{
    for (unsigned n = 0; n < gdb->vm->vcpu_count; n++)
        if (gdb->resume[n].action == GDB_STEP)
            return true;
    return false;
}

/* One turn of this vCPU. True: it has done what it was to do, or has met something. */
static bool turn(struct gdb *gdb, unsigned index)
{
    struct vcpu *cpu = gdb->vm->vcpus[index];
    const struct gdb_resume *resume = &gdb->resume[index];
    if (resume->action == GDB_HOLD)
        return false;
    if (resume->action == GDB_GO) {
        soft_run(cpu, stepping(gdb) ? 1 : 20000);
        return cpu->stop.kind != STOP_NONE;
    }
    if (cpu->activity != ACTIVITY_ACTIVE && !cpu->events)
        return false;
    step_one(gdb, cpu);
    return cpu->stop.kind != STOP_NONE || cpu->rip - resume->start >= resume->end - resume->start;
}

/* Runs the machine until the vCPU that is the result has done its step or met something; -1: look again. */
static int enter(struct gdb *gdb)
{
    struct vm *vm = gdb->vm;
    for (unsigned n = 0; n < vm->vcpu_count; n++)
        vm->vcpus[n]->stop.kind = STOP_NONE;
    while (!vm->shutdown) {
        uint64_t before = soft_instructions(vm);
        for (unsigned n = 0; n < vm->vcpu_count && !vm->shutdown; n++) {
            if (atomic_load_explicit(&vm->attention, memory_order_acquire))
                vm_attend(vm);
            clock_run(&vm->clock);
            if (turn(gdb, n))
                return (int)n;
        }
        if (soft_instructions(vm) == before) {
            usleep(100);
            vm->soft->idle_ns += 100000;
        }
        if (clock_now(&vm->clock) >= gdb->next_poll) {
            gdb->next_poll = clock_now(&vm->clock) + POLL_NS;
            if (poll_client(gdb))
                return -1;
        }
    }
    return -1;
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
    (void)err;
    while (!vm->shutdown) {
        if (!gdb->running) {
            talk(gdb);
            continue;
        }
        int index = enter(gdb);
        if (index >= 0 && !vm->shutdown)
            stop(gdb, (unsigned)index, GDB_SIGTRAP);
    }
    post_mortem(gdb);
    tell_end(gdb);
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
    breakpoints_destroy(vm);
    free(vm->gdb);
    vm->gdb = NULL;
}
