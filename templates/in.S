/* IN: port, width and DX are in the operand word; the host writes the pushed RAX. */
#include "templates/template.inc"

DOORBELL_TEMPLATES in, in, "in al, imm8", "in ax, imm8", "in eax, imm8", "in al, dx", "in ax, dx", "in eax, dx"
