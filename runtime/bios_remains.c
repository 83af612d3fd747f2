/* SPDX-License-Identifier: MIT */
/* What a PC's firmware leaves behind. */
#include "runtime/bios_remains.h"

#include "runtime/bus.h"
#include "runtime/vm.h"

#define SEGMENT     0xf000u
#define IGNORE      0xff00u /* offsets in the segment */
#define END_MASTER  0xff10u
#define END_SLAVE   0xff20u
#define VECTORS     256u
#define MASTER_BASE 0x08u
#define SLAVE_BASE  0x70u

static void put_code(struct vm *vm, uint16_t offset, const uint8_t *code, unsigned size)
{
    memory_write(&vm->memory, (SEGMENT << 4) + offset, code, size);
}

void bios_remains(struct vm *vm)
{
    static const uint8_t ignore[] = {0xcf}; /* iret */
    static const uint8_t end_master[] = {0x50, 0xb0, 0x20, 0xe6,
                                         0x20, 0x58, 0xcf}; /* push ax; EOI; pop ax; iret */
    static const uint8_t end_slave[] = {0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf};
    put_code(vm, IGNORE, ignore, sizeof ignore);
    put_code(vm, END_MASTER, end_master, sizeof end_master);
    put_code(vm, END_SLAVE, end_slave, sizeof end_slave);
    for (uint32_t vector = 0; vector < VECTORS; vector++) {
        uint32_t offset = IGNORE;
        if (vector - MASTER_BASE < 8)
            offset = END_MASTER;
        else if (vector - SLAVE_BASE < 8)
            offset = END_SLAVE;
        uint32_t pointer = SEGMENT << 16 | offset;
        memory_write(&vm->memory, 4 * vector, &pointer, sizeof pointer);
    }
    bus_out(&vm->bus, 0x43, 1, 0x34); /* channel 0: mode 2, count 65536 */
    bus_out(&vm->bus, 0x40, 1, 0);
    bus_out(&vm->bus, 0x40, 1, 0);
    bus_out(&vm->bus, 0x21, 1, 0xfa); /* the timer and the second 8259 */
}
