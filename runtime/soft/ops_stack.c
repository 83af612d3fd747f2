/* PUSH, POP, ENTER, LEAVE, PUSHF, POPF, LAHF, SAHF and the flag bits. */
#include "runtime/soft/access.h"

const struct op_row ops_stack[] = {{0, NULL}};
