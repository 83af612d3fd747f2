/* x87, MMX, SSE and AVX instructions, executed by the host processor on the guest's state. */
#include "runtime/soft/access.h"

const struct op_row ops_fpu[] = {{0, NULL}};
