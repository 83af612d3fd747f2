/* SPDX-License-Identifier: MIT */
/* Loads any bytes as a guest kernel, by whichever boot protocol they ask for: the guest is ready to run, or
 * there is one error line. The first bytes of the input choose memory size, words and initrd. */
#include <stdlib.h>
#include <string.h>

#include "runtime/loader.h"
#include "runtime/vcpu.h"
#include "runtime/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

static void one_line(const struct error *err)
{
    must(err->code == HVRUN_IMAGE && err->text[0] && !strpbrk(err->text, "\r\n"));
}

/* Whatever protocol it was, the processor is about to execute bytes that are there. */
static void check(const struct vm *vm)
{
    const struct vcpu *cpu = vm->vcpus[0];
    must(memory_at(&vm->memory, cpu->rip, 1));
    must(!(cpu->rflags & RFLAGS_IF) && cpu->segment[SEG_CS].rights & RIGHTS_CODE);
    must(memory_at(&vm->memory, cpu->gdt_base, cpu->gdt_limit + 1));
    must(!vcpu_long_mode(cpu) || memory_at(&vm->memory, cpu->cr3, PAGE_SIZE));
}

static void load(const struct image *image, const uint8_t choice[2])
{
    static const char *const words[] = {NULL, "", "quiet", "a very long one"};
    static const char *const initrds[] = {NULL, "/dev/null", "/proc/self/exe", ",,",
                                          "LICENSE a b,LICENSE"};
    struct error err = {0};
    struct vm vm = {.vcpu_count = 1 + (choice[0] >> 6)};
    vm.config.append = words[choice[0] >> 4 & 3];
    vm.config.initrd = initrds[choice[1] % (sizeof initrds / sizeof *initrds)];
    vm.config.deterministic = true;
    must(!memory_create(&vm.memory, (1ull + (choice[0] & 15) * 3) << 20, &err));
    vm.vcpus[0] = vcpu_create(&vm, 0);
    must(vm.vcpus[0]);
    if (loader_load(&vm, image, &err))
        one_line(&err);
    else
        check(&vm);
    vcpu_destroy(vm.vcpus[0]);
    memory_destroy(&vm.memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct image image;
    struct error err = {0};
    if (size < 2 || image_from_memory("fuzz", data + 2, size - 2, &image, &err))
        return 0;
    load(&image, data);
    image_close(&image);
    return 0;
}
