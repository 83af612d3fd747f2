/* SPDX-License-Identifier: MIT */
/* Any bytes as an instruction list and as a rule of --only: the parser gives a list or one error
 * line, and what it gives can be matched. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "patchc/list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    uint8_t length, bytes[15];
} codes[] = {
    {2, {0x0f, 0xa2}},             /* cpuid */
    {2, {0xe4, 0x60}},             /* in al, 0x60 */
    {1, {0xee}},                   /* out dx, al */
    {2, {0xf3, 0x6c}},             /* rep insb */
    {3, {0x0f, 0x22, 0xd8}},       /* mov cr3, rax */
    {3, {0x0f, 0x21, 0xf8}},       /* mov rax, dr7 */
    {2, {0x8e, 0xd8}},             /* mov ds, eax */
    {2, {0xff, 0x28}},             /* jmp far [rax] */
    {2, {0xeb, 0x00}},             /* jmp rel8 */
    {4, {0xc8, 0x08, 0x00, 0x00}}, /* enter 8, 0 */
    {4, {0x48, 0x83, 0xc0, 0xff}}, /* add rax, -1 */
};

static void expect(int holds)
{
    if (!holds)
        abort();
}

static void match(const struct list *list, size_t code)
{
    static const char *const sections[] = {"", ".text", ".init.text"};
    static const char *const symbols[] = {"", "native_read_msr", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    ZydisDecoder decoder;
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    expect(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, codes[code].bytes, codes[code].length,
                                               &instruction, operands)));
    for (size_t i = 0; i < 3; i++) {
        struct list_candidate candidate = {.address = 0xffffffff81000000 + i,
                                           .section = sections[i],
                                           .symbol = symbols[i],
                                           .instruction = &instruction,
                                           .operands = operands};
        const struct list_rule *rule = list_match(list, &candidate);
        if (!rule)
            continue;
        expect(list_names_mnemonic(list, instruction.mnemonic));
        expect(list_rule_form(rule) < PV_FORMS);
        expect(!list_rule_template(rule) || *list_rule_template(rule));
        (void)list_rule_prefers_block(rule);
    }
}

static void check(struct list *list, const struct error *err, int code)
{
    if (!list) {
        expect(err->code == code && *err->text);
        for (const char *c = err->text; *c; c++)
            expect((unsigned char)*c >= ' ' && (unsigned char)*c < 0x7f);
        return;
    }
    expect(!err->code && *list_name(list));
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        match(list, i);
    for (size_t i = 0; list_unresolved(list, i) && i < 8; i++)
        expect(*list_unresolved(list, i));
    list_free(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    /* A copy of exactly this size: reading past its end shows. */
    char *text = malloc(size + 1);
    expect(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    char *bare = malloc(size ? size : 1);
    expect(bare != NULL);
    memcpy(bare, data, size);
    struct list *list = list_parse("fuzz.list", bare, size, &err);
    check(list, &err, EXIT_INPUT);
    free(bare);
    err = (struct error){0};
    list = list_parse_rule("--only", text, &err);
    check(list, &err, EXIT_USAGE);
    free(text);
    return 0;
}
