/* SPDX-License-Identifier: MIT */
/* The tables by which a Linux kernel finds or rewrites its own code, read from an image.
 *
 * Tables that are ELF sections are found by name; those merged into other sections by symbol
 * (kallsyms). Each table is checked on its first bytes and entries (linux-kernel facts in
 * docs/linux.md); a table that fails its check makes the reader fail, it is never guessed. */
#ifndef PATCHC_LINUX_TABLES_H
#define PATCHC_LINUX_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/image.h"
#include "image/relocs.h"

enum linux_table_kind {
    LINUX_EX_TABLE,     /* __ex_table, 12: s32 insn, s32 fixup, s32 data */
    LINUX_BUG_TABLE,    /* __bug_table, 12: s32 bug address, s32 file, u16 line, u16 flags */
    LINUX_ALTERNATIVES, /* .altinstructions, 12: s32 instr, s32 replacement, u16 cpuid, u8 length,
                           u8 replacement length */
    LINUX_PARAVIRT,     /* .parainstructions, 16: u64 instr, u8 type, u8 length, padding */
    LINUX_RETPOLINE_SITES, /* 4: s32 */
    LINUX_RETURN_SITES,    /* 4: s32 */
    LINUX_SMP_LOCKS,       /* 4: s32 */
    LINUX_JUMP_TABLE,      /* __jump_table, 16: s32 code, s32 target, s64 key */
    LINUX_STATIC_CALLS,    /* 8: s32 address, s32 key */
    LINUX_MCOUNT,          /* __mcount_loc, 8: u64 */
    LINUX_PINNED, /* other tables of s32 code addresses (.ibt_endbr_seal, .call_sites, .cfi_sites,
                     …): what they name may not move */
    LINUX_TABLES
};

struct linux_entry {  /* one entry, as addresses */
    uint64_t slot;    /* guest-linear address of the entry itself */
    uint64_t address; /* the code it refers to (first field) */
    uint64_t second;  /* ex_table: fixup; alternatives: replacement; jump table: target; else 0 */
    uint16_t length;  /* alternatives: instrlen; paravirt: len; jump table: 2 or 5 (decoded); static
                         call, return site, retpoline site, mcount: 5 or as decoded; else 1 */
    uint16_t extra;   /* alternatives: replacementlen; ex_table, others: 0 */
    uint32_t data;    /* alternatives: cpuid; ex_table: data; paravirt: type; bug: flags; else 0 */
};

struct linux_table {
    uint64_t start, end; /* guest-linear extent; start == end: absent. LINUX_PINNED: from the first
                            to the last of its sections */
    struct linux_entry *entries; /* in table order; padding at the end left out */
    size_t count;
    uint16_t entry_size;  /* bytes; alternatives and bug entries differ between kernel versions */
    uint32_t *by_address; /* indices of entries, sorted by entry address */
    bool unknown; /* the image may have this table but nothing says where: any instruction that it
                     might name must not move */
    bool by_content; /* found by what it contains, for want of symbols */
};

struct linux_tables {
    bool present; /* false: not a 64-bit Linux image; all tables empty */
    struct linux_table table[LINUX_TABLES];
    bool ex_handlers;            /* __ex_table's third field is a pointer relative to itself (before
                                    Linux 5.16), not data */
    uint64_t orc_ip, orc_ip_end; /* extent of .orc_unwind_ip; 0 if absent */
};

/* The name as it appears in the report ("__ex_table", ".altinstructions", …). */
const char *linux_table_name(enum linux_table_kind kind);

/* Reads all tables. *tables is the caller's: linux_tables_close(). 0, or -1 with *err set
 * (EXIT_INPUT) if a table is malformed. */
int linux_tables_read(const struct image *image, struct linux_tables *tables, struct error *err);
void linux_tables_close(struct linux_tables *tables);

/* The entries whose `address` lies in [from, to): returns how many, *first = position in
 * by_address. */
size_t linux_table_range(const struct linux_table *table, uint64_t from, uint64_t to,
                         size_t *first);

/* Calls `target` for each address that the tables, the symbols and the relocations say control may
 * reach other than by falling through: exception fixups, jump labels' targets and what follows
 * them, what follows a bug's UD2, symbols in text, and text addresses stored where a relocation
 * points. An address may come more than once and in any order; all lie in executable sections. */
int linux_tables_targets(const struct linux_tables *tables, const struct image *image,
                         const struct relocs *relocs,
                         void (*target)(void *context, uint64_t address), void *context);

#endif
