/* SPDX-License-Identifier: MIT */
/* The lists in lists/: they parse, and they list what they say they list (D6). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <string.h>

/* Before cmocka.h, which makes `fail` a macro. */
#include "patchc/list.h"
#include "tests/unit/list_support.h"

#include <cmocka.h>

static struct list *open_list(const char *path)
{
    struct error err = {0};
    struct list *list = list_open(path, &err);
    if (!list)
        fail_msg("%s", err.text);
    return list;
}

/* Every privileged or sensitive instruction of 64-bit mode that the decoder knows: SDM 3A 5.9, SDM
 * 2 and APM 3 by CPL checks, and the sensitive ones that do not fault. */
static const struct instruction_bytes sensitive[] = {
    INSTRUCTION("cli", "\xfa"),
    INSTRUCTION("sti", "\xfb"),
    INSTRUCTION("pushf", "\x66\x9c"),
    INSTRUCTION("pushfq", "\x9c"),
    INSTRUCTION("popf", "\x66\x9d"),
    INSTRUCTION("popfq", "\x9d"),
    INSTRUCTION("iret", "\x66\xcf"),
    INSTRUCTION("iretd", "\xcf"),
    INSTRUCTION("iretq", "\x48\xcf"),
    INSTRUCTION("clac", "\x0f\x01\xca"),
    INSTRUCTION("stac", "\x0f\x01\xcb"),
    INSTRUCTION("syscall", "\x0f\x05"),
    INSTRUCTION("sysret", "\x0f\x07"),
    INSTRUCTION("sysretq", "\x48\x0f\x07"),
    INSTRUCTION("sysenter", "\x0f\x34"),
    INSTRUCTION("sysexit", "\x0f\x35"),
    INSTRUCTION("int 0x80", "\xcd\x80"),
    INSTRUCTION("swapgs", "\x0f\x01\xf8"),
    INSTRUCTION("mov cr0, rax", "\x0f\x22\xc0"),
    INSTRUCTION("mov cr2, rax", "\x0f\x22\xd0"),
    INSTRUCTION("mov cr3, rax", "\x0f\x22\xd8"),
    INSTRUCTION("mov cr4, rax", "\x0f\x22\xe0"),
    INSTRUCTION("mov cr8, rax", "\x44\x0f\x22\xc0"),
    INSTRUCTION("mov rax, cr0", "\x0f\x20\xc0"),
    INSTRUCTION("mov rax, cr2", "\x0f\x20\xd0"),
    INSTRUCTION("mov rax, cr3", "\x0f\x20\xd8"),
    INSTRUCTION("mov rax, cr4", "\x0f\x20\xe0"),
    INSTRUCTION("mov rax, cr8", "\x44\x0f\x20\xc0"),
    INSTRUCTION("clts", "\x0f\x06"),
    INSTRUCTION("lmsw ax", "\x0f\x01\xf0"),
    INSTRUCTION("lmsw [rax]", "\x0f\x01\x30"),
    INSTRUCTION("smsw eax", "\x0f\x01\xe0"),
    INSTRUCTION("smsw [rax]", "\x0f\x01\x20"),
    INSTRUCTION("xsetbv", "\x0f\x01\xd1"),
    INSTRUCTION("xgetbv", "\x0f\x01\xd0"),
    INSTRUCTION("mov dr0, rax", "\x0f\x23\xc0"),
    INSTRUCTION("mov dr3, rax", "\x0f\x23\xd8"),
    INSTRUCTION("mov dr6, rax", "\x0f\x23\xf0"),
    INSTRUCTION("mov dr7, rax", "\x0f\x23\xf8"),
    INSTRUCTION("mov rax, dr0", "\x0f\x21\xc0"),
    INSTRUCTION("mov rax, dr7", "\x0f\x21\xf8"),
    INSTRUCTION("lgdt [rax]", "\x0f\x01\x10"),
    INSTRUCTION("lidt [rax]", "\x0f\x01\x18"),
    INSTRUCTION("lldt ax", "\x0f\x00\xd0"),
    INSTRUCTION("ltr ax", "\x0f\x00\xd8"),
    INSTRUCTION("sgdt [rax]", "\x0f\x01\x00"),
    INSTRUCTION("sidt [rax]", "\x0f\x01\x08"),
    INSTRUCTION("sldt eax", "\x0f\x00\xc0"),
    INSTRUCTION("str eax", "\x0f\x00\xc8"),
    INSTRUCTION("lar eax, ecx", "\x0f\x02\xc1"),
    INSTRUCTION("lsl eax, ecx", "\x0f\x03\xc1"),
    INSTRUCTION("verr ax", "\x0f\x00\xe0"),
    INSTRUCTION("verw ax", "\x0f\x00\xe8"),
    INSTRUCTION("verw [rip]", "\x0f\x00\x2d\x00\x00\x00\x00"),
    INSTRUCTION("mov eax, cs", "\x8c\xc8"),
    INSTRUCTION("mov eax, ss", "\x8c\xd0"),
    INSTRUCTION("mov [rax], ds", "\x8c\x18"),
    INSTRUCTION("mov ds, eax", "\x8e\xd8"),
    INSTRUCTION("mov ss, eax", "\x8e\xd0"),
    INSTRUCTION("mov gs, [rax]", "\x8e\x28"),
    INSTRUCTION("push fs", "\x0f\xa0"),
    INSTRUCTION("push gs", "\x0f\xa8"),
    INSTRUCTION("pop fs", "\x0f\xa1"),
    INSTRUCTION("pop gs", "\x0f\xa9"),
    INSTRUCTION("lss eax, [rax]", "\x0f\xb2\x00"),
    INSTRUCTION("lfs eax, [rax]", "\x0f\xb4\x00"),
    INSTRUCTION("lgs eax, [rax]", "\x0f\xb5\x00"),
    INSTRUCTION("jmp far [rax]", "\xff\x28"),
    INSTRUCTION("jmp far m16:64", "\x48\xff\x28"),
    INSTRUCTION("call far [rax]", "\xff\x18"),
    INSTRUCTION("ret far", "\xcb"),
    INSTRUCTION("ret far 8", "\xca\x08\x00"),
    INSTRUCTION("invlpg [rax]", "\x0f\x01\x38"),
    INSTRUCTION("invpcid rax, [rax]", "\x66\x0f\x38\x82\x00"),
    INSTRUCTION("invd", "\x0f\x08"),
    INSTRUCTION("wbinvd", "\x0f\x09"),
    INSTRUCTION("wbnoinvd", "\xf3\x0f\x09"),
    INSTRUCTION("invlpgb", "\x0f\x01\xfe"),
    INSTRUCTION("tlbsync", "\x0f\x01\xff"),
    INSTRUCTION("cpuid", "\x0f\xa2"),
    INSTRUCTION("rdmsr", "\x0f\x32"),
    INSTRUCTION("wrmsr", "\x0f\x30"),
    INSTRUCTION("hreset 0", "\xf3\x0f\x3a\xf0\xc0\x00"),
    INSTRUCTION("pconfig", "\x0f\x01\xc5"),
    INSTRUCTION("loadiwkey xmm0, xmm1", "\xf3\x0f\x38\xdc\xc1"),
    INSTRUCTION("rdtsc", "\x0f\x31"),
    INSTRUCTION("rdtscp", "\x0f\x01\xf9"),
    INSTRUCTION("rdpid rax", "\xf3\x0f\xc7\xf8"),
    INSTRUCTION("rdpmc", "\x0f\x33"),
    INSTRUCTION("rdpru", "\x0f\x01\xfd"),
    INSTRUCTION("hlt", "\xf4"),
    INSTRUCTION("monitor", "\x0f\x01\xc8"),
    INSTRUCTION("mwait", "\x0f\x01\xc9"),
    INSTRUCTION("in al, imm8", "\xe4\x60"),
    INSTRUCTION("in eax, imm8", "\xe5\x60"),
    INSTRUCTION("in al, dx", "\xec"),
    INSTRUCTION("in ax, dx", "\x66\xed"),
    INSTRUCTION("in eax, dx", "\xed"),
    INSTRUCTION("out imm8, al", "\xe6\x60"),
    INSTRUCTION("out imm8, eax", "\xe7\x60"),
    INSTRUCTION("out dx, al", "\xee"),
    INSTRUCTION("out dx, ax", "\x66\xef"),
    INSTRUCTION("out dx, eax", "\xef"),
    INSTRUCTION("insb", "\x6c"),
    INSTRUCTION("insw", "\x66\x6d"),
    INSTRUCTION("insd", "\x6d"),
    INSTRUCTION("rep insb", "\xf3\x6c"),
    INSTRUCTION("outsb", "\x6e"),
    INSTRUCTION("outsw", "\x66\x6f"),
    INSTRUCTION("outsd", "\x6f"),
    INSTRUCTION("rep outsb", "\xf3\x6e"),
    INSTRUCTION("xsaves", "\x0f\xc7\x28"),
    INSTRUCTION("xsaves64", "\x48\x0f\xc7\x28"),
    INSTRUCTION("xrstors", "\x0f\xc7\x18"),
    INSTRUCTION("xrstors64", "\x48\x0f\xc7\x18"),
    INSTRUCTION("setssbsy", "\xf3\x0f\x01\xe8"),
    INSTRUCTION("clrssbsy", "\xf3\x0f\xae\x30"),
    INSTRUCTION("wrussd", "\x66\x0f\x38\xf5\x08"),
    INSTRUCTION("wrussq", "\x66\x48\x0f\x38\xf5\x08"),
    INSTRUCTION("wrssd", "\x0f\x38\xf6\x08"),
    INSTRUCTION("wrssq", "\x48\x0f\x38\xf6\x08"),
    INSTRUCTION("rstorssp", "\xf3\x0f\x01\x28"),
    INSTRUCTION("saveprevssp", "\xf3\x0f\x01\xea"),
    INSTRUCTION("incsspd", "\xf3\x0f\xae\xe8"),
    INSTRUCTION("incsspq", "\xf3\x48\x0f\xae\xe8"),
    INSTRUCTION("rdsspd", "\xf3\x0f\x1e\xc8"),
    INSTRUCTION("rdsspq", "\xf3\x48\x0f\x1e\xc8"),
    INSTRUCTION("senduipi", "\xf3\x0f\xc7\xf0"),
    INSTRUCTION("uiret", "\xf3\x0f\x01\xec"),
    INSTRUCTION("testui", "\xf3\x0f\x01\xed"),
    INSTRUCTION("clui", "\xf3\x0f\x01\xee"),
    INSTRUCTION("stui", "\xf3\x0f\x01\xef"),
    INSTRUCTION("enqcmd", "\xf2\x0f\x38\xf8\x00"),
    INSTRUCTION("enqcmds", "\xf3\x0f\x38\xf8\x00"),
    INSTRUCTION("encls", "\x0f\x01\xcf"),
    INSTRUCTION("enclv", "\x0f\x01\xc0"),
    INSTRUCTION("enclu", "\x0f\x01\xd7"),
    INSTRUCTION("getsec", "\x0f\x37"),
    INSTRUCTION("rsm", "\x0f\xaa"),
    INSTRUCTION("seamcall", "\x66\x0f\x01\xcf"),
    INSTRUCTION("seamops", "\x66\x0f\x01\xce"),
    INSTRUCTION("seamret", "\x66\x0f\x01\xcd"),
    INSTRUCTION("tdcall", "\x66\x0f\x01\xcc"),
    INSTRUCTION("vmxon", "\xf3\x0f\xc7\x30"),
    INSTRUCTION("vmxoff", "\x0f\x01\xc4"),
    INSTRUCTION("vmlaunch", "\x0f\x01\xc2"),
    INSTRUCTION("vmresume", "\x0f\x01\xc3"),
    INSTRUCTION("vmclear", "\x66\x0f\xc7\x30"),
    INSTRUCTION("vmptrld", "\x0f\xc7\x30"),
    INSTRUCTION("vmptrst", "\x0f\xc7\x38"),
    INSTRUCTION("vmread", "\x0f\x78\xc1"),
    INSTRUCTION("vmwrite", "\x0f\x79\xc1"),
    INSTRUCTION("invept", "\x66\x0f\x38\x80\x00"),
    INSTRUCTION("invvpid", "\x66\x0f\x38\x81\x00"),
    INSTRUCTION("vmcall", "\x0f\x01\xc1"),
    INSTRUCTION("vmfunc", "\x0f\x01\xd4"),
    INSTRUCTION("vmrun", "\x0f\x01\xd8"),
    INSTRUCTION("vmmcall", "\x0f\x01\xd9"),
    INSTRUCTION("vmgexit", "\xf3\x0f\x01\xd9"),
    INSTRUCTION("vmload", "\x0f\x01\xda"),
    INSTRUCTION("vmsave", "\x0f\x01\xdb"),
    INSTRUCTION("stgi", "\x0f\x01\xdc"),
    INSTRUCTION("clgi", "\x0f\x01\xdd"),
    INSTRUCTION("skinit", "\x0f\x01\xde"),
    INSTRUCTION("invlpga", "\x0f\x01\xdf"),
    INSTRUCTION("psmash", "\xf3\x0f\x01\xff"),
    INSTRUCTION("pvalidate", "\xf2\x0f\x01\xff"),
    INSTRUCTION("rmpadjust", "\xf3\x0f\x01\xfe"),
    INSTRUCTION("rmpupdate", "\xf2\x0f\x01\xfe"),
    INSTRUCTION("mcommit", "\xf3\x0f\x01\xfa"),
};

