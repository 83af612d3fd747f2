/* SPDX-License-Identifier: MIT */
/* The pair of 8259A interrupt controllers (Intel 8259A data sheet, 231468): the second one's output is
 * the first one's IR2. ELCR registers at 0x4d0 choose level triggering by line. */
#include "runtime/device.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/interrupts.h"
#include "runtime/vm.h"

#define LINES    8
#define CASCADE  2 /* the master's input that the slave drives */
#define SPURIOUS 7 /* what an INTA cycle gives when the request has gone */

/* ICW1, ICW4, OCW2, OCW3 */
#define ICW1           0x10
#define ICW1_ICW4      0x01
#define ICW1_SINGLE    0x02
#define ICW1_LEVEL     0x08
#define ICW4_AUTO_EOI  0x02
#define ICW4_NESTED    0x10 /* special fully nested mode */
#define OCW3           0x08
#define OCW3_READ      0x02
#define OCW3_READ_ISR  0x01
#define OCW3_POLL      0x04
#define OCW3_MASK      0x40
#define OCW3_MASK_ON   0x20
#define POLL_INTERRUPT 0x80
#define MASTER_ELCR    0xf8 /* IRQ 0, 1, 2 are always edge-triggered */
#define SLAVE_ELCR     0xde /* and so are 8 and 13 */

/* OCW2, bits 7-5 */
enum {
    OCW2_ROTATE_AEOI_OFF,
    OCW2_EOI,
    OCW2_NOTHING,
    OCW2_EOI_LINE,
    OCW2_ROTATE_AEOI_ON,
    OCW2_ROTATE_EOI,
    OCW2_SET_PRIORITY,
    OCW2_ROTATE_EOI_LINE
};

struct chip {
    uint8_t lines;     /* levels of the inputs */
    uint8_t edges;     /* latched edges */
    uint8_t level;     /* inputs that are level-triggered (ELCR) */
    uint8_t elcr_mask; /* inputs that may be */
    uint8_t in_service, mask;
    uint8_t vector_base;
    uint8_t lowest;   /* the input of lowest priority */
    uint8_t next_icw; /* 2, 3, 4 while being initialised; 0 otherwise */
    bool want_icw4, single, all_level, auto_eoi, rotate_auto_eoi, nested;
    bool special_mask, read_isr, poll;
};

struct i8259 {
    struct vm *vm;
    struct chip master, slave;
    bool output; /* the INTR line */
};

/* ---- priorities ---- */

static uint8_t level_inputs(const struct chip *c)
{
    return c->all_level ? 0xff : c->level;
}

static uint8_t requests(const struct chip *c)
{
    uint8_t level = level_inputs(c);

    return (uint8_t)((c->edges & ~level) | (c->lines & level));
}

/* The input of highest priority in `set`, which is not empty. */
static unsigned highest(const struct chip *c, uint8_t set)
{
    for (unsigned i = 1; i <= LINES; i++)
        if (set & 1u << (c->lowest + i) % LINES)
            return (c->lowest + i) % LINES;
    return SPURIOUS;
}

static unsigned rank(const struct chip *c, unsigned input) /* 0 = highest priority */
{
    return (input + LINES - 1 - c->lowest) % LINES;
}

/* The input that asks for service and may have it, or -1. */
static int winner(const struct chip *c, bool is_master)
{
    uint8_t asking = requests(c) & (uint8_t)~c->mask, serving = c->in_service;

    if (!asking)
        return -1;
    /* Special mask mode: an interrupt in service holds back others only while it is not masked. */
    if (c->special_mask)
        serving &= (uint8_t)~c->mask;
    /* Special fully nested mode: the slave may interrupt its own service. */
    if (c->nested && is_master)
        serving &= (uint8_t) ~(1u << CASCADE);
    unsigned input = highest(c, asking);
    if (serving && rank(c, input) >= rank(c, highest(c, serving)))
        return -1;
    return (int)input;
}

/* Carries the slave's output to the master and the master's to the processor. */
static void update(struct i8259 *pic)
{
    bool slave = winner(&pic->slave, false) >= 0;

    /* The cascade input follows the slave, whatever its trigger mode. */
    pic->master.lines = (uint8_t)((pic->master.lines & ~(1u << CASCADE)) | slave << CASCADE);
    pic->master.edges = (uint8_t)((pic->master.edges & ~(1u << CASCADE)) | slave << CASCADE);

    bool output = winner(&pic->master, true) >= 0;
    if (output == pic->output)
        return;
    pic->output = output;
    lapic_extint(pic->vm, output);
    ioapic_set_line(pic->vm, IOAPIC_EXTINT_PIN, output);
}

