/* SPDX-License-Identifier: MIT */
/* The local APIC from inside: what its three files share. Everybody else uses interrupts.h.
 *
 *   lapic.c            priorities, messages, what reaches the processor
 *   lapic_registers.c  the memory window, the MSRs, IA32_APIC_BASE
 *   lapic_timer.c      the timer
 *
 * Chapter and section numbers of SDM 3A are those of chapter 11, "Advanced Programmable Interrupt
 * Controller (APIC)". */
#ifndef RUNTIME_DEVICES_LAPIC_H
#define RUNTIME_DEVICES_LAPIC_H

#include "runtime/clock.h"
#include "runtime/interrupts.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

/* IA32_APIC_BASE */
#define APIC_BASE_BSP     0x100ull
#define APIC_BASE_X2APIC  0x400ull
#define APIC_BASE_ENABLED 0x800ull

/* The local vector table, in register order */
enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVTS };
#define LVT_VECTOR(v)     ((uint8_t)(v))
#define LVT_DELIVERY(v)   ((enum apic_delivery)((v) >> 8 & 7))
#define LVT_REMOTE_IRR    0x4000u /* read-only, LINT0 and LINT1 */
#define LVT_LEVEL         0x8000u
#define LVT_MASKED        0x10000u
#define LVT_TIMER_MODE(v) ((v) >> 17 & 3)
enum { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE };

#define SVR_ENABLED          0x100u
#define SVR_NO_EOI_BROADCAST 0x1000u

#define ESR_SEND_ILLEGAL     0x20u
#define ESR_RECEIVE_ILLEGAL  0x40u
#define ESR_ILLEGAL_REGISTER 0x80u

/* A set of vectors, bit n of word n / 64. */
struct vectors {
    uint64_t bits[4];
};

struct lapic {
    struct vcpu *cpu;
    struct vm *vm;
    struct lapic_windows *windows;
    uint64_t base; /* IA32_APIC_BASE */

    uint32_t id; /* x2APIC: 32 bits; xAPIC: 8, which the guest may change */
    uint32_t tpr, svr;
    uint32_t ldr; /* xAPIC: bits 31-24 */
    uint32_t dfr;
    uint32_t esr, errors; /* what the guest reads; what happened since it last wrote ESR */
    uint32_t icr, icr_destination;
    uint32_t lvt[LVTS];
    struct vectors irr, isr, tmr;

    bool lint0;  /* the 8259's output, where it is connected */
    bool extint; /* an ExtINT message came in: the vector is to be had from the 8259 */

    /* The timer counts down to `expiry`; while it does not run the count is 0. */
    bool timer_runs;
    uint64_t expiry; /* guest time in ns */
    uint32_t initial_count, divide;
    uint64_t tsc_deadline; /* 0 = none */
    struct timer timer;
};

static inline bool lapic_enabled(const struct lapic *l)
{
    return l->base & APIC_BASE_ENABLED;
}

static inline bool lapic_x2apic(const struct lapic *l)
{
    return l->base & APIC_BASE_X2APIC;
}

static inline bool vectors_has(const struct vectors *v, uint8_t vector)
{
    return v->bits[vector / 64] >> vector % 64 & 1;
}

/* Who has it if it is none of these; or NULL. */
static inline const struct interrupt_chips *lapic_elsewhere(const struct vcpu *vcpu)
{
    return vcpu->vm && vcpu->vm->engine ? vcpu->vm->engine->chips : NULL;
}

/* ---- lapic.c ---- */

/* All registers to the state after power-up or reset (SDM 3A 11.4.7.1), but for id and base. */
void lapic_registers_reset(struct lapic *l);
uint8_t lapic_processor_priority(const struct lapic *l);
void lapic_end_of_interrupt(struct lapic *l);
/* Notes the error and raises the error interrupt. */
void lapic_error(struct lapic *l, uint32_t error);
/* Makes what a local source asks for, by its LVT entry, happen. */
void lapic_local_interrupt(struct lapic *l, enum lapic_lvt source);
/* Sends the interrupt that the ICR describes. */
#define ICR_SELF 0x40000u /* the shorthand */
void lapic_send(struct lapic *l, uint32_t icr, uint32_t destination);
/* Looks at LINT0 anew, after its LVT entry changed. */
void lapic_lint0_changed(struct lapic *l);

/* ---- lapic_timer.c ---- */

void lapic_timer_create(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
uint32_t lapic_timer_count(struct lapic *l);
void lapic_timer_start(struct lapic *l, uint32_t initial_count);
void lapic_timer_set_divide(struct lapic *l, uint32_t divide);
void lapic_timer_set_lvt(struct lapic *l, uint32_t value);
uint64_t lapic_timer_deadline(struct lapic *l);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);

/* ---- lapic_registers.c ---- */

/* Registers the memory window. The caller frees it, after the bus. NULL with *err set. */
struct lapic_windows *lapic_windows_create(struct vm *vm, struct error *err);

#endif
