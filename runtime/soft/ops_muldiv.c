/* Multiplication and division; XADD and the compare-and-exchange family. */
#include "runtime/soft/access.h"

const struct op_row ops_muldiv[] = {{0, NULL}};