/* ---- lines and acknowledge cycles ---- */

void i8259_set_line(struct vm *vm, unsigned line, bool level)
{
    struct i8259 *pic = vm->i8259;

    if (!pic || line >= 2 * LINES)
        return;
    struct chip *c = line < LINES ? &pic->master : &pic->slave;
    uint8_t bit = (uint8_t)(1u << line % LINES);
    /* An edge stays latched when the line falls again before the INTA cycle: the data sheet asks for the
     * line to be held, but what chipsets do, and guests want, is not to lose it. */
    if (level && !(c->lines & bit))
        c->edges |= bit;
    c->lines = level ? c->lines | bit : c->lines & (uint8_t)~bit;
    update(pic);
}

bool i8259_output(struct vm *vm)
{
    const struct i8259 *pic = vm->i8259;

    return pic && pic->output;
}

static void serve(struct chip *c, unsigned input)
{
    uint8_t bit = (uint8_t)(1u << input);

    c->edges &= (uint8_t)~bit;
    if (!c->auto_eoi)
        c->in_service |= bit;
    else if (c->rotate_auto_eoi)
        c->lowest = (uint8_t)input;
}

static void output_falls(struct i8259 *pic)
{
    if (!pic->output)
        return;
    pic->output = false;
    lapic_extint(pic->vm, false);
    ioapic_set_line(pic->vm, IOAPIC_EXTINT_PIN, false);
}

uint8_t i8259_acknowledge(struct vm *vm)
{
    struct i8259 *pic = vm->i8259;
    uint8_t vector;

    if (!pic)
        return SPURIOUS;
    int input = winner(&pic->master, true);
    if (input == CASCADE) {
        int second = winner(&pic->slave, false);
        serve(&pic->master, CASCADE);
        if (second >= 0)
            serve(&pic->slave, (unsigned)second);
        vector = (uint8_t)(pic->slave.vector_base + (second >= 0 ? second : SPURIOUS));
    } else {
        if (input >= 0)
            serve(&pic->master, (unsigned)input);
        vector = (uint8_t)(pic->master.vector_base + (input >= 0 ? input : SPURIOUS));
    }
    /* INTA takes the output down; another request raises it anew, which is an edge for those who listen. */
    output_falls(pic);
    update(pic);
    return vector;
}

/* ---- registers ---- */

static void initialise(struct chip *c, uint8_t icw1)
{
    c->edges = 0;
    c->in_service = 0;
    c->mask = 0;
    c->lowest = LINES - 1;
    c->special_mask = c->read_isr = c->poll = false;
    c->auto_eoi = c->rotate_auto_eoi = c->nested = false;
    c->all_level = icw1 & ICW1_LEVEL;
    c->single = icw1 & ICW1_SINGLE;
    c->want_icw4 = icw1 & ICW1_ICW4;
    c->next_icw = 2;
}

static void end_of_interrupt(struct chip *c, uint8_t ocw2)
{
    unsigned line = ocw2 & 7u, command = ocw2 >> 5;
    uint8_t serving = c->in_service;

    switch (command) {
    case OCW2_ROTATE_AEOI_OFF:
    case OCW2_ROTATE_AEOI_ON:
        c->rotate_auto_eoi = command == OCW2_ROTATE_AEOI_ON;
        break;
    case OCW2_EOI:
    case OCW2_ROTATE_EOI:
        /* Non-specific: what special mask mode has masked is not looked at. */
        if (c->special_mask)
            serving &= (uint8_t)~c->mask;
        if (!serving)
            break;
        line = highest(c, serving);
        c->in_service &= (uint8_t) ~(1u << line);
        if (command == OCW2_ROTATE_EOI)
            c->lowest = (uint8_t)line;
        break;
    case OCW2_EOI_LINE:
        c->in_service &= (uint8_t) ~(1u << line);
        break;
    case OCW2_ROTATE_EOI_LINE:
        c->in_service &= (uint8_t) ~(1u << line);
        c->lowest = (uint8_t)line;
        break;
    case OCW2_SET_PRIORITY:
        c->lowest = (uint8_t)line;
        break;
    case OCW2_NOTHING:
        break;
    }
}

static void write_command(struct chip *c, uint8_t value)
{
    if (value & ICW1) {
        initialise(c, value);
    } else if (value & OCW3) {
        if (value & OCW3_POLL)
            c->poll = true;
        if (value & OCW3_READ)
            c->read_isr = value & OCW3_READ_ISR;
        if (value & OCW3_MASK)
            c->special_mask = value & OCW3_MASK_ON;
    } else {
        end_of_interrupt(c, value);
    }
}

