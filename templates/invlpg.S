/* SPDX-License-Identifier: MIT */
/* INVLPG: an address in one register is named in the operand word; any other is computed here, as the
 * host must not decode the instruction (D10). */
#include "templates/template.inc"

DOORBELL_TEMPLATES invlpg, invlpg, "invlpg mreg"
DOORBELL_MEMORY_TEMPLATES invlpg, invlpg, "invlpg mlea"
