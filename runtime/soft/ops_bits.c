/* Shifts, rotates, bit tests and counts, BMI. */
#include "runtime/soft/access.h"

const struct op_row ops_bits[] = {{0, NULL}};
