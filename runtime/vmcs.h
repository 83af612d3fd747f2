/* SPDX-License-Identifier: MIT */
/* The VM control structure and VM entry: how a program runs a vCPU, one entry and one exit at a time.
 *
 *     struct vmcs *vmcs = vmcs_create(vm->vcpus[0], &err);
 *     vmcs->single_step = true;
 *     while (vm_enter(vmcs) == VMCS_EXIT_STEP)
 *         …  vmcs->cpu->rip, vmcs->cpu->r[RAX], vmcs->delivered …
 *     vmcs_destroy(vmcs);
 *
 * The guest-state area is struct vcpu itself (registers, segments, control registers): between an exit and the next
 * entry it holds the guest's state and may be read freely. What the structure here keeps of the guest's state
 * (activity, interruptibility, pending debug exceptions) is loaded at each entry and saved at each exit, over what
 * stands in struct vcpu. Requirements S0 to S17 are met by this interface (docs/stepping.md).
 *
 * Guest time is the number of instructions, so a vCPU that is stepped sees the same time, and takes the same timer
 * interrupt behind the same instruction, as one that runs. Everything here belongs to one thread, the one that enters,
 * but for vmcs_interrupt. */
#ifndef RUNTIME_VMCS_H
#define RUNTIME_VMCS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/vcpu.h"
#include "runtime/vm.h"

/* Why vm_enter came back. */
enum vmcs_exit {
    /* The entry failed, nothing ran: a field has a value it cannot have (vmcs.invalid says which). */
    VMCS_EXIT_INVALID,
    VMCS_EXIT_STEP, /* S1, S3, S5, S6, S10, S14-S16: `delivered` tells if an event was delivered */
    VMCS_EXIT_EXCEPTION, /* S2, S4, S9, S12: vmcs.event, qualification; bit of exception_bitmap set */
    VMCS_EXIT_TRIPLE_FAULT, /* the vCPU is in shutdown; vmcs.event is the last fault */
    VMCS_EXIT_INTERRUPT,    /* external interrupt; vmcs.event.vector if acknowledge_interrupt */
    VMCS_EXIT_NMI,          /* the NMI is taken: inject it to pass it on */
    VMCS_EXIT_INIT,         /* taken; the guest's state is as before */
    VMCS_EXIT_SIPI,         /* taken; qualification = vector; only in activity wait-for-SIPI */
    VMCS_EXIT_SMI,          /* taken */
    /* an instruction whose control in vmcs.exiting is set; it has not been executed: RIP is at it, its length is in
     * instruction_length. To pass over it add that to RIP; to let the processor do it enter with the bit clear. */
    VMCS_EXIT_HLT,
    VMCS_EXIT_IO, /* vmcs.io */
    VMCS_EXIT_CPUID,
    VMCS_EXIT_RDMSR, /* the MSR is in RCX */
    VMCS_EXIT_WRMSR,
    VMCS_EXIT_CR,     /* qualification: number of the control register; CLTS and LMSW: 0 */
    VMCS_EXIT_DR,     /* qualification: number of the debug register */
    VMCS_EXIT_LISTED, /* WBINVD, INVD, XSETBV, RDPMC, VMCALL, VMMCALL */
    /* what a debugger asked for */
    VMCS_EXIT_BREAKPOINT, /* before the instruction at a breakpoint (vmcs_break); qualification = linear address */
    VMCS_EXIT_WATCHPOINT, /* behind the instruction that touched one (vmcs_watch): watch_linear, watch_kind */
    VMCS_EXIT_LIMIT,    /* vmcs.limit instructions are done */
    VMCS_EXIT_REQUEST,  /* vmcs_interrupt was called, or vm->poll said so; behind any instruction */
    VMCS_EXIT_SHUTDOWN, /* the machine has ended: vm->shutdown, vm->exit_code */
    VMCS_EXITS
};
extern const char *const vmcs_exit_names[VMCS_EXITS]; /* "single step", … */

/* An interrupt or exception, with the numbers that VMX gives the types (SDM 3C 24.8.3). */
enum vmcs_event_type {
    VMCS_EVENT_EXTERNAL = 0,
    VMCS_EVENT_NMI = 2,
    VMCS_EVENT_EXCEPTION = 3,          /* found by the processor */
    VMCS_EVENT_SOFTWARE = 4,           /* INT n */
    VMCS_EVENT_ICEBP = 5,              /* INT1 */
    VMCS_EVENT_SOFTWARE_EXCEPTION = 6, /* INT3, INTO */
};
struct vmcs_event {
    bool valid;
    bool has_error;
    uint8_t type; /* enum vmcs_event_type */
    uint8_t vector;
    uint32_t error; /* error code, if has_error */
};

/* vmcs.interruptibility */
#define VMCS_BLOCKED_STI   SHADOW_STI
#define VMCS_BLOCKED_MOVSS SHADOW_MOVSS
#define VMCS_BLOCKED_NMI   8u /* until IRET */

