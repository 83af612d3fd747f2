/* SPDX-License-Identifier: MIT */
/* The sample `loops` as a program of the host: what the processor does without anybody between.
 *
 *     native_loops LOOP rounds=N            prints what the sample prints */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define main guest_main
#include "samples/loops/loops.c"
#undef main

static char **words;

/* ---- samples/kernel/kernel.h, as far as the loops need it ---- */
void print(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    for (; *format; format++) {
        if (*format != '%')
            putchar(*format);
        else if (*++format == 's')
            fputs(va_arg(list, const char *), stdout);
        else
            printf(*format == 'x' ? "%lx" : "%lu", va_arg(list, uint64_t));
    }
    va_end(list);
}

bool command_line_has(const char *word)
{
    for (char **w = words; *w; w++)
        if (!strcmp(*w, word))
            return true;
    return false;
}

uint64_t command_line_number(const char *word, uint64_t otherwise)
{
    size_t length = strlen(word);
    for (char **w = words; *w; w++)
        if (!strncmp(*w, word, length) && (*w)[length] == '=')
            return strtoull(*w + length + 1, NULL, 10);
    return otherwise;
}

void finish(const char *name)
{
    printf("%s: passed\n", name);
    exit(EXIT_SUCCESS);
}

int main(int argc, char **argv)
{
    (void)argc;
    words = argv + 1;
    guest_main();
}
