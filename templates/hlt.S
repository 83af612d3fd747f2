/* SPDX-License-Identifier: MIT */
/* HLT: the host halts the processor; an interrupt finds RIP behind the doorbell, which is as good as behind
 * HLT: nothing but the guest's RAX is restored there. */
#include "templates/template.inc"

DOORBELL_TEMPLATES hlt, hlt, "hlt"
