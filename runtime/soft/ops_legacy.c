/* Instructions that only 16- and 32-bit code has: BCD, BOUND, PUSHA, POPA, ARPL, LDS and LES. */
#include "runtime/soft/access.h"

const struct op_row ops_legacy[] = {{0, NULL}};