static void write_data(struct chip *c, uint8_t value)
{
    switch (c->next_icw) {
    case 0:
        c->mask = value;
        break;
    case 2:
        c->vector_base = value & 0xf8;
        c->next_icw = !c->single ? 3 : c->want_icw4 ? 4 : 0;
        break;
    case 3: /* how the two are wired is known */
        c->next_icw = c->want_icw4 ? 4 : 0;
        break;
    default:
        c->auto_eoi = value & ICW4_AUTO_EOI;
        c->nested = value & ICW4_NESTED;
        c->next_icw = 0;
        break;
    }
}

static void chip_write(struct i8259 *pic, struct chip *c, uint64_t offset, uint64_t value)
{
    if (offset)
        write_data(c, (uint8_t)value);
    else
        write_command(c, (uint8_t)value);
    update(pic);
}

/* The poll command makes the next read an acknowledge cycle. */
static uint8_t chip_poll(struct i8259 *pic, struct chip *c)
{
    int input = winner(c, c == &pic->master);

    c->poll = false;
    if (input < 0)
        return SPURIOUS;
    serve(c, (unsigned)input);
    output_falls(pic);
    update(pic);
    return (uint8_t)(POLL_INTERRUPT | (unsigned)input);
}

static uint64_t chip_read(struct i8259 *pic, struct chip *c, uint64_t offset)
{
    if (c->poll)
        return chip_poll(pic, c);
    if (offset)
        return c->mask;
    return c->read_isr ? c->in_service : requests(c);
}

static uint64_t master_read(void *device, uint64_t offset, unsigned width)
{
    struct i8259 *pic = device;

    (void)width;
    return chip_read(pic, &pic->master, offset);
}

static void master_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8259 *pic = device;

    (void)width;
    chip_write(pic, &pic->master, offset, value);
}

static uint64_t slave_read(void *device, uint64_t offset, unsigned width)
{
    struct i8259 *pic = device;

    (void)width;
    return chip_read(pic, &pic->slave, offset);
}

static void slave_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8259 *pic = device;

    (void)width;
    chip_write(pic, &pic->slave, offset, value);
}

bool i8259_mask(struct vm *vm, unsigned chip, uint8_t *mask)
{
    const struct i8259 *pic = vm->i8259;
    if (!pic)
        return false;
    const struct chip *c = chip ? &pic->slave : &pic->master;

    *mask = c->mask;
    return !c->poll && !c->next_icw;
}

static uint64_t elcr_read(void *device, uint64_t offset, unsigned width)
{
    const struct i8259 *pic = device;

    (void)width;
    return offset ? pic->slave.level : pic->master.level;
}

static void elcr_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct i8259 *pic = device;
    struct chip *c = offset ? &pic->slave : &pic->master;

    (void)width;
    c->level = (uint8_t)value & c->elcr_mask;
    update(pic);
}

/* ---- the device ---- */

static void i8259_reset(void *device)
{
    struct i8259 *pic = device;

    output_falls(pic);
    pic->master =
        (struct chip){.elcr_mask = MASTER_ELCR, .lowest = LINES - 1, .lines = pic->master.lines};
    pic->slave =
        (struct chip){.elcr_mask = SLAVE_ELCR, .lowest = LINES - 1, .lines = pic->slave.lines};
    /* As firmware leaves them: initialised, at the vectors of a PC's real mode, all but the cascade masked. */
    pic->master.vector_base = 0x08;
    pic->slave.vector_base = 0x70;
    pic->master.mask = (uint8_t) ~(1u << CASCADE);
    pic->slave.mask = 0xff;
    update(pic);
}

static void *i8259_create(struct vm *vm, struct error *err)
{
    struct i8259 *pic = calloc(1, sizeof(*pic));

    if (!pic) {
        fail(err, HVRUN_HOST, "i8259: out of memory");
        return NULL;
    }
    pic->vm = vm;
    const struct bus_window windows[] = {
        {"i8259", 0x20, 2, master_read, master_write, pic, .widest = 1},
        {"i8259", 0xa0, 2, slave_read, slave_write, pic, .widest = 1},
        {"i8259 ELCR", 0x4d0, 2, elcr_read, elcr_write, pic, .widest = 1},
    };
    for (size_t i = 0; i < sizeof(windows) / sizeof(*windows); i++) {
        if (bus_add_ports(&vm->bus, &windows[i], err)) {
            free(pic);
            return NULL;
        }
    }
    i8259_reset(pic);
    vm->i8259 = pic;
    return pic;
}

const struct device_type i8259_device = {
    .name = "i8259",
    .create = i8259_create,
    .reset = i8259_reset,
    .interrupt_chip = true,
};
