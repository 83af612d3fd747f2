/* SPDX-License-Identifier: MIT */
/* The register dump of a dead guest. */
#include "tests/unit/one_insn.h"

#include <stdio.h>
#include <stdlib.h>

#include "image/image.h"
#include "runtime/dump.h"
#include "tests/unit/tiny_elf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* The dump as text, to be freed. */
static char *dump(const struct vcpu *cpu)
{
    char *text;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    vcpu_dump(cpu, stream);
    fclose(stream);
    return text;
}

static void it_shows_registers_and_the_code_at_rip(void **state)
{
    (void)state;
    struct vcpu *cpu = one_insn_vcpu();
    cpu->r[R13] = 0x123456789abcdef0;
    one_insn_put(cpu, ONE_INSN_CODE, 2, 0x0b0f);
    char *text = dump(cpu);
    assert_non_null(strstr(text, "r13 123456789abcdef0"));
    assert_non_null(strstr(text, "rip 0000000000008000"));
    assert_non_null(strstr(text, "  code 0f 0b 00"));
    free(text);
    one_insn_free(cpu);
}

static void memory_that_is_not_there_is_left_out(void **state)
{
    (void)state;
    struct vcpu *cpu = one_insn_vcpu();
    cpu->rip = ONE_INSN_RAM - 1;
    cpu->r[RSP] = 0x8000000000000000;
    char *text = dump(cpu);
    assert_non_null(strstr(text, "  code 00\n"));
    free(text);
    cpu->rip = ~0ull;
    text = dump(cpu);
    assert_non_null(strstr(text, "  code\n"));
    free(text);
    one_insn_free(cpu);
}

static void names_come_from_the_image(void **state)
{
    (void)state;
    struct vcpu *cpu = one_insn_vcpu();
    struct tiny_options options = {.elf_class = 64};
    struct tiny tiny;
    struct image image;
    struct error err = {0};
    tiny_build(&options, &tiny);
    assert_int_equal(image_from_memory("tiny", tiny.bytes, tiny.size, &image, &err), 0);
    uint64_t second = tiny.base + tiny.text + 16;
    cpu->vm->image = &image;
    cpu->rip = second + 2;
    cpu->r[RSP] -= 16;
    one_insn_put(cpu, cpu->r[RSP], 8, tiny.data_address);
    one_insn_put(cpu, cpu->r[RSP] + 8, 8, second + 4);
    char *text = dump(cpu);
    assert_non_null(strstr(text, " second+0x2\n"));
    assert_non_null(strstr(text, "stack+0x008"));
    assert_non_null(strstr(text, " second+0x4\n"));
    assert_null(strstr(text, "stack+0x000"));
    free(text);
    image_close(&image);
    tiny_free(&tiny);
    one_insn_free(cpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_shows_registers_and_the_code_at_rip),
        cmocka_unit_test(memory_that_is_not_there_is_left_out),
        cmocka_unit_test(names_come_from_the_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
