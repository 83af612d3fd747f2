/* SPDX-License-Identifier: MIT */
/* Inside the server for gdb: its state, and what its files give each other.
 *
 *   gdb_connection.c  bytes from and to the client
 *   gdb_packet.c      packets
 *   gdb_commands.c    which packet is whose
 *   gdb_registers.c   g, G, p, P    gdb_target.c  what gdb is told of the registers
 *   gdb_memory.c      m, M, X       gdb_points.c  Z, z
 *   gdb_threads.c     H, T, q…ThreadInfo    gdb_resume.c  s, c, vCont, ?
 *   gdb_monitor.c     monitor commands
 *   gdb_run.c         the machine between two packets */
#ifndef RUNTIME_GDB_SERVER_H
#define RUNTIME_GDB_SERVER_H

#include "runtime/gdb_connection.h"
#include "runtime/gdb_packet.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"
#include "runtime/vmcs.h"

/* Error numbers of E replies: those of errno that gdb's manual uses. */
#define GDB_NO_THREAD  3    /* ESRCH */
#define GDB_NO_MEMORY  0x0e /* EFAULT */
#define GDB_BAD_VALUE  0x16 /* EINVAL */
#define GDB_NO_ROOM    0x1c /* ENOSPC */
#define GDB_BAD_PACKET 0x5c /* ENOPROTOOPT: what cannot be understood */

#define GDB_SIGINT  2
#define GDB_SIGTRAP 5
#define GDB_SIGABRT 6

/* What a vCPU does once the machine goes on. */
enum gdb_action { GDB_HOLD, GDB_GO, GDB_STEP };
struct gdb_resume {
    enum gdb_action action;
    uint64_t start, end; /* GDB_STEP: goes on while RIP is in [start, end) */
};

struct gdb {
    struct vm *vm;
    struct gdb_connection connection;
    struct gdb_input input;
    struct gdb_output output;
    bool no_ack, start_no_ack; /* acknowledgements are off; will be after this reply */
    bool swbreak, hwbreak;     /* the client understands these stop reasons */
    bool step_events;          /* interrupts are delivered while stepping */
    bool owes_ack;             /* a packet has come that was not acknowledged yet */
    bool silent;               /* the packet under way gets no reply yet, or never */

    bool running;     /* the client waits for a stop reply, or there is none and the guest runs */
    bool interrupted; /* by the client's Ctrl-C: it is told once the machine stands */
    bool killed;      /* by the client */
    bool dead;        /* the guest is: it can be looked at, but not go on */
    struct gdb_resume resume[VCPUS_MAX];
    struct vmcs *vmcs[VCPUS_MAX];

    unsigned general, stopped; /* vCPU that registers and memory are of; that stopped last */
    int signal;                /* why it stopped: GDB_SIG* */
    enum stop_kind stop_kind;  /* … more exactly, if by a breakpoint or watchpoint */
    uint64_t stop_address;
    uint64_t last_poll; /* guest time */
};

/* vCPU n is thread n + 1. */
static inline struct vcpu *gdb_vcpu(const struct gdb *gdb)
{
    return gdb->vm->vcpus[gdb->general];
}
/* -1, 0 = any, n. False: no such thread. */
bool gdb_thread(const struct gdb *gdb, const char **text, int *thread);

/* ---- replies: into gdb->output ---- */
void gdb_error(struct gdb *gdb, unsigned number);
void gdb_ok(struct gdb *gdb);
void gdb_stop_reply(struct gdb *gdb);
/* Sends the reply, or a packet between command and reply. */
void gdb_send_reply(struct gdb *gdb);
/* Text for the client's user to read, in as many packets as it takes. */
void gdb_send_text(struct gdb *gdb, const char *text, size_t length);

/* ---- packets ---- */
/* Does what the packet asks for, and leaves the reply in gdb->output (unless gdb->silent).
 * `text` ends with a 0. */
void gdb_execute(struct gdb *gdb, const char *text, size_t length);

/* A command: `args` is what stands behind its name, followed by a 0. */
typedef void gdb_command(struct gdb *gdb, const char *args, size_t length);
gdb_command gdb_read_registers, gdb_write_registers, gdb_read_register, gdb_write_register;
gdb_command gdb_read_target, gdb_read_memory, gdb_write_memory, gdb_write_binary;
gdb_command gdb_insert_point, gdb_remove_point;
gdb_command gdb_set_thread, gdb_thread_alive, gdb_first_threads, gdb_more_threads, gdb_thread_name,
    gdb_current_thread;
gdb_command gdb_why, gdb_step, gdb_continue, gdb_step_signal, gdb_continue_signal, gdb_vcont,
    gdb_vcont_query, gdb_detach, gdb_kill, gdb_vkill;
gdb_command gdb_monitor;

/* ---- registers ---- */
/* Appends the registers that a stop reply brings along: RIP, RSP, RBP. */
void gdb_expedite(struct gdb *gdb, struct vcpu *cpu);

/* ---- the machine (gdb_run.c) ---- */
/* Takes the packets that have come, until the guest is to run. */
void gdb_take_packets(struct gdb *gdb);
/* One VM entry as gdb->resume says; gdb->running is false if its exit stops the machine. */
void gdb_enter(struct gdb *gdb);
/* All vCPUs that are not told otherwise do this. */
void gdb_resume_all(struct gdb *gdb, enum gdb_action action);
/* The client is gone, or has let go: no breakpoints, and the guest runs on if it ran or was told
 * to. */
void gdb_forget_client(struct gdb *gdb);

#endif
