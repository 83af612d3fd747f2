/* SPDX-License-Identifier: MIT */
/* Threads are vCPUs: number n + 1 is vCPU n. */
#include <stdio.h>
#include <string.h>

#include "runtime/gdb_server.h"

bool gdb_thread(const struct gdb *gdb, const char **text, int *thread)
{
    uint64_t number;
    if (!strncmp(*text, "-1", 2)) {
        *text += 2;
        *thread = -1;
        return true;
    }
    if (!gdb_number(text, &number) || number > gdb->vm->vcpu_count)
        return false;
    *thread = (int)number;
    return true;
}

/* HgN: registers and memory of which vCPU. HcN: what c and s are for; gdb uses vCont instead. */
void gdb_set_thread(struct gdb *gdb, const char *args, size_t length)
{
    int thread;
    char operation = length ? *args++ : '\0';
    if ((operation != 'g' && operation != 'c') || !gdb_thread(gdb, &args, &thread) || *args) {
        gdb_error(gdb, GDB_NO_THREAD);
        return;
    }
    if (operation == 'g' && thread > 0)
        gdb->general = (unsigned)thread - 1;
    else if (operation == 'g')
        gdb->general = gdb->stopped;
    gdb_ok(gdb);
}

void gdb_thread_alive(struct gdb *gdb, const char *args, size_t length)
{
    int thread;
    (void)length;
    if (gdb_thread(gdb, &args, &thread) && thread > 0 && !*args)
        gdb_ok(gdb);
    else
        gdb_error(gdb, GDB_NO_THREAD);
}

void gdb_first_threads(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    for (unsigned n = 0; n < gdb->vm->vcpu_count; n++)
        gdb_printf(&gdb->output, "%c%x", n ? ',' : 'm', n + 1);
}

void gdb_more_threads(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb_put(&gdb->output, "l");
}

void gdb_current_thread(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb_printf(&gdb->output, "QC%x", gdb->general + 1);
}

void gdb_thread_name(struct gdb *gdb, const char *args, size_t length)
{
    static const char *const activities[] = {
        [ACTIVITY_ACTIVE] = "running",
        [ACTIVITY_HLT] = "halted",
        [ACTIVITY_SHUTDOWN] = "shut down",
        [ACTIVITY_WAIT_FOR_SIPI] = "not started",
    };
    char text[64];
    int thread;
    (void)length;
    if (!gdb_thread(gdb, &args, &thread) || thread < 1) {
        gdb_error(gdb, GDB_NO_THREAD);
        return;
    }
    const struct vcpu *cpu = gdb->vm->vcpus[thread - 1];
    int size = snprintf(text, sizeof text, "vCPU %d, %s, CPL %u", thread - 1,
                        activities[cpu->activity], cpu->cpl);
    gdb_put_hex(&gdb->output, text, (size_t)size);
}
