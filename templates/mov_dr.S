/* SPDX-License-Identifier: MIT */
/* MOV to and from debug registers: as for control registers. */
#include "templates/template.inc"

DOORBELL_TEMPLATES mov_to_dr, mov_to_dr, "mov dr, r64"
DOORBELL_TEMPLATES mov_from_dr, mov_from_dr, "mov r64!rsp, dr"
BARE_RSP_TEMPLATE mov_from_dr, mov_from_dr, "mov rsp, dr"
