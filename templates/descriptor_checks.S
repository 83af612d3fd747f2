/* LAR, LSL, VERR, VERW: they look into the guest's descriptor tables, so the host answers: in the destination
 * register and in ZF. */
#include "templates/template.inc"

DOORBELL_TEMPLATES lar, lar, "lar r!rsp, r", "lar r!rsp, mreg"
DOORBELL_MEMORY_TEMPLATES lar, lar, "lar r!rsp, mlea"
DOORBELL_TEMPLATES lsl, lsl, "lsl r!rsp, r", "lsl r!rsp, mreg"
DOORBELL_MEMORY_TEMPLATES lsl, lsl, "lsl r!rsp, mlea"
DOORBELL_TEMPLATES verr, verr, "verr r", "verr mreg"
DOORBELL_MEMORY_TEMPLATES verr, verr, "verr mlea"
DOORBELL_TEMPLATES verw, verw, "verw r", "verw mreg"
DOORBELL_MEMORY_TEMPLATES verw, verw, "verw mlea"
