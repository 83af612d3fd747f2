/* SPDX-License-Identifier: MIT */
/* Every instruction that lists/deprivileged.list names, in every shape, and its model. */
#ifndef TESTS_UNIT_DEPRIVILEGED_ROWS_H
#define TESTS_UNIT_DEPRIVILEGED_ROWS_H

#include "tests/unit/deprivileged_model.h"
#include "tests/unit/instruction_shapes.h"

struct instruction_row {
    const char *name;
    struct instruction_shape shape;
    model *model; /* of templates that answer in the guest; NULL: there must be none */
};

extern const struct instruction_row instruction_rows[];
extern const size_t instruction_row_count;

#endif
