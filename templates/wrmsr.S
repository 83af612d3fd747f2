/* WRMSR: always the host's. A #GP is injected at the native instruction, which carries the
 * exception-table entry (hvstub/hvstub.h). */
#include "templates/template.inc"

DOORBELL_TEMPLATES wrmsr, wrmsr, "wrmsr"
