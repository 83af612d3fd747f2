/* SPDX-License-Identifier: MIT */
/* Rules and what they match (D6): each element of the grammar, and which rule decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <elf.h>

/* Before cmocka.h, which makes `fail` a macro. */
#include "image/image.h"
#include "patchc/list.h"
#include "patchc/list_rules.h"
#include "tests/unit/list_support.h"

#include <cmocka.h>

#define CODE(text, bytes) ((struct instruction_bytes)INSTRUCTION(text, bytes))

static struct list *parse(const char *text)
{
    struct error err = {0};
    struct list *list = list_parse("t.list", text, strlen(text), &err);
    if (!list)
        fail_msg("%s", err.text);
    return list;
}

static bool lists(const char *text, struct instruction_bytes code)
{
    struct list *list = parse(text);
    bool listed = list_match_bytes(list, code) != NULL;
    list_free(list);
    return listed;
}

static bool lists_at(const char *text, struct place place)
{
    struct list *list = parse(text);
    bool listed = list_match_at(list, CODE("cpuid", "\x0f\xa2"), place) != NULL;
    list_free(list);
    return listed;
}

static void test_empty_lists_list_nothing(void **state)
{
    (void)state;
    assert_false(lists("", CODE("cpuid", "\x0f\xa2")));
    assert_false(lists("\n \t\r\n# include cpuid\n", CODE("cpuid", "\x0f\xa2")));
    struct list *list = parse("");
    assert_false(list_names_mnemonic(list, ZYDIS_MNEMONIC_CPUID));
    assert_string_equal(list_name(list), "t.list");
    list_free(list);
}

static void test_lines_comments_and_case(void **state)
{
    (void)state;
    assert_true(lists("include cpuid", CODE("cpuid", "\x0f\xa2")));
    assert_true(lists("\tINCLUDE  CpuId# comment\r\n", CODE("cpuid", "\x0f\xa2")));
    assert_true(lists("include mov CR0,RAX#", CODE("mov cr0, rax", "\x0f\x22\xc0")));
    assert_true(lists("# caf\xc3\xa9\ninclude cpuid", CODE("cpuid", "\x0f\xa2")));
    assert_true(lists("include cpuid SECTION=.text", CODE("cpuid", "\x0f\xa2")));
    assert_false(lists("include cpuid section=.TEXT", CODE("cpuid", "\x0f\xa2")));
}

static void test_every_mnemonic_is_found_by_its_name(void **state)
{
    (void)state;
    for (int m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        const char *name = ZydisMnemonicGetString((ZydisMnemonic)m);
        assert_int_equal(list_mnemonic_named(name, strlen(name)), m);
        if (m > 1) /* the search needs this order */
            assert_true(strcmp(ZydisMnemonicGetString((ZydisMnemonic)(m - 1)), name) < 0);
    }
}

static void test_every_register_is_found_by_its_name(void **state)
{
    (void)state;
    for (int r = ZYDIS_REGISTER_NONE + 1; r <= ZYDIS_REGISTER_MAX_VALUE; r++) {
        const char *name = ZydisRegisterGetString((ZydisRegister)r);
        struct operand_form form;
        assert_true(list_operand_named(name, strlen(name), &form));
        assert_int_equal(form.kind, OPERAND_REGISTERS);
        assert_int_equal(form.low, r);
        assert_int_equal(form.high, r);
    }
    struct operand_form form;
    assert_true(list_operand_named("CR*", 3, &form));
    assert_int_equal(form.low, ZYDIS_REGISTER_CR0);
    assert_int_equal(form.high, ZYDIS_REGISTER_CR15);
    assert_false(list_operand_named("c*", 2, &form));
    assert_false(list_operand_named("gpr12", 5, &form));
    assert_false(list_operand_named("gpr08", 5, &form));
    assert_false(list_operand_named("mem64x", 6, &form));
    assert_false(list_operand_named("imm99999999999", 14, &form));
}

