/* SPDX-License-Identifier: MIT */
/* s, c, vCont, and what ends a session; stop replies. */
#include <string.h>

#include "runtime/breakpoints.h"
#include "runtime/gdb_server.h"

void gdb_resume_all(struct gdb *gdb, enum gdb_action action)
{
    for (unsigned n = 0; n < VCPUS_MAX; n++)
        gdb->resume[n] = (struct gdb_resume){.action = action};
}

/* The reply comes when the guest stops. */
static void go(struct gdb *gdb)
{
    gdb->running = true;
    gdb->silent = true;
}

/* ---- why it stands ---- */
static const char *const reasons[] = {
    [STOP_SOFTWARE] = "swbreak:;", [STOP_HARDWARE] = "hwbreak:;", [STOP_WRITE] = "watch:",
    [STOP_READ] = "rwatch:",       [STOP_ACCESS] = "awatch:",
};

void gdb_stop_reply(struct gdb *gdb)
{
    struct gdb_output *output = &gdb->output;
    gdb_printf(output, "T%02xthread:%x;", gdb->signal, gdb->stopped + 1);
    switch (gdb->stop_kind) {
    case STOP_NONE:
        break;
    case STOP_SOFTWARE:
    case STOP_HARDWARE:
        if (gdb->stop_kind == STOP_SOFTWARE ? gdb->swbreak : gdb->hwbreak)
            gdb_put(output, reasons[gdb->stop_kind]);
        break;
    default:
        gdb_put(output, reasons[gdb->stop_kind]);
        gdb_put_number(output, gdb->stop_address);
        gdb_put(output, ";");
    }
    gdb_expedite(gdb, gdb->vm->vcpus[gdb->stopped]);
}

void gdb_why(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb_stop_reply(gdb);
}

/* ---- c, s ---- */
/* An address to go on at may follow. */
static void resume(struct gdb *gdb, const char *args, enum gdb_action action)
{
    uint64_t rip;
    if (*args) {
        if (!gdb_number_then(&args, &rip, '\0')) {
            gdb_error(gdb, GDB_BAD_PACKET);
            return;
        }
        gdb_vcpu(gdb)->rip = rip;
    }
    gdb_resume_all(gdb, GDB_GO);
    gdb->resume[gdb->general].action = action;
    go(gdb);
}

void gdb_continue(struct gdb *gdb, const char *args, size_t length)
{
    (void)length;
    resume(gdb, args, GDB_GO);
}

void gdb_step(struct gdb *gdb, const char *args, size_t length)
{
    (void)length;
    resume(gdb, args, GDB_STEP);
}

/* CSS;ADDRESS: signals mean nothing to a guest. */
static void with_signal(struct gdb *gdb, const char *args, enum gdb_action action)
{
    uint64_t number;
    if (!gdb_number(&args, &number) || (*args && *args++ != ';'))
        gdb_error(gdb, GDB_BAD_PACKET);
    else
        resume(gdb, args, action);
}

void gdb_continue_signal(struct gdb *gdb, const char *args, size_t length)
{
    (void)length;
    with_signal(gdb, args, GDB_GO);
}

void gdb_step_signal(struct gdb *gdb, const char *args, size_t length)
{
    (void)length;
    with_signal(gdb, args, GDB_STEP);
}

/* ---- vCont ---- */
void gdb_vcont_query(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb_put(&gdb->output, "vCont;c;C;s;S;r");
}

/* One action, without its thread. */
static bool parse_action(const char **args, struct gdb_resume *resume)
{
    uint64_t number;
    char letter = **args;
    *resume = (struct gdb_resume){.action = GDB_GO};
    if (letter == '\0')
        return false;
    (*args)++;
    switch (letter) {
    case 'c':
        return true;
    case 's':
        resume->action = GDB_STEP;
        return true;
    case 'S':
        resume->action = GDB_STEP;
        return gdb_number(args, &number);
    case 'C':
        return gdb_number(args, &number);
    case 'r':
        resume->action = GDB_STEP;
        return gdb_number_then(args, &resume->start, ',') && gdb_number(args, &resume->end);
    default:
        return false;
    }
}

/* ACTION[:THREAD];…: the first one that names a vCPU is its, one without a thread names all. Who
 * is not named stands still. */
void gdb_vcont(struct gdb *gdb, const char *args, size_t length)
{
    struct gdb_resume wanted[VCPUS_MAX] = {0};
    bool named[VCPUS_MAX] = {false}, some = false;
    (void)length;
    for (;;) {
        struct gdb_resume action;
        int thread = -1;
        bool good = parse_action(&args, &action);
        if (good && *args == ':') {
            args++;
            good = gdb_thread(gdb, &args, &thread);
        }
        if (!good || (*args && *args != ';')) {
            gdb_error(gdb, GDB_BAD_PACKET);
            return;
        }
        if (thread == 0)
            thread = (int)gdb->stopped + 1;
        for (unsigned n = 0; n < gdb->vm->vcpu_count; n++)
            if (!named[n] && (thread < 0 || (unsigned)thread == n + 1)) {
                wanted[n] = action;
                named[n] = some = true;
            }
        if (!*args++)
            break;
    }
    if (!some) {
        gdb_error(gdb, GDB_NO_THREAD);
        return;
    }
    memcpy(gdb->resume, wanted, sizeof wanted);
    go(gdb);
}

/* ---- the end of a session ---- */
void gdb_forget_client(struct gdb *gdb)
{
    breakpoints_clear(gdb->vm);
    gdb_resume_all(gdb, GDB_GO);
    gdb->input = (struct gdb_input){.end = 0};
    gdb->no_ack = gdb->start_no_ack = gdb->swbreak = gdb->hwbreak = false;
}

/* The guest goes on by itself. */
void gdb_detach(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb_ok(gdb);
    gdb_send_reply(gdb);
    gdb_drop(&gdb->connection);
    gdb_forget_client(gdb);
    go(gdb);
}

void gdb_kill(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb->killed = true;
    gdb->silent = true;
    vm_stop(gdb->vm, SHUTDOWN_QUIT, HVRUN_DONE);
}

void gdb_vkill(struct gdb *gdb, const char *args, size_t length)
{
    gdb_kill(gdb, args, length);
    gdb->silent = false;
    gdb_ok(gdb);
}
