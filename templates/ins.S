/* SPDX-License-Identifier: MIT */
/* INS: width, REP and address size are in the operand word; RDI, RCX and DF are the guest's own. */
#include "templates/template.inc"

DOORBELL_TEMPLATES ins, ins, "insb", "insw", "insd"
