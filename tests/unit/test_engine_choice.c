/* SPDX-License-Identifier: MIT */
/* Which engine runs a guest, as far as that does not depend on the host. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "runtime/engine_choice.h"
#include "image/image.h"

#include <cmocka.h>

static const struct image plain = {.name = "guest"};

static void test_soft_is_soft(void **state)
{
    (void)state;
    struct error err = {0};
    const struct vm_config config = {.engine = "soft"};
    assert_ptr_equal(engine_choose(&config, &plain, &err), &soft_engine);
    assert_int_equal(err.code, 0);
}

static void test_auto_takes_the_soft_engine_for_options_that_need_it(void **state)
{
    (void)state;
    const struct vm_config configs[] = {
        {.engine = "auto", .deterministic = true},
        {.engine = "auto", .trace = "trace"},
        {.engine = "auto", .step = 1},
        {.engine = "auto", .gdb = "1234"},
    };
    for (size_t k = 0; k < sizeof configs / sizeof configs[0]; k++) {
        struct error err = {0};
        assert_ptr_equal(engine_choose(&configs[k], &plain, &err), &soft_engine);
        assert_int_equal(err.code, 0);
    }
}

static void test_kvm_by_name_is_refused_for_options_that_need_the_soft_engine(void **state)
{
    (void)state;
    struct error err = {0};
    const struct vm_config config = {.engine = "kvm", .deterministic = true};
    assert_null(engine_choose(&config, &plain, &err));
    assert_int_equal(err.code, HVRUN_NO_ENGINE);
    assert_string_equal(err.text, "--deterministic needs --engine soft");
}

static void test_user_chips_are_devices_of_this_process(void **state)
{
    (void)state;
    struct error err = {0};
    const struct vm_config config = {.engine = "auto", .irqchip = "user"};
    assert_null(engine_choose(&config, &plain, &err)->chips);
    assert_null(soft_engine.chips);
}

static void test_auto_always_finds_an_engine(void **state)
{
    (void)state;
    struct error err = {0};
    const struct vm_config config = {.engine = "auto"};
    const struct engine *engine = engine_choose(&config, &plain, &err);
    assert_true(engine == &soft_engine || engine == &kvm_engine);
    assert_int_equal(err.code, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_soft_is_soft),
        cmocka_unit_test(test_auto_takes_the_soft_engine_for_options_that_need_it),
        cmocka_unit_test(test_kvm_by_name_is_refused_for_options_that_need_the_soft_engine),
        cmocka_unit_test(test_user_chips_are_devices_of_this_process),
        cmocka_unit_test(test_auto_always_finds_an_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
