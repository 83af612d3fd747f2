/* SPDX-License-Identifier: MIT */
/* Interrupt lines: who hears an ISA line. */
#include "runtime/interrupts.h"

#include "runtime/vm.h"

#define ISA_LINES   16
#define ISA_CASCADE 2 /* taken by the second 8259: no device has it */

void irq_set(struct vm *vm, unsigned line, bool level)
{
    if (vm->engine && vm->engine->chips) {
        vm->engine->chips->set_line(vm, line, level);
        return;
    }
    if (line < ISA_LINES && line != ISA_CASCADE)
        i8259_set_line(vm, line, level);
    if (line == IRQ_TIMER)
        ioapic_set_line(vm, IOAPIC_TIMER_PIN, level);
    else if (line != ISA_CASCADE)
        ioapic_set_line(vm, line, level);
}
