/* SPDX-License-Identifier: MIT */
/* x87, MMX, SSE and AVX instructions: the white list. What has no row here (or in ops_xstate.c) is #UD. */
#include "runtime/soft/fpu.h"
#include "runtime/soft/fpu_names.h"

/* clang-format off */
#define ROW_GATHER(name)           {ZYDIS_MNEMONIC_##name, select_gather},
#define ROW_LOGIC(name)            {ZYDIS_MNEMONIC_##name, select_logic},
#define ROW_MASKMOV(name)          {ZYDIS_MNEMONIC_##name, select_maskmov},
#define ROW_MOVE_ALIGNED(name)     {ZYDIS_MNEMONIC_##name, select_move_aligned},
#define ROW_MOVE_SCALAR(name)      {ZYDIS_MNEMONIC_##name, select_move_scalar},
#define ROW_MOVE_UNALIGNED(name)   {ZYDIS_MNEMONIC_##name, select_move_unaligned},
#define ROW_SIMD(name)             {ZYDIS_MNEMONIC_##name, select_simd},
#define ROW_SIMD_FP(name)          {ZYDIS_MNEMONIC_##name, select_simd_fp},
#define ROW_SIMD_HALF(name)        {ZYDIS_MNEMONIC_##name, select_simd_half},
#define ROW_SIMD_LENIENT(name)     {ZYDIS_MNEMONIC_##name, select_simd_lenient},
#define ROW_SIMD_UNALIGNED(name)   {ZYDIS_MNEMONIC_##name, select_simd_unaligned},
#define ROW_VMASKMOV(name)         {ZYDIS_MNEMONIC_##name, select_vmaskmov},
#define ROW_VMOVE_ALIGNED(name)    {ZYDIS_MNEMONIC_##name, select_vmove_aligned},
#define ROW_VMOVE_UNALIGNED(name)  {ZYDIS_MNEMONIC_##name, select_vmove_unaligned},
#define ROW_X87(name)              {ZYDIS_MNEMONIC_##name, select_x87},
#define ROW_X87_CONTROL(name)      {ZYDIS_MNEMONIC_##name, select_x87_control},
#define ROW_X87_FLAGS(name)        {ZYDIS_MNEMONIC_##name, select_x87_flags},

const struct op_row ops_fpu[] = {
    SSE_INTEGER(ROW_SIMD)
    SSE_FLOAT(ROW_SIMD_FP)
    AVX_INTEGER(ROW_SIMD)
    AVX_FLOAT(ROW_SIMD_FP)
    AVX_HALF(ROW_SIMD_HALF)
    X87(ROW_X87)
    X87_FLAGS(ROW_X87_FLAGS)
    X87_CONTROL(ROW_X87_CONTROL)
    MOVE_UNALIGNED(ROW_MOVE_UNALIGNED)
    MOVE_ALIGNED(ROW_MOVE_ALIGNED)
    VMOVE_UNALIGNED(ROW_VMOVE_UNALIGNED)
    VMOVE_ALIGNED(ROW_VMOVE_ALIGNED)
    MOVE_SCALAR(ROW_MOVE_SCALAR)
    LOGIC(ROW_LOGIC)
    UNALIGNED(ROW_SIMD_UNALIGNED)
    LENIENT(ROW_SIMD_LENIENT)
    MASKED(ROW_MASKMOV)
    VMASKED(ROW_VMASKMOV)
    GATHER(ROW_GATHER)
    {ZYDIS_MNEMONIC_VZEROALL, select_vzeroall},
    {ZYDIS_MNEMONIC_VZEROUPPER, select_vzeroupper},
    {ZYDIS_MNEMONIC_MOVD, select_movd},
    {ZYDIS_MNEMONIC_MOVNTI, select_movnti},
    {ZYDIS_MNEMONIC_MOVQ, select_movq},
    {ZYDIS_MNEMONIC_PMOVMSKB, select_pmovmskb},
    {ZYDIS_MNEMONIC_INVALID, NULL},
};
