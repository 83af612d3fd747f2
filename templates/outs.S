/* SPDX-License-Identifier: MIT */
/* OUTS: width, REP, address size and segment are in the operand word; RSI, RCX and DF are the
 * guest's own. */
#include "templates/template.inc"

DOORBELL_TEMPLATES outs, outs, "outsb", "outsw", "outsd"
