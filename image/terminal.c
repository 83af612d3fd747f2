/* SPDX-License-Identifier: MIT */
/* Colours, and names that are safe to print. */
#include "image/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct palette terminal_palette(FILE *out)
{
    static const struct palette none = {"", "", "", "", ""};
    static const struct palette colours = {"\033[1m", "\033[32m", "\033[33m", "\033[2m", "\033[0m"};
    const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");

    if ((no_colour && *no_colour) || !terminal || strcmp(terminal, "dumb") == 0 ||
        !isatty(fileno(out)))
        return none;
    return colours;
}

void terminal_clean(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

char *terminal_copy(char *copy, size_t size, const char *text)
{
    size_t length = strnlen(text, size - 1);

    memcpy(copy, text, length);
    copy[length] = '\0';
    terminal_clean(copy);
    return copy;
}