/* Instructions that look like those above and are not. */
static const struct instruction_bytes harmless[] = {
    INSTRUCTION("nop", "\x90"),
    INSTRUCTION("pause", "\xf3\x90"),
    INSTRUCTION("mov eax, ebx", "\x89\xd8"),
    INSTRUCTION("push rax", "\x50"),
    INSTRUCTION("pop rax", "\x58"),
    INSTRUCTION("call rel32", "\xe8\x00\x00\x00\x00"),
    INSTRUCTION("call [rax]", "\xff\x10"),
    INSTRUCTION("jmp rel8", "\xeb\x00"),
    INSTRUCTION("jmp [rax]", "\xff\x20"),
    INSTRUCTION("ret", "\xc3"),
    INSTRUCTION("int3", "\xcc"),
    INSTRUCTION("int1", "\xf1"),
    INSTRUCTION("ud2", "\x0f\x0b"),
    INSTRUCTION("endbr64", "\xf3\x0f\x1e\xfa"),
    INSTRUCTION("inc eax", "\xff\xc0"),
    INSTRUCTION("rdfsbase rax", "\xf3\x48\x0f\xae\xc0"),
    INSTRUCTION("wrgsbase rax", "\xf3\x48\x0f\xae\xd8"),
    INSTRUCTION("rdpkru", "\x0f\x01\xee"),
    INSTRUCTION("xsave [rax]", "\x0f\xae\x20"),
    INSTRUCTION("clflush [rax]", "\x0f\xae\x38"),
    INSTRUCTION("monitorx", "\x0f\x01\xfa"),
    INSTRUCTION("lea eax, [rax]", "\x8d\x00"),
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void test_D6_deprivileged_list_has_every_sensitive_instruction(void **state)
{
    (void)state;
    struct list *list = open_list("lists/deprivileged.list");
    for (size_t i = 0; i < COUNT(sensitive); i++)
        if (!list_match_bytes(list, sensitive[i]))
            fail_msg("%s is not listed", sensitive[i].text);
    for (size_t i = 0; i < COUNT(harmless); i++)
        if (list_match_bytes(list, harmless[i]))
            fail_msg("%s is listed", harmless[i].text);
    struct place entry = {0xffffffff81c00010, ".entry.text", "entry_SYSCALL_64"};
    assert_non_null(list_match_at(
        list, (struct instruction_bytes)INSTRUCTION("swapgs", "\x0f\x01\xf8"), entry));
    list_free(list);
}

/* Sensitive instructions that hardware virtualization lets the guest execute. */
static const char *const quiet_under_kvm[] = {
    "cli",          "sti",          "pushf",        "pushfq",       "popf",
    "popfq",        "iret",         "iretd",        "iretq",        "clac",
    "stac",         "swapgs",       "mov cr3, rax", "mov rax, cr3", "mov rax, cr0",
    "mov rax, cr4", "mov rax, cr8", "mov cr2, rax", "invlpg [rax]", "invpcid rax, [rax]",
    "rdtsc",        "rdtscp",       "smsw eax",     "sgdt [rax]",   "lgdt [rax]",
    "xsaves",       "vmcall",       "vmmcall",
};

static const char *const exit_under_kvm[] = {
    "cpuid",        "rdmsr",        "wrmsr",  "in al, imm8",  "in eax, dx",   "out dx, al",
    "insb",         "rep insb",     "insw",   "insd",         "outsb",        "outsw",
    "outsd",        "hlt",          "wbinvd", "wbnoinvd",     "invd",         "xsetbv",
    "rdpmc",        "monitor",      "mwait",  "mov cr0, rax", "mov cr4, rax", "mov cr8, rax",
    "mov dr7, rax", "mov rax, dr7", "clts",   "lmsw ax",      "getsec",       "vmlaunch",
    "vmread",       "invept",       "vmrun",  "stgi",         "encls",
};

static struct instruction_bytes named(const char *text)
{
    for (size_t i = 0; i < COUNT(sensitive); i++)
        if (!strcmp(sensitive[i].text, text))
            return sensitive[i];
    fail_msg("no instruction %s", text);
    return sensitive[0];
}

static void test_D6_kvm_list_has_what_exits(void **state)
{
    (void)state;
    struct list *list = open_list("lists/kvm.list");
    assert_string_equal(list_name(list), "kvm.list");
    for (size_t i = 0; i < COUNT(exit_under_kvm); i++)
        if (!list_match_bytes(list, named(exit_under_kvm[i])))
            fail_msg("%s is not listed", exit_under_kvm[i]);
    for (size_t i = 0; i < COUNT(quiet_under_kvm); i++)
        if (list_match_bytes(list, named(quiet_under_kvm[i])))
            fail_msg("%s is listed", quiet_under_kvm[i]);
    struct place entry = {0xffffffff81c00010, ".entry.text", "paranoid_entry"};
    struct place noinstr = {0xffffffff81a00000, ".noinstr.text", "do_machine_check"};
    assert_null(list_match_at(list, named("rdmsr"), entry));
    assert_null(list_match_at(list, named("rdmsr"), noinstr));
    list_free(list);
}

static void test_D6_io_list_has_only_io(void **state)
{
    (void)state;
    struct list *list = open_list("lists/io.list");
    for (size_t i = 0; i < COUNT(sensitive); i++) {
        const char *text = sensitive[i].text;
        bool io = !strncmp(text, "in ", 3) || !strncmp(text, "out", 3) ||
                  !strncmp(text, "ins", 3) || !strncmp(text, "rep ", 4);
        if (io != (list_match_bytes(list, sensitive[i]) != NULL))
            fail_msg("%s is %slisted", text, io ? "not " : "");
    }
    list_free(list);
}

/* What exits under virtualization is sensitive: a list that is the smaller one in theory must be it
 * in the files too. */
static void test_lists_contain_each_other(void **state)
{
    (void)state;
    struct list *io = open_list("lists/io.list");
    struct list *kvm = open_list("lists/kvm.list");
    struct list *all = open_list("lists/deprivileged.list");
    for (int m = 1; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        const char *name = ZydisMnemonicGetString((ZydisMnemonic)m);
        if (list_names_mnemonic(io, (ZydisMnemonic)m) &&
            !list_names_mnemonic(kvm, (ZydisMnemonic)m))
            fail_msg("%s is in io.list and not in kvm.list", name);
        if (list_names_mnemonic(kvm, (ZydisMnemonic)m) &&
            !list_names_mnemonic(all, (ZydisMnemonic)m))
            fail_msg("%s is in kvm.list and not in deprivileged.list", name);
    }
    list_free(io);
    list_free(kvm);
    list_free(all);
}

static void test_prototype_list_parses(void **state)
{
    (void)state;
    struct list *list = open_list("tests/lists/prototype.list");
    assert_non_null(list_match_bytes(list, named("mov rax, cr3")));
    assert_null(list_match_bytes(list, named("mov cr8, rax")));
    assert_null(list_match_bytes(list, named("insb")));
    assert_non_null(list_match_bytes(list, named("pushfq")));
    list_free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_D6_deprivileged_list_has_every_sensitive_instruction),
        cmocka_unit_test(test_D6_kvm_list_has_what_exits),
        cmocka_unit_test(test_D6_io_list_has_only_io),
        cmocka_unit_test(test_lists_contain_each_other),
        cmocka_unit_test(test_prototype_list_parses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
