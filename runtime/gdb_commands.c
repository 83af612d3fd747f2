/* SPDX-License-Identifier: MIT */
/* Which packet is whose: the table of commands. What is not in it gets the empty reply, which
 * means just that. */
#include <string.h>

#include "runtime/gdb_server.h"

void gdb_error(struct gdb *gdb, unsigned number)
{
    gdb->output.length = 0;
    gdb_printf(&gdb->output, "E%02x", number & 0xff);
}

void gdb_ok(struct gdb *gdb)
{
    gdb_put(&gdb->output, "OK");
}

/* ---- what needs no file of its own ---- */
/* What the client can do follows; what this server can is the reply. */
static void supported(struct gdb *gdb, const char *args, size_t length)
{
    (void)length;
    gdb->swbreak = strstr(args, "swbreak+") != NULL;
    gdb->hwbreak = strstr(args, "hwbreak+") != NULL;
    gdb_printf(&gdb->output,
               "PacketSize=%x;QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;"
               "vContSupported+",
               GDB_PACKET_MAX);
}

/* Acknowledged still, the last packet that is. */
static void start_no_ack(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb->start_no_ack = true;
    gdb_ok(gdb);
}

/* The guest was there before the client: let it be when that leaves. */
static void attached(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb_put(&gdb->output, "1");
}

/* gdb may look symbols up for us: no need. */
static void symbols(struct gdb *gdb, const char *args, size_t length)
{
    (void)args;
    (void)length;
    gdb_ok(gdb);
}

/* ---- the table ---- */
static const struct row {
    const char *name;
    bool whole; /* nothing may follow */
    gdb_command *command;
} rows[] = {
    {"?", true, gdb_why},
    {"c", false, gdb_continue},
    {"C", false, gdb_continue_signal},
    {"D", false, gdb_detach},
    {"g", true, gdb_read_registers},
    {"G", false, gdb_write_registers},
    {"H", false, gdb_set_thread},
    {"k", true, gdb_kill},
    {"m", false, gdb_read_memory},
    {"M", false, gdb_write_memory},
    {"p", false, gdb_read_register},
    {"P", false, gdb_write_register},
    {"qAttached", false, attached},
    {"qC", true, gdb_current_thread},
    {"qfThreadInfo", true, gdb_first_threads},
    {"qsThreadInfo", true, gdb_more_threads},
    {"qThreadExtraInfo,", false, gdb_thread_name},
    {"qRcmd,", false, gdb_monitor},
    {"qSupported", false, supported},
    {"qSymbol:", false, symbols},
    {"qXfer:features:read:", false, gdb_read_target},
    {"QStartNoAckMode", true, start_no_ack},
    {"s", false, gdb_step},
    {"S", false, gdb_step_signal},
    {"T", false, gdb_thread_alive},
    {"vCont?", true, gdb_vcont_query},
    {"vCont;", false, gdb_vcont},
    {"vKill;", false, gdb_vkill},
    {"X", false, gdb_write_binary},
    {"z", false, gdb_remove_point},
    {"Z", false, gdb_insert_point},
};

void gdb_execute(struct gdb *gdb, const char *text, size_t length)
{
    gdb->output.length = 0;
    gdb->output.overflow = false;
    gdb->silent = false;
    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++) {
        size_t name = strlen(rows[n].name);
        if (length < name || memcmp(text, rows[n].name, name) != 0 ||
            (rows[n].whole && length != name))
            continue;
        rows[n].command(gdb, text + name, length - name);
        return;
    }
}
