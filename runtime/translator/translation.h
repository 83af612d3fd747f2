/* SPDX-License-Identifier: MIT */
/* Inside the translator: what a translated block is made of, and the passes that make it. */
#ifndef RUNTIME_TRANSLATOR_TRANSLATION_H
#define RUNTIME_TRANSLATOR_TRANSLATION_H

#include "runtime/translator/code_cache.h"
#include "runtime/translator/emit.h"
#include "runtime/translator/layout.h"
#include "runtime/translator/translator.h"

struct version;
struct trace;

/* A place where translated code may be left. */
struct exit_point {
    struct version *of;
    /* CHAIN: where the jump leads now, its own stub or the target's code. LOOKUP: where to look again */
    const void *host;
    const void *stub;
    uint64_t target;         /* CHAIN, JUMP: guest RIP */
    struct exit_point *next; /* CHAIN: of those that lead to the same translation */
    uint8_t reason;          /* enum translator_exit */
    uint8_t position;        /* of the instruction in the block */
    bool write;              /* LOOKUP */
    bool group;              /* LOOKUP: for several accesses */
    uint16_t size;           /* LOOKUP: bytes */
};

/* An instruction for which the interpreter's function is called. */
struct call_point {
    insn_fn *run;
    const struct insn *insn;
    struct block *block;
    uint64_t rip; /* of the block */
    uint64_t tlb; /* offset in the vCPU of the table by which its code sees memory */
};

/* A block at one RIP (aliases of a page have several), for its mode. */
struct version {
    struct block *block;
    uint64_t rip;
    const uint8_t *entry; /* counts the block against the budget, and executes it */
    struct version *next;
    struct exit_point *into; /* jumps that were linked to this one */
    const uint8_t *lead;     /* where they lead: `entry`, or the code of a trace that begins here */
    struct trace_member *in; /* traces that it is part of (traces.c) */
    uint8_t samples;         /* slices that ended here */
    uint8_t table;           /* enum fast_mode */
    uint8_t tlb_mode;        /* enum tlb_mode */
    uint8_t vectors;         /* VECTOR_*: what its code needs in the host's registers */
    uint8_t vectors_until;   /* position of the last instruction that does */
    bool apart;           /* no accesses share a look-up, for those that did were not in one page */
    uint8_t crossings;    /* times that they were not */
    uint8_t lead_vectors; /* what the trace needs */
    /* by position: offset from `entry` of its code, 0 = interpreted; behind the last: of what leads to the next block,
     * if nothing in the block does */
    uint32_t at[];
};

/* What a block was before: block->translated. */
struct translated {
    struct version *first;
    unsigned versions;
    insn_fn *run[]; /* the interpreter's functions, by position */
};

/* ---- classes.c: what the translator knows ---- */
enum item_class {
    CLASS_INTERPRET, /* what ends a block and is not known */
    CLASS_CALL_OUT,  /* the interpreter's function is called for it */
    CLASS_COPY,      /* registers and memory operand rewritten */
    CLASS_DIVIDE,    /* copied where it cannot fault: the upper half is zero, the divisor is not */
    CLASS_NOTHING,
    CLASS_LEA,
    CLASS_PUSH,
    CLASS_POP,
    CLASS_LEAVE,
    CLASS_JUMP,
    CLASS_JUMP_IF,
    CLASS_CALL,
    CLASS_RETURN,
    CLASS_PUSH_FLAGS,
    CLASS_CLI,
    CLASS_SELECTOR, /* MOV from a segment register */
    CLASS_PAUSE,
    /* SSE and AVX: copied, with the registers that they name in the host's of the same number */
    CLASS_VECTOR,
    CLASS_VECTOR_ALIGNED,   /* memory operands are aligned, with VEX too */
    CLASS_VECTOR_UNALIGNED, /* never */
    CLASS_VECTOR_FLOAT,     /* MXCSR decides, and gets flags */
    CLASS_X87,
    CLASS_X87_STATUS, /* those that are no arithmetic */
    CLASS_EMMS,
    CLASS_FNSTCW,
    CLASS_FLDCW,
    CLASSES
};
struct item;
struct generator;
struct access_range;
struct class_row {
    /* May this instruction be translated? Its operands have been taken. NULL: all may */
    bool (*usual)(const struct item *item);
    /* Where it accesses memory, if by a base in a host register and a displacement. NULL: its look-ups are its own */
    bool (*access)(const struct item *item, struct access_range *access);
    void (*generate)(struct generator *g);
    int8_t moves_rsp; /* by as many bytes */
    /* Its code needs the flags in the host's, or changes them, no more than the instruction does. Without it they are
     * there from its first host instruction to the last, but in look-ups. */
    bool plain_flags;
    bool ends;          /* nothing falls through it */
    bool flags_in_vcpu; /* that is where its code wants them; it changes none of the host's */
    bool inside;       /* where it ends a block it does something else: that is the interpreter's */
    bool own_operands; /* scan.c takes none of them */
    bool hidden_operands; /* are operands of the copy too: they must be where it expects them */
    uint8_t vectors;      /* VECTOR_*; VECTOR_SSE: whichever its instructions name */
};
extern const struct class_row class_rows[CLASSES];
enum item_class class_of(const ZydisDecodedInstruction *z);

