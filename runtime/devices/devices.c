/* SPDX-License-Identifier: MIT */
/* The machine's devices, in the order in which they are created: interrupt controllers first, since
 * the others drive their lines; then the clocks; then the rest. A new device is a file and a row. */
#include "runtime/device.h"

#include <stddef.h>

extern const struct device_type i8259_device, ioapic_device, lapic_device, i8254_device,
    uart16550_device, mc146818_device, i8042_device, debug_console_device, debug_exit_device,
    acpi_pm_device, fw_cfg_device, misc_ports_device, testdev_device;

const struct device_type *const device_types[] = {
    &i8259_device,      &ioapic_device,
    &lapic_device,      &i8254_device,
    &uart16550_device,  &mc146818_device,
    &i8042_device,      &debug_console_device,
    &debug_exit_device, &acpi_pm_device,
    &fw_cfg_device,     &misc_ports_device,
    &testdev_device,    NULL,
};
