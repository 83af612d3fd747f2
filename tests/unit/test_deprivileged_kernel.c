/* SPDX-License-Identifier: MIT */
/* Templates on real kernels (D7): every instruction that the shipped lists name has one, in the
 * very form that it has there, with a stack and without. */
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
#include "patchc/template.h"

#include <cmocka.h>

static const char *const kernel_variables[] = {"PV_KERNEL_CLOUD", "PV_KERNEL_GENERIC"};

static struct image images[2]; /* without bytes: not named */

struct sweep {
    const struct image *image;
    struct list *list;
    struct template_set *set;
    struct template_available rich, bare; /* with all that a site can offer; with nothing */
    size_t sites;
};

static void check_site(struct sweep *sweep, uint64_t address,
                       const ZydisDecodedInstruction *instruction,
                       const ZydisDecodedOperand *operands)
{
    const char *mnemonic = ZydisMnemonicGetString(instruction->mnemonic);
    sweep->sites++;
    if (!template_find(sweep->set, NULL, instruction, operands, &sweep->rich, NULL))
        fail_msg("%#llx: no template for %s", (unsigned long long)address, mnemonic);
    if (!template_find(sweep->set, NULL, instruction, operands, &sweep->bare, NULL))
        fail_msg("%#llx: no template without a stack for %s", (unsigned long long)address,
                 mnemonic);
}

static void sweep_section(struct sweep *sweep, const struct image_section *section)
{
    ZydisDecoder decoder;
    ZydisDecoderContext context;
    ZydisDecodedInstruction instruction;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    const uint8_t *bytes = sweep->image->bytes + section->offset;
    for (uint64_t at = 0; at < section->size; at += instruction.length) {
        if (bytes[at] == 0xcc || /* padding, four million times */
            ZYAN_FAILED(ZydisDecoderDecodeInstruction(&decoder, &context, bytes + at,
                                                      section->size - at, &instruction))) {
            instruction.length = 1;
            continue;
        }
        if (!list_names_mnemonic(sweep->list, instruction.mnemonic))
            continue;
        ZydisDecoderDecodeOperands(&decoder, &context, &instruction, operands,
                                   instruction.operand_count);
        const struct list_candidate candidate = {.address = section->address + at,
                                                 .section = section->name,
                                                 .symbol = "",
                                                 .instruction = &instruction,
                                                 .operands = operands};
        if (list_match(sweep->list, &candidate))
            check_site(sweep, candidate.address, &instruction, operands);
    }
}

static size_t sweep_kernel(const struct image *image, const char *list, bool deprivileged)
{
    struct error err = {0};
    struct sweep sweep = {.image = image,
                          .bare = {.deprivileged = deprivileged},
                          .rich = {.context = ~0u,
                                   .state = true,
                                   .cpuid = true,
                                   .msr = true,
                                   .deprivileged = deprivileged}};
    sweep.list = list_open(list, &err);
    sweep.set = template_set_open(&err);
    if (!sweep.list || !sweep.set)
        fail_msg("%s", err.text);
    list_resolve(sweep.list, image);
    for (size_t i = 0; i < image->section_count; i++) {
        const struct image_section *section = &image->sections[i];
        if (section->type == SHT_PROGBITS && section->flags & SHF_EXECINSTR)
            sweep_section(&sweep, section);
    }
    template_set_close(sweep.set);
    list_free(sweep.list);
    return sweep.sites;
}

static void sweep_kernels(const char *list, bool deprivileged, size_t at_least)
{
    bool any = false;
    for (size_t i = 0; i < 2; i++) {
        if (!images[i].bytes)
            continue;
        any = true;
        assert_in_range(sweep_kernel(&images[i], list, deprivileged), at_least, 3 * at_least);
    }
    if (any)
        return;
    print_message("# PV_KERNEL_CLOUD and PV_KERNEL_GENERIC name no kernel: nothing is swept\n");
    skip();
}

static void test_D7_every_site_of_deprivileged_list_has_a_template(void **state)
{
    (void)state;
    sweep_kernels("lists/deprivileged.list", true, 2500);
}

static void test_D7_every_site_of_kvm_list_has_a_template(void **state)
{
    (void)state;
    sweep_kernels("lists/kvm.list", false, 700);
}

static void test_D7_every_site_of_io_list_has_a_template(void **state)
{
    (void)state;
    sweep_kernels("lists/io.list", false, 500);
}

static int open_kernels(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct error err = {0};
        const char *path = getenv(kernel_variables[i]);
        if (path && image_open(path, &images[i], &err)) {
            print_message("# %s\n", err.text);
            return -1;
        }
    }
    return 0;
}

static int close_kernels(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++)
        if (images[i].bytes)
            image_close(&images[i]);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_D7_every_site_of_deprivileged_list_has_a_template),
        cmocka_unit_test(test_D7_every_site_of_kvm_list_has_a_template),
        cmocka_unit_test(test_D7_every_site_of_io_list_has_a_template),
    };
    return cmocka_run_group_tests(tests, open_kernels, close_kernels);
}
