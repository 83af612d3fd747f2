/* SPDX-License-Identifier: MIT */
/* Templates: retrieval by form (D7), filled holes (D8), needs, operand words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <stdio.h>
#include <time.h>

#include "patchc/form.h"
#include "patchc/site.h"
#include "patchc/template.h"
#include "tests/unit/decoded.h"

#include <cmocka.h> /* last: it defines fail() as a macro */

#define SITE    0xffffffff81234567u
#define ROUTINE 0xffffffff81d00123u
#define NATIVE  0xffffffff81d00100u
#define TAIL    0xffffffff81d00110u
#define STATE   0xffffffff82400040u
#define CPUID   0xffffffff81e00040u
#define MSRS    0xffffffff81e10040u
#define INDEX   0x01020304u

static struct template_set *set;

static const struct template_available everything = {
    .context = ~0u, .state = true, .cpuid = true, .msr = true, .deprivileged = true};

static struct template_values values_for(const struct decoded *d)
{
    return (struct template_values){.instruction = &d->instruction,
                                    .operands = d->operands,
                                    .address = SITE,
                                    .index = INDEX,
                                    .native = NATIVE,
                                    .tail = TAIL,
                                    .next = SITE + d->instruction.length,
                                    .state = STATE,
                                    .cpuid_table = CPUID,
                                    .msr_table = MSRS};
}

static const struct template *find(const char *name, const struct decoded *d,
                                   const struct template_available *available, bool *form_known)
{
    const struct template *t =
        template_find(set, name, &d->instruction, d->operands, available, form_known);
    return t; /* cppcheck-suppress CastIntegerToAddressAtReturn */
}

static const char *found_name(const struct decoded *d, const struct template_available *available)
{
    const struct template *t = find(NULL, d, available, NULL);
    return t ? template_name(t) : "none";
}

/* ---- every template, every instruction it fits, two addresses ---- */

struct filled {
    const struct template *t;
    const struct decoded *d;
    uint64_t address;
    uint8_t code[4096];
    bool saw_index, saw_lea;
};

static bool within(uint64_t value, uint64_t start, uint64_t size)
{
    return value - start < size;
}

static bool known_target(const struct filled *f, uint64_t target)
{
    uint64_t memory;
    for (unsigned i = 0; i < f->d->instruction.operand_count_visible; i++)
        if (f->d->operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            f->d->operands[i].mem.base == ZYDIS_REGISTER_RIP &&
            ZYAN_SUCCESS(
                ZydisCalcAbsoluteAddress(&f->d->instruction, &f->d->operands[i], SITE, &memory)) &&
            memory == target)
            return true;
    return target == NATIVE || target == TAIL || target == SITE + f->d->instruction.length ||
           target == CPUID || target == MSRS || within(target, STATE, sizeof(struct pv_state)) ||
           within(target, f->address, template_size(f->t) + 1);
}

/* The LEA that a PV_LEA hole became: same base, index and scale; displacement may differ by pushes.
 */
static bool is_operand_lea(const struct filled *f, const struct decoded *d)
{
    const ZydisDecodedOperand *memory = memory_operand(&f->d->instruction, f->d->operands);
    if (!memory || d->instruction.mnemonic != ZYDIS_MNEMONIC_LEA)
        return false;
    const ZydisDecodedOperand *lea = &d->operands[1];
    return lea->mem.base == memory->mem.base && lea->mem.index == memory->mem.index &&
           (memory->mem.index == ZYDIS_REGISTER_NONE || lea->mem.scale == memory->mem.scale) &&
           d->instruction.address_width == f->d->instruction.address_width;
}

/* A template that uses more of the state than the device fast paths is right for a deprivileged
 * guest only. */
static void check_use_of_state(const struct filled *f, uint64_t target)
{
    unsigned flags = template_flags(f->t);
    if (!within(target, STATE, sizeof(struct pv_state)))
        return;
    assert_true(flags & PV_ROUTINE_STATE);
    if (target - STATE < offsetof(struct pv_state, port_in) && !(flags & PV_ROUTINE_DEPRIVILEGED))
        fail_msg("%s: not marked deprivileged", template_name(f->t));
}

