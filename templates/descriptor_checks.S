/* SPDX-License-Identifier: MIT */
/* LAR, LSL, VERR, VERW: they look into the guest's descriptor tables, so the host answers: in the destination
 * register and in ZF. */
#include "templates/template.inc"

DOORBELL_TEMPLATES lar, lar, "lar r!rsp, r", "lar r!rsp, mreg"
DOORBELL_MEMORY_TEMPLATES lar, lar, "lar r!rsp, mlea"
BARE_RSP_TEMPLATE lar, lar, "lar sp, r", "lar sp, mreg", "lar esp, r", "lar esp, mreg", "lar rsp, r", "lar rsp, mreg"
BARE_RSP_MEMORY_TEMPLATE lar, lar, "lar sp, mlea", "lar esp, mlea", "lar rsp, mlea"
DOORBELL_TEMPLATES lsl, lsl, "lsl r!rsp, r", "lsl r!rsp, mreg"
DOORBELL_MEMORY_TEMPLATES lsl, lsl, "lsl r!rsp, mlea"
BARE_RSP_TEMPLATE lsl, lsl, "lsl sp, r", "lsl sp, mreg", "lsl esp, r", "lsl esp, mreg", "lsl rsp, r", "lsl rsp, mreg"
BARE_RSP_MEMORY_TEMPLATE lsl, lsl, "lsl sp, mlea", "lsl esp, mlea", "lsl rsp, mlea"
DOORBELL_TEMPLATES verr, verr, "verr r", "verr mreg"
DOORBELL_MEMORY_TEMPLATES verr, verr, "verr mlea"
DOORBELL_TEMPLATES verw, verw, "verw r", "verw mreg"
DOORBELL_MEMORY_TEMPLATES verw, verw, "verw mlea"
