/* MOV to and from control registers: the numbers of both registers are in the operand word.
 * A new RSP could not be popped past: MOV from a control register to RSP has no doorbell. */
#include "templates/template.inc"

DOORBELL_TEMPLATES mov_to_cr, mov_to_cr, "mov cr, r64"
DOORBELL_TEMPLATES mov_from_cr, mov_from_cr, "mov r64!rsp, cr"