static void check_instruction(struct filled *f, const struct decoded *d, uint64_t address)
{
    bool operand_lea = is_operand_lea(f, d);
    f->saw_lea |= operand_lea;
    for (unsigned i = 0; i < d->instruction.operand_count; i++) {
        const ZydisDecodedOperand *operand = &d->operands[i];
        uint64_t target;
        if (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand->imm.value.u == INDEX)
            f->saw_index = true;
        if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->mem.disp.value == INDEX)
            f->saw_index = true;
        bool relative =
            (operand->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operand->imm.is_relative) ||
            (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && operand->mem.base == ZYDIS_REGISTER_RIP);
        if (relative) {
            assert_true(
                ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&d->instruction, operand, address, &target)));
            check_use_of_state(f, target);
            if (!known_target(f, target))
                fail_msg("%s: target %#llx of %s is nothing known", template_name(f->t),
                         (unsigned long long)target,
                         ZydisMnemonicGetString(d->instruction.mnemonic));
        } else if (operand->type == ZYDIS_OPERAND_TYPE_MEMORY && !operand_lea &&
                   operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
                   d->instruction.mnemonic != ZYDIS_MNEMONIC_NOP) {
            /* position-independent: no absolute address (a scaled LEA of a register is arithmetic)
             */
            assert_true(operand->mem.base != ZYDIS_REGISTER_NONE ||
                        d->instruction.mnemonic == ZYDIS_MNEMONIC_LEA);
        }
    }
    /* baseline integer instructions only: guests may lack the rest, and FPU state is not ours */
    ZydisISASet isa = d->instruction.meta.isa_set;
    assert_true(d->instruction.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY);
    assert_true(isa != ZYDIS_ISA_SET_X87 && isa != ZYDIS_ISA_SET_SSE && isa != ZYDIS_ISA_SET_SSE2);
}

static void check_filled(struct filled *f)
{
    struct error err = {0};
    struct template_values values = values_for(f->d);
    memset(f->code, 0xcc, sizeof f->code);
    f->saw_index = f->saw_lea = false;
    if (template_fill(f->t, &values, f->address, f->code, &err))
        fail_msg("%s: %s", template_name(f->t), err.text);
    size_t size = template_size(f->t), at = 0;
    assert_int_equal(f->code[size], 0xcc);
    while (at < size) {
        struct decoded d;
        if (!decode_bytes(f->code + at, size - at, &d))
            fail_msg("%s: undecodable at +%zu", template_name(f->t), at);
        check_instruction(f, &d, f->address + at);
        at += d.instruction.length;
    }
    assert_int_equal(f->saw_index, !!(template_flags(f->t) & PV_ROUTINE_DOORBELL));
    if (template_copies_displacement(f->t))
        assert_true(f->saw_lea);
}

struct sweep {
    const struct template *templates[512];
    unsigned fits[512];
    size_t count;
};

static void collect(const struct template *t, void *context)
{
    struct sweep *sweep = context;
    assert_true(sweep->count < 512);
    sweep->templates[sweep->count++] = t;
}

static void sweep_instruction(struct sweep *sweep, const struct decoded *d)
{
    if (!find(NULL, d, &everything, NULL))
        return;
    for (size_t i = 0; i < sweep->count; i++) {
        const struct template *t = sweep->templates[i];
        if (find(template_name(t), d, &everything, NULL) != t)
            continue;
        sweep->fits[i]++;
        static struct filled f;
        f.t = t;
        f.d = d;
        f.address = ROUTINE;
        check_filled(&f);
        f.address = ROUTINE - 0x765432;
        check_filled(&f);
    }
}

/* All that the prefix leads to: one- and two-byte opcodes, 0f 38 8x and 0f 38 fx with every ModRM
 * byte. */
static void sweep_prefix(struct sweep *sweep, const char *prefix)
{
    uint8_t bytes[20];
    size_t length = strlen(prefix);
    memcpy(bytes, prefix, length);
    for (unsigned opcode = 0; opcode < 256 * 2 + 32; opcode++) {
        size_t n = length;
        if (opcode >= 256)
            bytes[n++] = 0x0f;
        if (opcode >= 512)
            bytes[n++] = 0x38;
        bytes[n++] = (uint8_t)(opcode < 512   ? opcode
                               : opcode < 528 ? opcode - 0x180
                                              : opcode - 0x120);
        for (unsigned modrm = 0; modrm < 256; modrm++) {
            struct decoded d;
            bytes[n] = (uint8_t)modrm;
            memcpy(bytes + n + 1, "\x4c\x12\x34\x56\x02", 6); /* SIB: base RSP, index RCX x2 … */
            if (!decode_bytes(bytes, sizeof bytes > 15 ? 15 : sizeof bytes, &d))
                continue;
            if (modrm && d.instruction.length < n + 1)
                break; /* no ModRM byte: nothing new */
            sweep_instruction(sweep, &d);
        }
    }
}

