/* Moves that touch no flag: MOV, MOVZX, MOVSX, LEA, CMOVcc, SETcc, XCHG, BSWAP, CBW and its kind. */
#include "runtime/soft/access.h"

const struct op_row ops_move[] = {{0, NULL}};