static void test_several_mnemonics_and_families(void **state)
{
    (void)state;
    assert_true(lists("include cli/sti", CODE("cli", "\xfa")));
    assert_true(lists("include cli/sti", CODE("sti", "\xfb")));
    assert_false(lists("include cli/sti", CODE("cld", "\xfc")));
    assert_true(lists("include pushf", CODE("pushf", "\x66\x9c")));
    assert_true(lists("include pushf", CODE("pushfq", "\x9c")));
    assert_false(lists("include pushfd", CODE("pushfq", "\x9c")));
    assert_true(lists("include hlt/popf", CODE("popfq", "\x9d")));
    assert_true(lists("include iret", CODE("iretq", "\x48\xcf")));
    assert_true(lists("include ins/outs", CODE("insw", "\x66\x6d")));
    assert_true(lists("include ins/outs", CODE("rep outsb", "\xf3\x6e")));
    assert_true(lists("include *", CODE("nop", "\x90")));
    struct list *list = parse("include ins/outs\nexclude hlt");
    assert_true(list_names_mnemonic(list, ZYDIS_MNEMONIC_OUTSD));
    assert_false(list_names_mnemonic(list, ZYDIS_MNEMONIC_IN));
    assert_false(list_names_mnemonic(list, ZYDIS_MNEMONIC_HLT));
    assert_false(list_names_mnemonic(list, ZYDIS_MNEMONIC_INVALID));
    list_free(list);
}

