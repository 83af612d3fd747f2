/* SPDX-License-Identifier: MIT */
/* Errors: one line of text and an exit code. */
#include "image/error.h"

#include <stdio.h>

int fail(struct error *err, int code, const char *format, ...)
{
    if (!err || err->code)
        return -1;
    va_list ap;
    va_start(ap, format);
    vsnprintf(err->text, sizeof err->text, format, ap);
    va_end(ap);
    for (char *c = err->text; *c; c++) /* names come from files: one line, whatever they hold */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    err->code = code;
    return -1;
}