static void test_D8_every_template_is_filled_for_every_instruction_it_fits(void **state)
{
    (void)state;
    static struct sweep sweep;
    template_each(set, collect, &sweep);
    assert_true(sweep.count >= 40);
    static const char *const prefixes[] = {"",     "\x66", "\xf3", "\x67", "\x65", "\x48",
                                           "\x41", "\x44", "\x45", "\x4d", "\xf2"};
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        sweep_prefix(&sweep, prefixes[i]);
    for (size_t i = 0; i < sweep.count; i++)
        if (!sweep.fits[i])
            fail_msg("no instruction found that fits template %s",
                     template_name(sweep.templates[i]));
}

/* Templates that stand for instructions which change no flag change none themselves, but between
 * PUSHFQ and POPFQ: followed along every path. */
enum { UNSEEN, FLAGS_LIVE, FLAGS_SAVED };

struct walk {
    const struct template *t;
    const uint8_t *code;
    uint8_t seen[4096];
};

static void walk_from(struct walk *w, uint64_t at, int flags);

static int flags_after(const struct walk *w, const struct decoded *d, int flags)
{
    const ZydisAccessedFlags *changed = d->instruction.cpu_flags;
    int wanted = FLAGS_SAVED;
    if (d->instruction.mnemonic == ZYDIS_MNEMONIC_PUSHFQ)
        wanted = FLAGS_LIVE;
    else if (d->instruction.mnemonic != ZYDIS_MNEMONIC_POPFQ &&
             (!changed ||
              !(changed->modified | changed->set_0 | changed->set_1 | changed->undefined)))
        return flags;
    if (flags != wanted)
        fail_msg("%s: %s with the flags %s", template_name(w->t),
                 ZydisMnemonicGetString(d->instruction.mnemonic),
                 flags == FLAGS_SAVED ? "saved" : "not saved");
    if (d->instruction.mnemonic == ZYDIS_MNEMONIC_PUSHFQ)
        return FLAGS_SAVED;
    return d->instruction.mnemonic == ZYDIS_MNEMONIC_POPFQ ? FLAGS_LIVE : flags;
}

static void walk_branch(struct walk *w, const struct decoded *d, uint64_t at, int flags)
{
    uint64_t target;
    if (d->instruction.operand_count && d->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE &&
        d->operands[0].imm.is_relative &&
        ZYAN_SUCCESS(
            ZydisCalcAbsoluteAddress(&d->instruction, &d->operands[0], ROUTINE + at, &target)))
        walk_from(w, target - ROUTINE, flags);
}

static void walk_from(struct walk *w, uint64_t at, int flags)
{
    while (at < template_size(w->t)) {
        struct decoded d;
        if (w->seen[at]) {
            assert_int_equal(w->seen[at], flags);
            return;
        }
        w->seen[at] = (uint8_t)flags;
        assert_true(decode_bytes(w->code + at, template_size(w->t) - at, &d));
        flags = flags_after(w, &d, flags);
        walk_branch(w, &d, at, flags);
        if (d.instruction.mnemonic == ZYDIS_MNEMONIC_JMP)
            return;
        at += d.instruction.length;
    }
    assert_int_equal(flags, FLAGS_LIVE); /* out of the template, by its end or a branch */
}

static void check_flags(const struct template *t, void *context)
{
    (void)context;
    static const char *const hexes[] = {"0f a2", "0f 32", "0f 30",    "e4 60",       "ec",
                                        "ed",    "e6 60", "ee",       "6c",          "6e",
                                        "f4",    "0f 09", "0f 22 c0", "0f 01 3c 24", "0f 01 38"};
    if (template_flags(t) & PV_ROUTINE_DEPRIVILEGED)
        return;
    for (size_t i = 0; i < sizeof hexes / sizeof *hexes; i++) {
        struct decoded d;
        assert_true(decode_hex(hexes[i], &d));
        if (find(template_name(t), &d, &everything, NULL) != t)
            continue;
        struct error err = {0};
        struct template_values values = values_for(&d);
        uint8_t code[4096];
        struct walk w = {.t = t, .code = code};
        assert_int_equal(template_fill(t, &values, ROUTINE, code, &err), 0);
        walk_from(&w, 0, FLAGS_LIVE);
    }
}

