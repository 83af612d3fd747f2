/* SPDX-License-Identifier: MIT */
/* XSETBV: ECX, EDX are the guest's own, EAX is the pushed RAX. */
#include "templates/template.inc"

DOORBELL_TEMPLATES xsetbv, xsetbv, "xsetbv"
