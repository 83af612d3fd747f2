/* Near branches: JMP, Jcc, CALL, RET, LOOP, JRCXZ. */
#include "runtime/soft/access.h"

const struct op_row ops_branch[] = {{0, NULL}};