static void test_D2_templates_change_no_flags(void **state)
{
    (void)state;
    template_each(set, check_flags, NULL);
}

/* ---- retrieval ---- */

static void test_D7_template_is_retrieved_by_instruction_form(void **state)
{
    (void)state;
    static const char *const forms[][2] = {{"0f a2", "cpuid_table"},
                                           {"0f 32", "rdmsr_table"},
                                           {"0f 30", "wrmsr_posted"},
                                           {"e4 60", "in_table_immediate"},
                                           {"ec", "in_table"},
                                           {"ed", "in_timer"},
                                           {"e5 60", "in_doorbell"},
                                           {"66 ed", "in_doorbell"},
                                           {"e6 60", "out_posted_immediate"},
                                           {"ee", "out_posted"},
                                           {"e7 60", "out_doorbell"},
                                           {"ef", "out_doorbell"},
                                           {"f3 6c", "ins_doorbell"},
                                           {"6d", "ins_doorbell"},
                                           {"f3 6f", "outs_doorbell"},
                                           {"f4", "hlt_doorbell"},
                                           {"0f 09", "wbinvd_doorbell"},
                                           {"f3 0f 09", "wbinvd_doorbell"},
                                           {"0f 08", "invd_doorbell"},
                                           {"0f 01 d1", "xsetbv_doorbell"},
                                           {"0f 33", "rdpmc_doorbell"},
                                           {"0f 31", "rdtsc_doorbell"},
                                           {"0f 01 f9", "rdtscp_doorbell"},
                                           {"0f 01 c8", "monitor_doorbell"},
                                           {"0f 01 c9", "mwait_doorbell"},
                                           {"0f 22 c0", "mov_to_cr_doorbell"},
                                           {"41 0f 22 db", "mov_to_cr_doorbell"},
                                           {"44 0f 22 c0", "mov_to_cr_doorbell"},
                                           {"0f 20 c0", "mov_from_cr_doorbell"},
                                           {"0f 23 f8", "mov_to_dr_doorbell"},
                                           {"0f 21 c0", "mov_from_dr_doorbell"},
                                           {"0f 06", "clts_doorbell"},
                                           {"0f 01 f0", "lmsw_doorbell"},
                                           {"0f 01 37", "lmsw_doorbell"},
                                           {"0f 01 77 08", "lmsw_memory_doorbell"},
                                           {"0f 01 3f", "invlpg_doorbell"},
                                           {"0f 01 7f 08", "invlpg_memory_doorbell"},
                                           {"0f 01 3d 01 00 00 00", "invlpg_memory_doorbell"},
                                           {"0f 01 c1", "vmcall_doorbell"},
                                           {"0f 01 d9", "vmcall_doorbell"},
                                           {"89 c8", "none"},
                                           {"48 89 c8", "none"},
                                           {"65 0f 01 3f", "invlpg_memory_doorbell"},
                                           {"65 0f 01 3d 01 00 00 00", "none"},
                                           {"67 0f 01 3d 01 00 00 00", "none"}};
    struct template_available available = everything;
    available.deprivileged = false;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct decoded d;
        assert_true(decode_hex(forms[i][0], &d));
        assert_string_equal(found_name(&d, &available), forms[i][1]);
    }
}

static void test_D7_preference_goes_by_rank_among_those_whose_needs_are_met(void **state)
{
    (void)state;
    struct decoded d;
    struct template_available none = {0}, stack = {.context = CONTEXT_STACK};
    assert_true(decode_hex("0f a2", &d));
    assert_string_equal(found_name(&d, &stack), "cpuid_doorbell");
    assert_string_equal(found_name(&d, &none), "cpuid_bare");
    none.cpuid = true;
    assert_string_equal(found_name(&d, &none), "cpuid_table");
    assert_true(decode_hex("0f 32", &d));
    assert_string_equal(found_name(&d, &stack), "rdmsr_doorbell");
    none.msr = stack.msr = true;
    assert_string_equal(found_name(&d, &none), "rdmsr_bare"); /* the table look-up spills */
    assert_string_equal(found_name(&d, &stack), "rdmsr_table");
    assert_true(decode_hex("ee", &d));
    assert_string_equal(found_name(&d, &stack), "out_doorbell");
    assert_string_equal(found_name(&d, &none), "out_bare");
    stack.state = true;
    assert_string_equal(found_name(&d, &stack), "out_doorbell"); /* perhaps it is not mapped */
    stack.context |= CONTEXT_KERNEL_TABLES;
    assert_string_equal(found_name(&d, &stack), "out_posted");
}

