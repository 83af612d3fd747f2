/* SPDX-License-Identifier: MIT */
/* JSON text into a buffer of the size that it needs: there is no growing that could fail half-way. */
#include "image/json_whole.h"

#include <stdlib.h>

char *json_whole(const json_t *value, size_t flags)
{
    size_t size = value ? json_dumpb(value, NULL, 0, flags) : 0;
    char *text = size ? malloc(size + 1) : NULL;
    if (!text)
        return NULL;
    if (json_dumpb(value, text, size, flags) != size) {
        free(text);
        return NULL;
    }
    text[size] = '\0';
    return text;
}
