/* System instructions: control and debug registers, MSRs, CPUID, TLB and cache control, HLT. */
#include "runtime/soft/access.h"

const struct op_row ops_system[] = {{0, NULL}};
