/* String instructions and their REP forms. */
#include "runtime/soft/access.h"

const struct op_row ops_string[] = {{0, NULL}};
