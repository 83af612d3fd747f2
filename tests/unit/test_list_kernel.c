/* SPDX-License-Identifier: MIT */
/* Lists on a real kernel (D6): the number of sites that docs/linux.md tells, and the bounds of the
 * code that kvm.list leaves alone. */
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

#include <cmocka.h>

static struct image image;

static int open_kernel(void **state)
{
    (void)state;
    const char *path = getenv("PV_KERNEL_CLOUD");
    struct error err = {0};
    if (path && image_open(path, &image, &err)) {
        print_message("# %s\n", err.text);
        return -1;
    }
    return 0;
}

static int close_kernel(void **state)
{
    (void)state;
    if (image.bytes)
        image_close(&image);
    return 0;
}

static struct list *open_list(const char *path)
{
    if (!image.bytes) {
        print_message("# PV_KERNEL_CLOUD names no kernel: nothing is matched on one\n");
        skip();
    }
    struct error err = {0};
    struct list *list = list_open(path, &err);
    if (!list)
        fail_msg("%s", err.text);
    list_resolve(list, &image);
    return list;
}

/* Counts what the list names in [from, to) of one section, decoding straight on. */
static size_t count_section(const struct list *list, const struct image_section *section,
                            uint64_t from, uint64_t to)
{
    ZydisDecoder decoder;
    ZydisDecoderContext context;
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    const uint8_t *bytes = image.bytes + section->offset;
    size_t count = 0;
    for (uint64_t at = 0; at < section->size; at += instruction.length) {
        instruction.length = 1;
        if (bytes[at] == 0xcc || /* padding, four million times */
            ZYAN_FAILED(ZydisDecoderDecodeInstruction(&decoder, &context, bytes + at,
                                                      section->size - at, &instruction))) {
            instruction.length = 1;
            continue;
        }
        uint64_t address = section->address + at;
        if (!list_names_mnemonic(list, instruction.mnemonic) || address < from || address >= to)
            continue;
        ZydisDecoderDecodeOperands(&decoder, &context, &instruction, operands,
                                   instruction.operand_count);
        const struct image_symbol *symbol = image_symbol_at(&image, address, NULL);
        struct list_candidate candidate = {.address = address,
                                           .section = section->name,
                                           .symbol = symbol ? symbol->name : "",
                                           .instruction = &instruction,
                                           .operands = operands};
        count += list_match(list, &candidate) != NULL;
    }
    return count;
}

static size_t count_sites(const struct list *list, uint64_t from, uint64_t to)
{
    size_t count = 0;
    for (size_t i = 0; i < image.section_count; i++) {
        const struct image_section *section = &image.sections[i];
        if (section->type == SHT_PROGBITS && section->flags & SHF_EXECINSTR &&
            strcmp(section->name, ".altinstr_replacement"))
            count += count_section(list, section, from, to);
    }
    return count;
}

static void test_D6_prototype_list_finds_the_known_sites(void **state)
{
    (void)state;
    static const char version[] = "Debian 6.1.192-2 ";
    struct list *list = open_list("tests/lists/prototype.list");
    size_t count = count_sites(list, 0, UINT64_MAX);
    list_free(list);
    if (memmem(image.bytes, image.size, version, sizeof version - 1))
        assert_int_equal(count, 974);
    else /* another version of the kernel: about as many */
        assert_in_range(count, 800, 1300);
}

static void test_D6_kvm_list_leaves_entry_and_noinstr_code_alone(void **state)
{
    (void)state;
    static const char *const bounds[][2] = {{"__entry_text_start", "__entry_text_end"},
                                            {"__noinstr_text_start", "__noinstr_text_end"}};
    struct list *list = open_list("lists/kvm.list");
    struct list *all = open_list("lists/deprivileged.list");
    assert_null(list_unresolved(list, 0));
    for (size_t i = 0; i < 2; i++) {
        const struct image_symbol *start = image_symbol_named(&image, bounds[i][0]);
        const struct image_symbol *end = image_symbol_named(&image, bounds[i][1]);
        assert_non_null(start);
        assert_non_null(end);
        assert_int_equal(count_sites(list, start->address, end->address), 0);
        assert_in_range(count_sites(all, start->address, end->address), 20, 200);
    }
    assert_in_range(count_sites(list, 0, UINT64_MAX), 600, 1100);
    list_free(list);
    list_free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_D6_prototype_list_finds_the_known_sites),
        cmocka_unit_test(test_D6_kvm_list_leaves_entry_and_noinstr_code_alone),
    };
    return cmocka_run_group_tests(tests, open_kernel, close_kernel);
}