/* vmcs.exiting: instructions that exit. */
#define VMCS_HLT_EXITING    (1u << EXIT_KIND_HLT)
#define VMCS_IO_EXITING     (1u << EXIT_KIND_IO)
#define VMCS_CPUID_EXITING  (1u << EXIT_KIND_CPUID)
#define VMCS_MSR_EXITING    (1u << EXIT_KIND_MSR)
#define VMCS_CR_EXITING     (1u << EXIT_KIND_CR | 1u << EXIT_KIND_CR3) /* writes; CLTS, LMSW */
#define VMCS_CR3_EXITING    (1u << EXIT_KIND_CR3)
#define VMCS_DR_EXITING     (1u << EXIT_KIND_DR) /* reads and writes */
#define VMCS_LISTED_EXITING (1u << EXIT_KIND_OTHER_LISTED)

/* What system-management software sees of the processor (S13): saved when it gets control, loaded by RSM. It may change
 * anything. */
struct smm_save {
    uint64_t r[16], rip, rflags;
    uint64_t cr0, cr3, cr4, efer, dr6, dr7;
    enum activity activity; /* the processor is halted again behind RSM if this stays so */
    uint32_t interruptibility;
    uint64_t pending_debug;
};
enum smm_result {
    /* RSM: *save is loaded. A step exit that waited when the SMI came is indicated in vmcs.pending_step_exit; it is taken
     * before the next instruction if that is still set (S16), or if the software has set it (S15). */
    SMM_RESUME,
    /* The software has delivered the exit itself with smm_deliver_exit (S14): *save is loaded and vm_enter returns. */
    SMM_EXIT,
};
struct vmcs;
/* Designated system-management software: runs with the guest standing still; may use guest memory (vmcs_read …). */
typedef enum smm_result smm_handler(struct vmcs *vmcs, struct smm_save *save, void *context);

struct vmcs {
    struct vcpu *cpu; /* guest-state area. If you change it: vmcs_state_changed */

    /* ---- guest state kept here ---- */
    enum activity activity;    /* loaded at entry; saved at exit if save_activity (S11) */
    uint32_t interruptibility; /* VMCS_BLOCKED_*; loaded at entry, saved at exit */
    uint64_t pending_debug; /* DR6 bits of a #DB trap that waits; loaded at entry, saved at exit */

    /* ---- controls: set by the VMM, unchanged by entries and exits ---- */
    bool single_step;   /* the single-step indicator */
    bool save_activity; /* the save-activity-state indicator; true by default */
    /* an external interrupt exits once the guest lets it in (IF, shadows) */
    bool interrupt_exiting;
    /* … and is taken from the local APIC: vector in vmcs.event. Else it stays pending */
    bool acknowledge_interrupt;
    bool nmi_exiting;
    bool init_exiting, sipi_exiting, smi_exiting;
    /* bit n: vector n exits: faults, traps, INT3 (3), INTO (4), INT1 (1), #MC (18) */
    uint32_t exception_bitmap;
    uint32_t exiting; /* VMCS_*_EXITING */
    uint64_t limit;   /* instructions (as guest time counts) until VMCS_EXIT_LIMIT; 0 = none */
    bool one_block;   /* VMCS_EXIT_LIMIT behind a block of instructions, or an event, too */
    bool held;        /* vm_enter_any leaves this vCPU standing */

    /* ---- for one entry ---- */
    /* Delivered first (S6); the entry clears `valid`. Software types push RIP + entry_length. #PF: CR2 is yours to set
     * (cpu->cr2), #DB: DR6. */
    struct vmcs_event entry_event;
    uint8_t entry_length; /* instruction length for software types: 0 to 15 */
    /* The pending-step-exit indicator: behind the entry event, if there is one, the step exit is taken before anything is
     * executed. Set by the processor when an SMI gets in between (S13), by the VMM or by system-management software
     * (S15); cleared by every exit. */
    bool pending_step_exit;

    /* ---- designated software for SMIs, if smi_exiting is clear; NULL: SMIs do nothing ---- */
    smm_handler *smm;
    void *smm_context;

    /* ---- exit information ---- */
    enum vmcs_exit exit_reason;
    uint64_t qualification;  /* by reason; EXCEPTION: #PF the linear address, #DB the DR6 bits */
    struct vmcs_event event; /* EXCEPTION, TRIPLE_FAULT, INTERRUPT, NMI: what it is */
    struct vmcs_event vectoring; /* the event under delivery when the exit came (S4, S7) */
    struct vmcs_event
        delivered; /* what was delivered last during this entry (the handler's first instruction is next
                                    in a step) */
    uint8_t instruction_length; /* bytes; exits by an instruction, by INT3, INTO, INT1 */
    struct {
        uint16_t port;
        uint8_t width; /* 1, 2, 4 */
        bool in, string, repeated;
    } io;
    uint64_t watch_linear; /* the watched access, with reason WATCHPOINT or STEP … */
    uint8_t watch_kind;    /* … VMCS_WATCH_*: what the watchpoint looks for; 0 = none */
    const char *invalid;   /* INVALID: the field and what is wrong, one line */
    uint64_t steps;        /* exits with reason single step so far */

