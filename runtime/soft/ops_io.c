/* Port input and output, and the doorbell and break of patched guests. */
#include "runtime/soft/access.h"

const struct op_row ops_io[] = {{0, NULL}};
