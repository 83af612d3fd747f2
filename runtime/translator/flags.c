/* SPDX-License-Identifier: MIT */
/* Where the guest's flags are: in the host's, or in the vCPU while the host's are changed by code that is put around
 * instructions. In the vCPU they are as LAHF and SETO give them; all others than OF in AH, OF in AL. */
#include "runtime/translator/translation.h"

static void emit_status(struct emit *e, bool store)
{
    struct host_insn insn = {.operand16 = store,
                             .map = store ? 0 : 1,
                             .opcode = store ? 0x89 : 0xb7, /* mov; movzwl */
                             .reg = RAX,
                             .rm = RM_MEMORY(RSP, OF_VCPU(status))};
    emit_insn(e, &insn, false);
}
void emit_load_status(struct emit *e)
{
    emit_status(e, false);
}
void emit_store_status(struct emit *e)
{
    emit_status(e, true);
}

void flags_to_vcpu(struct generator *g)
{
    struct emit *e = &g->emit;
    if (g->flags_saved)
        return;
    emit_mov(e, TEMP_COUNT, RAX);
    emit_flags_to_rax(e);
    emit_store_status(e);
    emit_mov(e, RAX, TEMP_COUNT);
    g->flags_saved = true;
}

void flags_to_host(struct generator *g)
{
    struct emit *e = &g->emit;
    if (!g->flags_saved)
        return;
    emit_mov(e, TEMP_COUNT, RAX);
    emit_load_status(e);
    emit_flags_from_rax(e);
    emit_mov(e, RAX, TEMP_COUNT);
    g->flags_saved = false;
}
