/* SPDX-License-Identifier: MIT */
/* The smallest sample: a line on COM1, then the debug exit. */
#include "samples/kernel/kernel.h"

void main(void)
{
    print("Hello from 64-bit mode, level %u.\n", (uint64_t)0);
    check(!command_line_has("no-such-word"), "a word that is not on the command line is not found");
    if (command_line_has("fail"))
        check(false, "told to fail");
    finish("hello");
}
