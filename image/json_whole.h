/* SPDX-License-Identifier: MIT */
/* The text of a JSON value, whole or not at all. */
#ifndef IMAGE_JSON_WHOLE_H
#define IMAGE_JSON_WHOLE_H

#include <jansson.h>

/* malloc'd; NULL without memory or for NULL. As json_dumps, which without memory may leave out keys and call that
 * success. */
char *json_whole(const json_t *value, size_t flags);

#endif
