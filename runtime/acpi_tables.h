/* SPDX-License-Identifier: MIT */
/* The ACPI tables: processors, interrupt controllers, power-off, reset, COM1 and clock (ACPI 6.4). */
#ifndef RUNTIME_ACPI_TABLES_H
#define RUNTIME_ACPI_TABLES_H

#include <stdint.h>

#define ACPI_TABLES_START 0xe0000ull /* guest-physical, where the RSDP is looked for (5.2.5.1) */
#define ACPI_TABLES_END   0x100000ull

struct vm;

/* Writes all tables for vm->vcpu_count processors; returns the RSDP's guest-physical address. RAM must reach
 * ACPI_TABLES_END. */
uint64_t acpi_tables_write(struct vm *vm);

#endif
