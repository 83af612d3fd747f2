/* SPDX-License-Identifier: MIT */
/* What a PC's firmware leaves behind for a kernel that multiboot starts and that goes back to real mode: interrupt
 * vectors that lead to handlers, and a timer that ticks 18.2 times a second through the 8259. */
#ifndef RUNTIME_BIOS_REMAINS_H
#define RUNTIME_BIOS_REMAINS_H

struct vm;

/* Fills the real-mode interrupt table and the handlers in the firmware's segment, starts the 8254 and lets its interrupt
 * through the 8259. */
void bios_remains(struct vm *vm);

#endif
