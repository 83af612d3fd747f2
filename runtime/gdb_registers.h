/* SPDX-License-Identifier: MIT */
/* The registers as gdb numbers them: one table, from which packets and the target description
 * are made. */
#ifndef RUNTIME_GDB_REGISTERS_H
#define RUNTIME_GDB_REGISTERS_H

#include "runtime/vcpu.h"

enum gdb_register_kind {
    GDB_GENERAL,
    GDB_RIP,
    GDB_RFLAGS,
    GDB_SELECTOR,
    GDB_ST,
    GDB_X87, /* control, status, tag, … by index */
    GDB_XMM,
    GDB_MXCSR,
    GDB_YMM_HIGH,
    GDB_BASE, /* of FS, GS */
    GDB_KERNEL_GS,
    GDB_CONTROL,
    GDB_EFER,
};

struct gdb_register {
    const char *name;
    const char *type;  /* gdb's */
    const char *group; /* NULL: as gdb thinks */
    uint16_t bits;
    uint8_t kind, index;
};

/* A run of registers that gdb knows by the name of a feature. */
struct gdb_feature {
    const char *name;
    const char *types; /* XML that its registers' types need, beside flags */
    const struct gdb_register *registers;
    unsigned count;
};
/* The features of this processor, the first `gdb_features()` rows; their registers are numbered
 * in this order. */
#define GDB_FEATURES_MAX 5
unsigned gdb_features(const struct gdb_feature *features[GDB_FEATURES_MAX]);
/* Register number n, or NULL. */
const struct gdb_register *gdb_register(unsigned number);

#define GDB_REGISTER_MAX 16 /* bytes */

#endif