    /* ---- the runtime's own ---- */
    bool entered;                   /* between entry and exit: the controls are in force */
    bool step_due;                  /* the step's instruction or event is done */
    bool fresh;                     /* nothing has been executed since the entry */
    struct vmcs_event own_delivery; /* INT n and its kind, while it delivers itself */
    int64_t limit_left;
};

/* A control structure for this vCPU, in the state: no controls, save_activity set, guest state as the vCPU has it. It
 * becomes the vCPU's (vcpu.vmcs); one vCPU has at most one. NULL with *err set: no memory, or it has one. Release it
 * before the VM with vmcs_destroy (NULL is fine). */
struct vmcs *vmcs_create(struct vcpu *cpu, struct error *err);
void vmcs_destroy(struct vmcs *vmcs);

/* One entry, one exit. Runs this vCPU alone: the others stand still, devices and timers go on. In a halted state it
 * waits for a break event (S8): guest time goes on to the next timer, in real time or, in a deterministic VM, at once.
 * Returns vmcs->exit_reason. */
enum vmcs_exit vm_enter(struct vmcs *vmcs);

/* The same for the whole machine: all vCPUs take turns as they do when the machine runs, those that have a vmcs under its
 * controls (a step indicator gives one step of that vCPU), the held ones not at all. Comes back at the first exit of
 * any; returns whose it is: its exit_reason says why. NULL: no vCPU has a vmcs that is not held. A VM that is entered this
 * way with single_step set everywhere interleaves its vCPUs exactly as one that runs. */
struct vmcs *vm_enter_any(struct vm *vm);

/* After changing *vmcs->cpu (registers, RIP, segments, control registers, MSRs): recomputes what is derived and forgets
 * translations. General registers alone need no call. */
void vmcs_state_changed(struct vmcs *vmcs);

/* From any thread or a signal handler: the present entry, or the next one, exits with VMCS_EXIT_REQUEST. */
void vmcs_interrupt(struct vm *vm);

/* Asked by the entering thread at least every millisecond of running, and when vm->poll_fd (-1: none) becomes readable
 * while the machine waits: true = exit with VMCS_EXIT_REQUEST. NULL: no poll. */
void vmcs_poll(struct vm *vm, int fd, bool (*poll)(void *context), void *context);

/* ---- events from outside, between entries ---- */
void vmcs_raise_nmi(struct vmcs *vmcs);
void vmcs_raise_smi(struct vmcs *vmcs);
void vmcs_raise_init(struct vmcs *vmcs);
/* Delivered as #MC (CR4.MCE set), else the vCPU shuts down: VMCS_EXIT_TRIPLE_FAULT. */
void vmcs_raise_machine_check(struct vmcs *vmcs);
/* For system-management software: fills the exit information with a single-step exit (S14); return SMM_EXIT then. */
void smm_deliver_exit(struct vmcs *vmcs);

/* ---- guest memory ---- */
/* By guest-linear address, as the vCPU's paging maps it now, privileges and protection aside; page tables and caches
 * are left as they are, written code is seen. The number of bytes done: fewer than `length` where a page is not mapped or
 * not RAM. By guest-physical address: memory_read and memory_write (runtime/memory.h). */
size_t vmcs_read(struct vmcs *vmcs, uint64_t linear, void *to, size_t length);
size_t vmcs_write(struct vmcs *vmcs, uint64_t linear, const void *from, size_t length);

/* ---- breakpoints and watchpoints: of the VM, for every vCPU; the guest cannot see them ---- */
#define VMCS_WATCH_WRITE  1u
#define VMCS_WATCH_READ   2u
#define VMCS_WATCH_ACCESS (VMCS_WATCH_WRITE | VMCS_WATCH_READ)

/* An exit before the instruction at this guest-linear address, in any address space. The first instruction of an entry
 * does not meet it, nor does a single step. The guest runs at full speed otherwise. Setting one that is there, or
 * clearing one that is not, is no error. -1 with *err set: no room. Cheap, but what is decoded of the code
 * around is decoded anew: do not take away what you will set again before the next entry. */
int vmcs_break(struct vm *vm, uint64_t linear, struct error *err);
void vmcs_unbreak(struct vm *vm, uint64_t linear);
/* An exit behind an instruction that accesses [linear, linear + length) in one of the ways of `kind`. (A single step
 * exits as that, and the vmcs's watch_kind is set.) Descriptor tables and what events push count, page tables and what
 * devices access do not. -1 with *err set: too many, or length 0. */
int vmcs_watch(struct vm *vm, uint64_t linear, uint64_t length, unsigned kind, struct error *err);
void vmcs_unwatch(struct vm *vm, uint64_t linear, uint64_t length, unsigned kind);

#endif