static void test_D7_a_known_form_whose_needs_are_not_met_is_told_apart(void **state)
{
    (void)state;
    struct decoded d;
    struct template_available none = {0};
    bool known = false;
    decode_hex("0f 01 7f 08", &d); /* invlpg 8(%rdi) */
    assert_null(find("invlpg_memory_doorbell", &d, &none, &known));
    assert_true(known);
    assert_true(decode_hex("90", &d));
    known = true;
    assert_null(find(NULL, &d, &everything, &known));
    assert_false(known);
}

static void test_D7_a_named_template_is_taken_only_if_it_fits_the_form(void **state)
{
    (void)state;
    struct decoded d;
    assert_true(decode_hex("0f a2", &d));
    const struct template *t = find("cpuid_bare", &d, &everything, NULL);
    assert_non_null(t);
    assert_string_equal(template_name(t), "cpuid_bare");
    assert_null(find("rdmsr_bare", &d, &everything, NULL));
    assert_null(find("no_such_template", &d, &everything, NULL));
}

static void test_templates_say_what_they_need(void **state)
{
    (void)state;
    struct decoded d;
    assert_true(decode_hex("0f a2", &d));
    const struct template *t = find("cpuid_table", &d, &everything, NULL);
    assert_int_equal(template_kind(t), PV_KIND_CPUID);
    assert_int_equal(template_flags(t), PV_ROUTINE_TABLE);
    assert_true(template_needs_cpuid(t) && !template_needs_msr(t));
    t = find("cpuid_doorbell", &d, &everything, NULL);
    assert_int_equal(template_flags(t), PV_ROUTINE_STACK | PV_ROUTINE_DOORBELL);
    t = find("cpuid_bare", &d, &everything, NULL);
    assert_int_equal(template_flags(t), PV_ROUTINE_BARE | PV_ROUTINE_DOORBELL);
}

static void test_a_table_that_the_image_lacks_is_an_error(void **state)
{
    (void)state;
    struct decoded d;
    assert_true(decode_hex("0f a2", &d));
    struct error err = {0};
    struct template_values values = values_for(&d);
    values.cpuid_table = 0;
    uint8_t code[4096];
    const struct template *t = find("cpuid_table", &d, &everything, NULL);
    assert_int_equal(template_fill(t, &values, ROUTINE, code, &err), -1);
    assert_int_equal(err.code, EXIT_INPUT);
    assert_non_null(strstr(err.text, "PV_CPUID_TABLE"));
}

static void test_the_set_opens_quickly(void **state)
{
    (void)state;
    double best = 1;
    for (int i = 0; i < 5; i++) {
        struct timespec a, b;
        struct error err = {0};
        clock_gettime(CLOCK_MONOTONIC, &a);
        struct template_set *other = template_set_open(&err);
        clock_gettime(CLOCK_MONOTONIC, &b);
        assert_non_null(other);
        template_set_close(other);
        double seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        if (seconds < best)
            best = seconds;
    }
    assert_true(best < 0.05); /* a few milliseconds; sanitizers and a busy machine take more */
}

static int open_set(void **state)
{
    (void)state;
    struct error err = {0};
    set = template_set_open(&err);
    if (!set)
        print_error("%s\n", err.text);
    return set ? 0 : -1;
}

static int close_set(void **state)
{
    (void)state;
    template_set_close(set);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_D8_every_template_is_filled_for_every_instruction_it_fits),
        cmocka_unit_test(test_D2_templates_change_no_flags),
        cmocka_unit_test(test_D7_template_is_retrieved_by_instruction_form),
        cmocka_unit_test(test_D7_preference_goes_by_rank_among_those_whose_needs_are_met),
        cmocka_unit_test(test_D7_a_known_form_whose_needs_are_not_met_is_told_apart),
        cmocka_unit_test(test_D7_a_named_template_is_taken_only_if_it_fits_the_form),
        cmocka_unit_test(test_templates_say_what_they_need),
        cmocka_unit_test(test_a_table_that_the_image_lacks_is_an_error),
        cmocka_unit_test(test_the_set_opens_quickly),
    };
    return cmocka_run_group_tests(tests, open_set, close_set);
}
