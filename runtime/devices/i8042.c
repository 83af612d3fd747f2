/* SPDX-License-Identifier: MIT */
/* The 8042 keyboard controller with nothing plugged in: it answers all commands at once, has a keyboard port
 * and no auxiliary port, and can pull the processor's reset line. Devices never answer, so what a guest
 * sends them is lost. (IBM PS/2 Hardware Interface Technical Reference, keyboard and auxiliary device
 * controller.) */
#include <stdlib.h>

#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define DATA    0x60
#define COMMAND 0x64 /* read: status */

#define IRQ_KEYBOARD 1

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM      0x04
#define STATUS_COMMAND     0x08 /* the last write went to the command port */
#define STATUS_UNLOCKED    0x10

#define CONFIG_KEYBOARD_IRQ 0x01
#define CONFIG_SYSTEM       0x04
#define CONFIG_KEYBOARD_OFF 0x10
#define CONFIG_AUX_OFF      0x20
#define CONFIG_TRANSLATE    0x40

#define OUTPUT_RUNNING 0x01 /* the processor's reset line, high */
#define OUTPUT_A20     0x02
#define INPUT_UNLOCKED 0x80

#define SELF_TEST_PASSED 0x55
#define KEYBOARD_TESTED  0x00
#define AUX_CLOCK_LOW    0x01 /* the auxiliary port's test fails: there is none */

enum command {
    READ_RAM = 0x20, /* to 0x3f; byte 0 is the configuration */
    WRITE_RAM = 0x60,
    DISABLE_AUX = 0xa7,
    ENABLE_AUX,
    TEST_AUX,
    SELF_TEST,
    TEST_KEYBOARD,
    DISABLE_KEYBOARD = 0xad,
    ENABLE_KEYBOARD,
    READ_INPUT = 0xc0,
    READ_OUTPUT = 0xd0,
    WRITE_OUTPUT,
    WRITE_KEYBOARD_BUFFER,
    WRITE_AUX_BUFFER,
    WRITE_AUX,
    PULSE = 0xf0, /* to 0xff: the output lines whose bits are 0 */
};

struct i8042 {
    struct vm *vm;
    uint8_t ram[32]; /* [0]: CONFIG_* */
    uint8_t output_port;
    uint8_t data; /* output buffer, if full */
    uint8_t
        pending; /* the command whose parameter is the next byte written to the data port; 0 = none */
    bool full, last_was_command;
    bool level; /* of the interrupt line */
};

static void update_line(struct i8042 *k)
{
    bool level = k->full && k->ram[0] & CONFIG_KEYBOARD_IRQ;
    if (level != k->level) {
        k->level = level;
        irq_set(k->vm, IRQ_KEYBOARD, level);
    }
}

static void answer(struct i8042 *k, uint8_t byte)
{
    k->data = byte;
    k->full = true;
}

static void write_output_port(struct i8042 *k, uint8_t value)
{
    k->output_port = value;
    if (!(value & OUTPUT_RUNNING))
        vm_reset_requested(k->vm);
}

static void command(struct i8042 *k, uint8_t value)
{
    k->pending = 0;
    if (value >= PULSE) {
        if (!(value & OUTPUT_RUNNING))
            vm_reset_requested(k->vm);
        return;
    }
    if ((value & 0xe0) == READ_RAM) {
        answer(k, k->ram[value & 0x1f]);
        return;
    }
    switch (value) {
    case DISABLE_AUX:
        k->ram[0] |= CONFIG_AUX_OFF;
        break;
    case ENABLE_AUX:
        k->ram[0] &= (uint8_t)~CONFIG_AUX_OFF;
        break;
    case TEST_AUX:
        answer(k, AUX_CLOCK_LOW);
        break;
    case SELF_TEST:
        answer(k, SELF_TEST_PASSED);
        break;
    case TEST_KEYBOARD:
        answer(k, KEYBOARD_TESTED);
        break;
    case DISABLE_KEYBOARD:
        k->ram[0] |= CONFIG_KEYBOARD_OFF;
        break;
    case ENABLE_KEYBOARD:
        k->ram[0] &= (uint8_t)~CONFIG_KEYBOARD_OFF;
        break;
    case READ_INPUT:
        answer(k, INPUT_UNLOCKED);
        break;
    case READ_OUTPUT:
        answer(k, k->output_port);
        break;
    default: /* takes a parameter, or is unknown */
        k->pending = value;
        break;
    }
}

static void parameter(struct i8042 *k, uint8_t value)
{
    uint8_t pending = k->pending;
    k->pending = 0;
    if ((pending & 0xe0) == WRITE_RAM)
        k->ram[pending & 0x1f] = value;
    else if (pending == WRITE_OUTPUT)
        write_output_port(k, value);
    else if (pending == WRITE_KEYBOARD_BUFFER || pending == WRITE_AUX_BUFFER)
        answer(k, value); /* without the auxiliary flag: that port is not there */
}

static uint64_t data_read(void *device, uint64_t offset, unsigned width)
{
    struct i8042 *k = device;
    (void)offset;
    (void)width;
    k->full = false;
    update_line(k);
    return k->data;
}

static void data_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8042 *k = device;
    (void)offset;
    (void)width;
    k->last_was_command = false;
    parameter(k, (uint8_t)value);
    update_line(k);
}

static uint64_t status_read(void *device, uint64_t offset, unsigned width)
{
    const struct i8042 *k = device;
    (void)offset;
    (void)width;
    return (k->full ? STATUS_OUTPUT_FULL : 0) | (k->ram[0] & CONFIG_SYSTEM ? STATUS_SYSTEM : 0) |
           (k->last_was_command ? STATUS_COMMAND : 0) | STATUS_UNLOCKED;
}

static void command_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8042 *k = device;
    (void)offset;
    (void)width;
    k->last_was_command = true;
    command(k, (uint8_t)value);
    update_line(k);
}

static void i8042_reset(void *device)
{
    struct i8042 *k = device;
    struct vm *vm = k->vm;
    if (k->level)
        irq_set(vm, IRQ_KEYBOARD, false);
    *k = (struct i8042){
        .vm = vm,
        /* as firmware leaves it */
        .ram = {CONFIG_KEYBOARD_IRQ | CONFIG_SYSTEM | CONFIG_AUX_OFF | CONFIG_TRANSLATE},
        .output_port = OUTPUT_RUNNING | OUTPUT_A20,
    };
}

static void *i8042_create(struct vm *vm, struct error *err)
{
    struct i8042 *k = calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->vm = vm;
    i8042_reset(k);
    const struct bus_window data = {"i8042", DATA, 1, data_read, data_write, k, 0};
    const struct bus_window commands = {"i8042", COMMAND, 1, status_read, command_write, k, 0};
    if (bus_add_ports(&vm->bus, &data, err) || bus_add_ports(&vm->bus, &commands, err)) {
        free(k);
        return NULL;
    }
    vm->i8042 = k;
    return k;
}

const struct device_type i8042_device = {
    .name = "i8042", .create = i8042_create, .reset = i8042_reset};