/* ---- scan.c: from a block's bytes to items ---- */
#define NO_OPERAND 0xff
struct access_range {
    uint8_t base; /* guest register */
    bool write;
    int32_t disp; /* from the base as it is before the instruction */
    int32_t bytes;
};
#define RANGE_MAX                                                                                  \
    512 /* bytes that share a look-up: the longer, the more often they are not in one page */
struct item {
    enum item_class class;
    uint64_t rip, next; /* of the instruction, and of the one behind it */
    uint8_t memory;     /* index of the memory operand, or NO_OPERAND */
    uint8_t reg, rm;    /* of the register in ModRM.reg or the opcode, and of the one in ModRM.rm */
    bool count_in_cl;
    bool legacy_high; /* an operand is AH, DH or BH */
    /* liveness.c */
    bool sets_flags;  /* all of them, whatever they were, and nothing comes between */
    bool needs_flags; /* they must be the guest's where it is executed */
    bool keeps_flags; /* none is changed */
    /* group.c: accesses that share a look-up */
    bool member;         /* its access is one of them */
    bool grouped;        /* it is a member, or between members: `first` and `last` are theirs */
    bool second;         /* its group's addend is in TEMP_ADDRESS, not in TEMP_ADDEND */
    uint8_t first, last; /* positions */
    struct access_range access;
    int32_t delta; /* of the base, since before `first` */
    /* traces.c: a branch that does not end the code, which goes on as this one did when it was watched */
    bool inner;
    uint64_t onward; /* RIP */
    ZydisDecodedInstruction z;
    ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
};
/* Fills one item for each instruction, groups left out; `bytes` are those that the block was decoded from. */
void scan_block(const struct block *block, const uint8_t *bytes, uint64_t rip, struct item *items);

/* ---- liveness.c: who sees the flags ---- */
void find_liveness(struct item *items, unsigned count);

/* ---- group.c: which accesses share a look-up ---- */
/* `two`: groups may overlap; nobody comes back to the middle of them. `apart`: each access is alone in its group. */
void group_items(struct item *items, unsigned count, bool two, bool apart);
/* All that members from position `from` on access, by the base as it is there. */
struct access_range group_rest(const struct item *items, unsigned from);

/* ---- generate.c, lookup.c, control.c: from items to code ---- */
struct stub {      /* out of line: leads to the common exit */
    uint32_t jump; /* the jump to patch */
    bool has_address;
    bool flags_saved;       /* in the vCPU already */
    struct host_rm address; /* goes to TEMP_ADDRESS */
    struct exit_point *exit;
    uint8_t position; /* of the instruction in `items` */
};
struct generator {
    struct emit emit;
    struct code_cache *code;
    struct version *t;
    const void *leave;       /* the common exit */
    const void *leave_saved; /* for those whose flags are in the vCPU already */
    const void *call;        /* the way to the interpreter and back */
    bool bmi2;               /* the host has SHRX */
    const struct item *items, *item;
    unsigned position; /* in `items` */
    bool flags_saved;  /* the guest's flags are in the vCPU, not in the host's */
    struct stub stubs[BLOCK_MAX * 4];
    unsigned stub_count;
    const struct path *path; /* items of a trace; NULL: of a block */
    struct exit_point bail;  /* what exit_make gives in a trace */
};

/* An exit of the present instruction; NULL (and emit.failed) if there is no memory. A trace has one way out: to the
 * code of its block alone, where the instruction begins anew. */
struct exit_point *exit_make(struct generator *g, enum translator_exit reason);
/* A jump to the exit's stub, which is emitted behind the block. */
void exit_jump(struct generator *g, struct exit_point *exit);
void exit_jump_if(struct generator *g, unsigned condition, struct exit_point *exit);

/* The host register in which a guest register can be read: its own, or `temp` after a load. */
unsigned use_register(struct generator *g, unsigned guest, unsigned temp);

/* The address of the item's memory operand without its segment's base. Uses TEMP_ADDRESS and TEMP_ADDEND. */
void emit_effective_address(struct generator *g, unsigned to);
/* Leaves the linear address of the item's memory operand in TEMP_ADDRESS. Uses TEMP_ADDEND. */
void emit_address(struct generator *g);
/* Sees to the flags before the look-ups of an item; each does it by itself, but exits before them need it as well. */
void prepare_lookup(struct generator *g);
/* TEMP_ADDRESS to TEMP_ADDRESS + TEMP_ADDEND, the host's; looks again at `again` when the page has become known. */
void emit_lookup(struct generator *g, uint32_t again, unsigned size, bool write);
/* The look-up for what is left of the item's group: its addend in TEMP_ADDEND. */
void emit_group_lookup(struct generator *g);
/* The memory operand in the host: behind a look-up of its own, or by that of the item's group. */
struct host_rm emit_operand(struct generator *g, unsigned bytes, bool write);
#define RM_FOUND RM_INDEXED(TEMP_ADDRESS, TEMP_ADDEND, 0, 0)