static void test_operand_forms(void **state)
{
    (void)state;
    static const struct {
        const char *rule;
        bool listed;
        struct instruction_bytes code;
    } rows[] = {
        {"include mov cr0, *", true, INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0")},
        {"include mov cr0,rax", true, INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0")},
        {"include mov cr0 , gpr64", true, INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0")},
        {"include mov cr0, gpr32", false, INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0")},
        {"include mov *, cr0", false, INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0")},
        {"include mov cr0", false, INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0")},
        {"include mov cr3/cr0, *", true, INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0")},
        {"include mov cr3/cr4, *", false, INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0")},
        {"include mov cr*, *", true, INSTRUCTION("mov cr8, rax", "\x44\x0f\x22\xc0")},
        {"include mov dr*, *", false, INSTRUCTION("mov cr8, rax", "\x44\x0f\x22\xc0")},
        {"include mov *, dr*", true, INSTRUCTION("mov rax, dr7", "\x0f\x21\xf8")},
        {"include mov r9, cr3", true, INSTRUCTION("mov r9, cr3", "\x41\x0f\x20\xd9")},
        {"include mov r*, cr3", true, INSTRUCTION("mov r9, cr3", "\x41\x0f\x20\xd9")},
        {"include mov r*, cr3", false, INSTRUCTION("mov rax, cr3", "\x0f\x20\xd8")},
        {"include mov r8, cr3", false, INSTRUCTION("mov r9, cr3", "\x41\x0f\x20\xd9")},
        {"include in al, imm8", true, INSTRUCTION("in al, 0x60", "\xe4\x60")},
        {"include in al, 0x60", true, INSTRUCTION("in al, 0x60", "\xe4\x60")},
        {"include in al, 96/97", true, INSTRUCTION("in al, 0x61", "\xe4\x61")},
        {"include in al, 0x61", false, INSTRUCTION("in al, 0x60", "\xe4\x60")},
        {"include in al, 0xe0", true, INSTRUCTION("in al, 0xe0", "\xe4\xe0")},
        {"include in al, 0x1e0", false, INSTRUCTION("in al, 0xe0", "\xe4\xe0")},
        {"include in eax, *", false, INSTRUCTION("in al, 0x60", "\xe4\x60")},
        {"include in al, dx", true, INSTRUCTION("in al, dx", "\xec")},
        {"include in al, imm8", false, INSTRUCTION("in al, dx", "\xec")},
        {"include in gpr16, dx", true, INSTRUCTION("in ax, dx", "\x66\xed")},
        {"include in gpr16, dx", false, INSTRUCTION("in eax, dx", "\xed")},
        {"include lmsw mem", true, INSTRUCTION("lmsw [rax]", "\x0f\x01\x30")},
        {"include lmsw mem16", true, INSTRUCTION("lmsw [rax]", "\x0f\x01\x30")},
        {"include lmsw mem32", false, INSTRUCTION("lmsw [rax]", "\x0f\x01\x30")},
        {"include lmsw mem", false, INSTRUCTION("lmsw ax", "\x0f\x01\xf0")},
        {"include lmsw gpr/mem", true, INSTRUCTION("lmsw ax", "\x0f\x01\xf0")},
        {"include mov *, sreg", true, INSTRUCTION("mov eax, cs", "\x8c\xc8")},
        {"include mov *, ss", false, INSTRUCTION("mov eax, cs", "\x8c\xc8")},
        {"include mov sreg, *", true, INSTRUCTION("mov ds, eax", "\x8e\xd8")},
        {"include mov sreg, *", false, INSTRUCTION("mov eax, eax", "\x89\xc0")},
        {"include mov gpr, gpr", true, INSTRUCTION("mov al, bl", "\x88\xd8")},
        {"include add *, imm8", true, INSTRUCTION("add rax, 1", "\x48\x83\xc0\x01")},
        {"include add *, imm32", false, INSTRUCTION("add rax, 1", "\x48\x83\xc0\x01")},
        {"include add *, imm32", true, INSTRUCTION("add rax, 1", "\x48\x05\x01\x00\x00\x00")},
        {"include add *, 0xffffffffffffffff", true, INSTRUCTION("add rax, -1", "\x48\x83\xc0\xff")},
        {"include add *, 0xff", true, INSTRUCTION("add rax, -1", "\x48\x83\xc0\xff")},
        {"include add *, 0xffffffff", true, INSTRUCTION("add eax, -1", "\x83\xc0\xff")},
        {"include add *, 0xffffffff", false, INSTRUCTION("add rax, -1", "\x48\x83\xc0\xff")},
        {"include in *, 0xffffffe0", false, INSTRUCTION("in eax, 0xe0", "\xe5\xe0")},
        {"include enter *, 3", true, INSTRUCTION("enter 8, 3", "\xc8\x08\x00\x03")},
        {"include enter imm16, imm8", true, INSTRUCTION("enter 8, 0", "\xc8\x08\x00\x00")},
        {"include enter imm16, imm16", false, INSTRUCTION("enter 8, 0", "\xc8\x08\x00\x00")},
        {"include jmp rel", true, INSTRUCTION("jmp rel8", "\xeb\x00")},
        {"include jmp imm", false, INSTRUCTION("jmp rel8", "\xeb\x00")},
        {"include jmp rel", false, INSTRUCTION("jmp rax", "\xff\xe0")},
        {"include jmp 0", false, INSTRUCTION("jmp rel8", "\xeb\x00")},
        {"include cpuid *", false, INSTRUCTION("cpuid", "\x0f\xa2")},
        {"include movups xmm*, mem128", true, INSTRUCTION("movups xmm1, [rax]", "\x0f\x10\x08")},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (lists(rows[i].rule, rows[i].code) != rows[i].listed)
            fail_msg("'%s' %s %s", rows[i].rule, rows[i].listed ? "must list" : "must not list",
                     rows[i].code.text);
}

static void test_ports(void **state)
{
    (void)state;
    struct instruction_bytes in_60 = CODE("in al, 0x60", "\xe4\x60");
    struct instruction_bytes out_80 = CODE("out 0x80, al", "\xe6\x80");
    struct instruction_bytes in_dx = CODE("in al, dx", "\xec");
    assert_true(lists("include in port=0x60", in_60));
    assert_true(lists("include in port=96", in_60));
    assert_false(lists("include in port=0x61", in_60));
    assert_true(lists("include in/out port=0x60-0x80", in_60));
    assert_true(lists("include in/out port=0x60-0x80", out_80));
    assert_false(lists("include in/out port=0x61-0x7f", in_60));
    assert_false(lists("include in/out port=0x61-0x7f", out_80));
    assert_false(lists("include in/out port=dx", out_80));
    assert_true(lists("include in/out port=DX", in_dx));
    assert_false(lists("include in port=0-0xff", in_dx));
    assert_true(lists("include ins/outs port=dx", CODE("rep insb", "\xf3\x6c")));
    assert_false(lists("include outs port=0-0xff", CODE("outsb", "\x6e")));
    assert_true(lists("include out port=0xff", CODE("out 0xff, eax", "\xe7\xff")));
}

static void test_sections_and_symbols(void **state)
{
    (void)state;
    struct place here = {0x1000, ".init.text", "native_read_msr"};
    assert_true(lists_at("include cpuid section=.init.text", here));
    assert_true(lists_at("include cpuid section=.init*", here));
    assert_true(lists_at("include cpuid section=.?nit.????", here));
    assert_false(lists_at("include cpuid section=.init", here));
    assert_true(lists_at("include cpuid symbol=native_*", here));
    assert_true(lists_at("include cpuid symbol=*_msr section=.init.text", here));
    assert_false(lists_at("include cpuid symbol=*_msr section=.text", here));
    assert_true(lists_at("include cpuid symbol=*read*", here));
    assert_false(lists_at("include cpuid symbol=write", here));
    struct place nowhere = {0x1000, "", ""};
    assert_true(lists_at("include cpuid symbol=*", nowhere));
    assert_false(lists_at("include cpuid symbol=?*", nowhere));
    assert_false(lists_at("include cpuid section=.text", nowhere));
}

static void test_globs(void **state)
{
    (void)state;
    assert_true(list_glob("", ""));
    assert_true(list_glob("**", ""));
    assert_false(list_glob("?", ""));
    assert_true(list_glob("a*b*c", "aXbXbXc"));
    assert_false(list_glob("a*b*c", "aXbXbX"));
    assert_true(list_glob("*abab", "ababab"));
    assert_false(list_glob("[a]", "a")); /* no sets: brackets stand for themselves */
    /* A matcher that tries every way to divide the text would not come back from this. */
    char glob[901], text[2001];
    for (size_t i = 0; i < 900; i++)
        glob[i] = i % 2 ? '*' : 'a';
    glob[899] = 'b';
    glob[900] = 0;
    memset(text, 'a', 2000);
    text[2000] = 0;
    assert_false(list_glob(glob, text));
}

static void test_addresses(void **state)
{
    (void)state;
    struct place low = {0xffffffff81000010, ".text", "f"};
    struct place high = {0xffffffff8100001f, ".text", "f"};
    assert_true(lists_at("include cpuid address=0xffffffff81000010", low));
    assert_false(lists_at("include cpuid address=0xffffffff81000010", high));
    assert_true(lists_at("include cpuid address=0xffffffff81000010-0xFFFFFFFF8100001F", low));
    assert_true(lists_at("include cpuid address=0xffffffff81000010-0xffffffff8100001f", high));
    assert_false(lists_at("include cpuid address=0xffffffff81000011-0xffffffff8100001e", low));
    assert_false(lists_at("include cpuid address=0xffffffff81000011-0xffffffff8100001e", high));
    assert_true(lists_at("include cpuid address=0-0xffffffffffffffff", high));
    assert_true(lists_at("include cpuid address=16", (struct place){16, "", ""}));
}

static void test_near_and_far_branches(void **state)
{
    (void)state;
    assert_true(lists("include jmp branch=far", CODE("jmp far [rax]", "\xff\x28")));
    assert_false(lists("include jmp branch=near", CODE("jmp far [rax]", "\xff\x28")));
    assert_true(lists("include jmp branch=near", CODE("jmp [rax]", "\xff\x20")));
    assert_true(lists("include jmp branch=near", CODE("jmp rel8", "\xeb\x00")));
    assert_false(lists("include ret branch=far", CODE("ret", "\xc3")));
    assert_true(lists("include ret branch=far", CODE("ret far", "\xcb")));
    assert_false(lists("include * branch=near", CODE("nop", "\x90")));
}

static void test_last_matching_rule_decides(void **state)
{
    (void)state;
    struct instruction_bytes cpuid = CODE("cpuid", "\x0f\xa2");
    assert_false(lists("include cpuid\nexclude cpuid", cpuid));
    assert_true(lists("exclude cpuid\ninclude cpuid", cpuid));
    assert_false(lists("include cpuid\nexclude *", cpuid));
    assert_true(lists("exclude *\ninclude cpuid", cpuid));
    assert_true(lists("include *\nexclude hlt\nexclude * section=.data", cpuid));
    assert_false(lists("include cpuid\nexclude * symbol=some_*", cpuid));
    assert_true(
        lists("include cpuid\nexclude * symbol=some_*\ninclude cpuid section=.text", cpuid));
    assert_false(lists("include cpuid\nexclude hlt/cpuid\ninclude hlt", cpuid));
    struct list *list = parse("include cpuid form=call\ninclude * form=jump\ninclude cpuid "
                              "form=break symbol=other\n");
    assert_int_equal(list_rule_form(list_match_bytes(list, cpuid)), PV_FORM_JUMP);
    struct place other = {0, "", "other"};
    assert_int_equal(list_rule_form(list_match_at(list, cpuid, other)), PV_FORM_BREAK);
    list_free(list);
}

static void test_D11_preferences(void **state)
{
    (void)state;
    struct list *list = parse("include cpuid\n"
                              "include hlt form=branch template=hlt-fast_2.x action=patch\n"
                              "include out action=block form=auto\n");
    const struct list_rule *rule = list_match_bytes(list, CODE("cpuid", "\x0f\xa2"));
    assert_int_equal(list_rule_form(rule), PV_FORM_NONE);
    assert_null(list_rule_template(rule));
    assert_false(list_rule_prefers_block(rule));
    rule = list_match_bytes(list, CODE("hlt", "\xf4"));
    assert_int_equal(list_rule_form(rule), PV_FORM_BRANCH);
    assert_string_equal(list_rule_template(rule), "hlt-fast_2.x");
    assert_false(list_rule_prefers_block(rule));
    rule = list_match_bytes(list, CODE("out dx, al", "\xee"));
    assert_int_equal(list_rule_form(rule), PV_FORM_NONE);
    assert_true(list_rule_prefers_block(rule));
    list_free(list);
}

static void test_options_are_rules_without_their_first_word(void **state)
{
    (void)state;
    struct error err = {0};
    struct list *list = list_parse_rule("--only", "mov cr3, * symbol=some_*", &err);
    assert_non_null(list);
    assert_non_null(list_match_bytes(list, CODE("mov cr3, rax", "\x0f\x22\xd8")));
    assert_null(list_match_bytes(list, CODE("mov cr0, rax", "\x0f\x22\xc0")));
    assert_true(list_names_mnemonic(list, ZYDIS_MNEMONIC_MOV));
    list_free(list);
    list = list_parse_rule("--skip", "* address=0xffffffff81000000", &err);
    assert_non_null(list);
    assert_non_null(list_match_bytes(list, CODE("nop", "\x90")));
    list_free(list);
}

/* An ELF64 file with one section of code and three symbols in it. */
struct tiny_image {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    Elf64_Shdr sections[5];
    Elf64_Sym symbols[4];
    char strings[32], names[40];
    uint8_t text[64];
};

static void make_image(struct tiny_image *t)
{
    static const char strings[32] = "\0start\0end\0middle";
    static const char names[40] = "\0.text\0.symtab\0.strtab\0.shstrtab";
    const uint64_t base = 0x100000;
    memset(t, 0, sizeof *t);
    memcpy(t->header.e_ident, "\177ELF\2\1\1", 7);
    t->header.e_type = ET_EXEC;
    t->header.e_machine = EM_X86_64;
    t->header.e_version = EV_CURRENT;
    t->header.e_entry = base;
    t->header.e_phoff = offsetof(struct tiny_image, segment);
    t->header.e_shoff = offsetof(struct tiny_image, sections);
    t->header.e_ehsize = sizeof t->header;
    t->header.e_phentsize = sizeof t->segment;
    t->header.e_phnum = 1;
    t->header.e_shentsize = sizeof *t->sections;
    t->header.e_shnum = 5;
    t->header.e_shstrndx = 4;
    t->segment = (Elf64_Phdr){
        PT_LOAD, PF_R | PF_X, offsetof(struct tiny_image, text), base, base, 64, 64, 1};
    t->sections[1] = (Elf64_Shdr){1,
                                  SHT_PROGBITS,
                                  SHF_ALLOC | SHF_EXECINSTR,
                                  base,
                                  offsetof(struct tiny_image, text),
                                  64,
                                  0,
                                  0,
                                  1,
                                  0};
    t->sections[2] = (Elf64_Shdr){
        7, SHT_SYMTAB,        0, 0, offsetof(struct tiny_image, symbols), sizeof t->symbols, 3, 1,
        8, sizeof *t->symbols};
    t->sections[3] = (Elf64_Shdr){
        15, SHT_STRTAB, 0, 0, offsetof(struct tiny_image, strings), sizeof t->strings, 0, 0, 1, 0};
    t->sections[4] = (Elf64_Shdr){
        23, SHT_STRTAB, 0, 0, offsetof(struct tiny_image, names), sizeof t->names, 0, 0, 1, 0};
    unsigned char info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC);
    t->symbols[1] = (Elf64_Sym){1, info, 0, 1, base + 8, 0};
    t->symbols[2] = (Elf64_Sym){7, info, 0, 1, base + 32, 0};
    t->symbols[3] = (Elf64_Sym){11, info, 0, 1, base + 16, 0};
    memcpy(t->strings, strings, sizeof strings);
    memcpy(t->names, names, sizeof names);
}

static void test_ranges_follow_symbols(void **state)
{
    (void)state;
    struct tiny_image bytes;
    make_image(&bytes);
    struct image image;
    struct error err = {0};
    if (image_from_memory("tiny", (const uint8_t *)&bytes, sizeof bytes, &image, &err))
        fail_msg("%s", err.text);
    struct list *list = parse("include cpuid\n"
                              "exclude cpuid range=start..end\n"
                              "include cpuid range=middle..absent.2\n"
                              "include cpuid range=gone..end\n"
                              "include cpuid range=end..start\n");
    struct instruction_bytes cpuid = CODE("cpuid", "\x0f\xa2");
    struct place inside = {0x100010, ".text", "middle"};
    assert_non_null(list_match_at(list, cpuid, inside)); /* not resolved: no range matches */
    assert_string_equal(list_unresolved(list, 0), "start");
    list_resolve(list, &image);
    assert_null(list_match_at(list, cpuid, inside));
    assert_non_null(list_match_at(list, cpuid, (struct place){0x100007, ".text", ""}));
    assert_null(list_match_at(list, cpuid, (struct place){0x100008, ".text", "start"}));
    assert_null(list_match_at(list, cpuid, (struct place){0x10001f, ".text", "middle"}));
    assert_non_null(list_match_at(list, cpuid, (struct place){0x100020, ".text", "end"}));
    assert_string_equal(list_unresolved(list, 0), "absent.2");
    assert_string_equal(list_unresolved(list, 1), "gone");
    assert_null(list_unresolved(list, 2));
    list_free(list);
    image_close(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_lists_list_nothing),
        cmocka_unit_test(test_lines_comments_and_case),
        cmocka_unit_test(test_every_mnemonic_is_found_by_its_name),
        cmocka_unit_test(test_every_register_is_found_by_its_name),
        cmocka_unit_test(test_several_mnemonics_and_families),
        cmocka_unit_test(test_operand_forms),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_sections_and_symbols),
        cmocka_unit_test(test_globs),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_near_and_far_branches),
        cmocka_unit_test(test_last_matching_rule_decides),
        cmocka_unit_test(test_D11_preferences),
        cmocka_unit_test(test_options_are_rules_without_their_first_word),
        cmocka_unit_test(test_ranges_follow_symbols),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
