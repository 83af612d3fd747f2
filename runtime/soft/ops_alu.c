/* Integer arithmetic and logic: ADD to CMP, INC, DEC, NEG, NOT, TEST. */
#include "runtime/soft/access.h"

const struct op_row ops_alu[] = {{0, NULL}};