/* ---- flags.c: where the guest's flags are ---- */
/* vcpu.status to EAX, AX there. */
void emit_load_status(struct emit *e);
void emit_store_status(struct emit *e);
/* They are the host's from here on. Uses TEMP_COUNT. */
void flags_to_host(struct generator *g);
/* What follows may change the host's: they are in the vCPU. Uses TEMP_COUNT. */
void flags_to_vcpu(struct generator *g);

/* ---- vectors.c ---- */
/* What of the FP and SIMD state the block's code needs in the host's registers; *until: its last such instruction. */
unsigned vectors_needed(const struct item *items, unsigned count, unsigned *until);

void generate_item(struct generator *g);

/* Ends of blocks. */
void generate_end(struct generator *g, uint64_t target);
/* A branch in a trace: leaves it unless the branch goes where the trace goes on. */
void generate_inner(struct generator *g);
/* By how much a branch in a trace moves RSP. False: it is none. */
bool moves_inner(const struct item *item, int32_t *by);
bool is_relative(const struct item *item);
uint64_t relative_target(const struct item *item);

/* ---- copy.c, stack.c, control.c: the classes ---- */
bool usual_copy(const struct item *item);
bool usual_divide(const struct item *item);
bool usual_lea(const struct item *item);
bool usual_push(const struct item *item);
bool usual_pop(const struct item *item);
bool usual_leave(const struct item *item);
bool usual_branch(const struct item *item);
bool usual_vector(const struct item *item);
bool usual_x87(const struct item *item);
bool access_copy(const struct item *item, struct access_range *access);
bool access_push(const struct item *item, struct access_range *access);
bool access_pop(const struct item *item, struct access_range *access);
bool access_leave(const struct item *item, struct access_range *access);
bool access_call(const struct item *item, struct access_range *access);
bool access_return(const struct item *item, struct access_range *access);
void generate_interpret(struct generator *g);
void generate_call_out(struct generator *g);
void generate_nothing(struct generator *g);
void generate_copy(struct generator *g);
void generate_divide(struct generator *g);
void generate_lea(struct generator *g);
void generate_vector(struct generator *g);
void generate_x87(struct generator *g);
void generate_x87_status(struct generator *g);
void generate_emms(struct generator *g);
void generate_fnstcw(struct generator *g);
void generate_fldcw(struct generator *g);
void generate_push(struct generator *g);
void generate_pop(struct generator *g);
void generate_leave(struct generator *g);
void generate_jump(struct generator *g);
void generate_jump_if(struct generator *g);
void generate_call(struct generator *g);
void generate_return(struct generator *g);

/* ---- system.c ---- */
bool usual_push_flags(const struct item *item);
bool usual_selector(const struct item *item);
void generate_push_flags(struct generator *g);
void generate_cli(struct generator *g);
void generate_selector(struct generator *g);

/* Guest registers by number. */
static inline bool is_legacy_high(ZydisRegister reg)
{
    return reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
}
static inline unsigned guest_number(ZydisRegister reg)
{
    if (is_legacy_high(reg))
        return (unsigned)(reg - ZYDIS_REGISTER_AH);
    return (unsigned)ZydisRegisterGetId(
        ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg));
}

static inline bool is_written(const ZydisDecodedOperand *o)
{
    return o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

/* Whole blocks: the code, put into the cache. False: it does not fit. */
bool generate_block(struct generator *g, const struct item *items);

/* ---- trace_code.c: several blocks in a row as one piece of code ---- */
#define TRACE_MAX    128u /* instructions; positions are bytes */
#define TRACE_BLOCKS 64u
struct path {
    struct path_block {
        struct version *of;
        unsigned first; /* item */
    } blocks[TRACE_BLOCKS];
    unsigned count, instructions;
    bool closed;     /* the last block leads to the first */
    bool apart;      /* one of them is */
    uint8_t vectors; /* VECTOR_* that any of the blocks needs */
};
/* The code, put into the cache; NULL: it does not fit. */
const uint8_t *generate_trace(struct generator *g, const struct path *path,
                              const struct item *items);

/* ---- enter.c: the way in and out, the only fixed code ---- */
typedef void enter_fn(struct vcpu *cpu, const void *code);
struct ways {
    enter_fn *enter;
    /* where exits lead, with the exit point in RCX and an address in R14 */
    const void *leave;
    const void *leave_saved; /* the flags are in the vCPU */
    const void
        *call; /* for one instruction by the interpreter: the call point in RCX, flags as above */
};
/* *calls counts those of ways->call. */
bool enter_create(struct code_cache *code, struct emit *emit, struct ways *ways, uint64_t *calls);

/* ---- translator.c: what exits lead to ---- */
/* The host's, in ns, for stats.nanoseconds. */
uint64_t translator_clock(void);
/* Where to go on in translated code, or NULL: translator->next says what is to be done. */
const void *translator_leave(struct vcpu *cpu, struct exit_point *exit, uint64_t address);
/* The same when an instruction that was called for does not lead to the next one; its function returned `i`. */
const void *translator_resume(struct vcpu *cpu, const struct insn *i);

#endif
