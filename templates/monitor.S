/* SPDX-License-Identifier: MIT */
/* MONITOR and MWAIT. MONITOR's address is the pushed RAX; address size and segment are in the operand
 * word. */
#include "templates/template.inc"

DOORBELL_TEMPLATES monitor, monitor, "monitor"
DOORBELL_TEMPLATES mwait, mwait, "mwait"
