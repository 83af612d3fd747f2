/* SPDX-License-Identifier: MIT */
/* CLTS and LMSW: parts of CR0. */
#include "templates/template.inc"

DOORBELL_TEMPLATES clts, clts, "clts"
DOORBELL_TEMPLATES lmsw, lmsw, "lmsw r16", "lmsw mreg"
DOORBELL_MEMORY_TEMPLATES lmsw, lmsw, "lmsw mlea"
