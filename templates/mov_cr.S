/* SPDX-License-Identifier: MIT */
/* MOV to and from control registers: the numbers of both registers are in the operand word.
 * Linux' entry code has no other register to spare than RSP when it looks at CR3. */
#include "templates/template.inc"

DOORBELL_TEMPLATES mov_to_cr, mov_to_cr, "mov cr, r64"
DOORBELL_TEMPLATES mov_from_cr, mov_from_cr, "mov r64!rsp, cr"
BARE_RSP_TEMPLATE mov_from_cr, mov_from_cr, "mov rsp, cr"
