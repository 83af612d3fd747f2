/* SPDX-License-Identifier: MIT */
/* QEMU's firmware configuration device, the part that guests ask for: a 16-bit selector at port 0x510, then
 * the item's bytes one at a time from port 0x511. Beyond an item, and for items that are not there,
 * it reads zero. There are no files and no DMA. */
#include <stdlib.h>
#include <string.h>

#include "runtime/vm.h"

#define PORT  0x510 /* the selector is written here */
#define PORTS 2
#define DATA  1 /* offset of the data register */

enum key {
    KEY_SIGNATURE = 0x00,
    KEY_ID = 0x01,
    KEY_RAM_SIZE = 0x03,
    KEY_CPUS = 0x05,
    KEY_MAX_CPUS = 0x0f,
    KEY_FILE_DIRECTORY = 0x19, /* a big-endian count, here 0 */
};
#define ID_TRADITIONAL 1 /* the selector and data ports, and nothing more */

struct item {
    uint16_t key;
    uint8_t size; /* bytes */
    uint8_t bytes[8];
};

struct fw_cfg {
    struct item items[6];
    const struct item *selected; /* NULL = not there */
    unsigned position;
};

static uint64_t fw_cfg_read(void *device, uint64_t offset, unsigned width)
{
    struct fw_cfg *f = device;
    (void)width;
    if (offset != DATA || !f->selected || f->position >= f->selected->size)
        return 0;
    return f->selected->bytes[f->position++];
}

static void fw_cfg_write(void *device, uint64_t offset, unsigned width, uint64_t value)
{
    struct fw_cfg *f = device;
    if (offset || width != 2)
        return;
    f->position = 0;
    f->selected = NULL;
    for (size_t i = 0; i < sizeof f->items / sizeof *f->items; i++)
        if (f->items[i].key == value)
            f->selected = &f->items[i];
}

static struct item number(enum key key, uint8_t size, uint64_t value)
{
    struct item item = {.key = (uint16_t)key, .size = size};
    memcpy(item.bytes, &value, sizeof value);
    return item;
}

static void fw_cfg_reset(void *device)
{
    struct fw_cfg *f = device;
    f->selected = NULL;
    f->position = 0;
}

static void *fw_cfg_create(struct vm *vm, struct error *err)
{
    struct fw_cfg *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->items[0] = (struct item){KEY_SIGNATURE, 4, "QEMU"};
    f->items[1] = number(KEY_ID, 4, ID_TRADITIONAL);
    f->items[2] = number(KEY_RAM_SIZE, 8, vm->memory.size);
    f->items[3] = number(KEY_CPUS, 2, vm->config.smp);
    f->items[4] = number(KEY_MAX_CPUS, 2, vm->config.smp);
    f->items[5] = number(KEY_FILE_DIRECTORY, 4, 0);
    const struct bus_window window = {.name = "fw_cfg",
                                      .first = PORT,
                                      .count = PORTS,
                                      .read = fw_cfg_read,
                                      .write = fw_cfg_write,
                                      .device = f};
    if (bus_add_ports(&vm->bus, &window, err)) {
        free(f);
        return NULL;
    }
    return f;
}

const struct device_type fw_cfg_device = {
    .name = "fw_cfg", .create = fw_cfg_create, .reset = fw_cfg_reset};
