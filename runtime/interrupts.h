/* SPDX-License-Identifier: MIT */
/* Interrupt wiring: ISA lines to the 8259 pair and the IO-APIC, messages between local APICs, and the
 * events that reach a vCPU.
 *
 *   device --irq_set--> i8259.c  --INTR line--> local APIC of vCPU 0 (LINT0) --+--> vcpu->events
 *                   \-> ioapic.c --message--> lapic.c ------------------------/
 */
#ifndef RUNTIME_INTERRUPTS_H
#define RUNTIME_INTERRUPTS_H

#include <stdbool.h>
#include <stdint.h>

struct vm;
struct vcpu;

#define IRQ_TIMER         0 /* IO-APIC pin 2, by the MADT's override */
#define IRQ_COM1          4
#define IRQ_RTC           8
#define IRQ_SCI           9
#define IOAPIC_PINS       24
#define IOAPIC_EXTINT_PIN 0 /* the 8259's output */
#define IOAPIC_TIMER_PIN  2
#define IOAPIC_BASE       0xfec00000ull
#define LAPIC_BASE        0xfee00000ull

/* The interrupt chips and the 8254 where an engine has them: then no device of this machine is one (engine.chips),
 * and the functions below lead here. The MSRs are those that a local APIC keeps, the values as there. */
struct interrupt_chips {
    void (*set_line)(struct vm *vm, unsigned line, bool level);
    int (*read_msr)(struct vcpu *vcpu, uint32_t msr, uint64_t *value);
    int (*write_msr)(struct vcpu *vcpu, uint32_t msr, uint64_t value);
    uint8_t (*get_tpr)(struct vcpu *vcpu);
    void (*set_tpr)(struct vcpu *vcpu, uint8_t cr8);
};

/* Level of an ISA line (0-15) or IO-APIC pin (16-23): drives both interrupt controllers. */
void irq_set(struct vm *vm, unsigned line, bool level);

/* ---- 8259 pair (devices/i8259.c) ---- */
void i8259_set_line(struct vm *vm, unsigned line, bool level);
bool i8259_output(struct vm *vm);         /* its INTR line */
uint8_t i8259_acknowledge(struct vm *vm); /* the INTA cycle: the vector (spurious: IRQ 7) */

/* True if reading the mask of chip 0 or 1 gives *mask and does nothing else, nor does writing it again. Not where the
 * chips are the engine's. */
bool i8259_mask(struct vm *vm, unsigned chip, uint8_t *mask);

/* ---- IO-APIC (devices/ioapic.c) ---- */
void ioapic_set_line(struct vm *vm, unsigned pin, bool level);
void ioapic_end_of_interrupt(struct vm *vm, uint8_t vector); /* broadcast by a local APIC's EOI */

/* ---- local APIC (devices/lapic.c), one per vCPU ---- */
enum apic_delivery { /* SDM 3A 11.5.1, the ICR's and redirection entries' field */
                     APIC_FIXED = 0,
                     APIC_LOWEST = 1,
                     APIC_SMI = 2,
                     APIC_NMI = 4,
                     APIC_INIT = 5,
                     APIC_SIPI = 6,
                     APIC_EXTINT = 7,
};

#define APIC_EVERYBODY                                                                             \
    UINT32_MAX /* a destination: all of them, in any mode (xAPIC writes it 0xff) */

/* Delivers an interrupt message to the destinations it names. `level` is the trigger mode (true: the
 * EOI goes to the IO-APIC). True if some APIC took it. */
bool apic_message(struct vm *vm, uint32_t destination, bool logical, enum apic_delivery delivery,
                  uint8_t vector, bool level);
/* LINT0 of vCPU 0's APIC follows the 8259's output: called by i8259.c when it changes. The other vCPUs'
 * LINT0 and all LINT1 are not connected. */
void lapic_extint(struct vm *vm, bool level);

/* True if an interrupt is waiting whose priority lets it in (IF and shadows are the processor's). Sets
 * or clears VCPU_EVENT_INTERRUPT to match; every change inside the APIC does so by itself. */
bool lapic_update(struct vcpu *vcpu);
/* Takes the interrupt: the vector; moves it to service, or does the 8259's INTA cycle. -1: none after all. */
int lapic_acknowledge(struct vcpu *vcpu);

uint8_t lapic_get_tpr(struct vcpu *vcpu); /* CR8: bits 7:4 of the TPR */
void lapic_set_tpr(struct vcpu *vcpu, uint8_t cr8);
uint32_t lapic_id(struct vcpu *vcpu); /* the present APIC id */
void lapic_init(struct vcpu *vcpu);   /* INIT: to power-on values but the id and IA32_APIC_BASE */

/* IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range 0x800-0x8ff. 0 done; 1 not an APIC MSR; -1 #GP. */
int lapic_read_msr(struct vcpu *vcpu, uint32_t msr, uint64_t *value);
int lapic_write_msr(struct vcpu *vcpu, uint32_t msr, uint64_t value);
/* Whether a write to IA32_TSC_DEADLINE is heeded. */
bool lapic_takes_deadlines(const struct vcpu *vcpu);

#endif
