/* FXSAVE, XSAVE and their kind, XGETBV, XSETBV, LDMXCSR, FPU control. */
#include "runtime/soft/access.h"

const struct op_row ops_xstate[] = {{0, NULL}};
