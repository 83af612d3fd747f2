/* SPDX-License-Identifier: MIT */
/* Where the ACPI power management registers are: for the device, and for the FADT and DSDT that describe
 * it. There is no SMM, so ACPI is always on and SMI_CMD is 0. The SCI is IRQ_SCI, level-triggered, active high.
 * The FADT's boot architecture flags should deny an 8042 (flag 8042 clear), so that no guest waits for a
 * keyboard, and a VGA; the PM timer has 24 bits (TMR_VAL_EXT clear). */
#ifndef RUNTIME_DEVICES_ACPI_PM_H
#define RUNTIME_DEVICES_ACPI_PM_H

#define ACPI_SMI_COMMAND         0
#define ACPI_PM1A_EVENT          0x600 /* PM1a_EVT_BLK */
#define ACPI_PM1A_EVENT_LENGTH   4     /* ports */
#define ACPI_PM1A_CONTROL        0x604 /* PM1a_CNT_BLK */
#define ACPI_PM1A_CONTROL_LENGTH 2
#define ACPI_PM_TIMER            0x608 /* PM_TMR_BLK */
#define ACPI_PM_TIMER_LENGTH     4
#define ACPI_PM_TIMER_HZ         3579545u /* it counts from guest time 0 on */
#define ACPI_SLP_TYP_S5          5        /* _S5: SLP_TYPa */
#define ACPI_RESET_PORT          0xcf9    /* RESET_REG */
#define ACPI_RESET_VALUE         0x06     /* RESET_VALUE */

#endif
