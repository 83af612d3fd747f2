/* Segment registers, descriptor tables, far branches, INT, IRET, SYSCALL and SYSENTER. */
#include "runtime/soft/access.h"

const struct op_row ops_segment[] = {{0, NULL}};
