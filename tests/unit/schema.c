/* SPDX-License-Identifier: MIT */
/* A validator for the part of JSON Schema (draft 2020-12) that the report's schema uses. */
#include "tests/unit/schema.h"

#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct check {
    const json_t *root;
    const json_t *schema, *value;
    const char *path;
    char *why;
    size_t size;
};

static bool wrong(const struct check *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool wrong(const struct check *c, const char *format, ...)
{
    va_list arguments;
    size_t used = (size_t)snprintf(c->why, c->size, "%s: ", c->path);

    va_start(arguments, format);
    if (used < c->size)
        vsnprintf(c->why + used, c->size - used, format, arguments);
    va_end(arguments);
    return false;
}

static bool run(const struct check *parent, const json_t *schema, const json_t *value,
                const char *path);

static bool has_type(const char *type, const json_t *value)
{
    if (strcmp(type, "number") == 0)
        return json_is_number(value);
    return (strcmp(type, "object") == 0 && json_is_object(value)) ||
           (strcmp(type, "array") == 0 && json_is_array(value)) ||
           (strcmp(type, "string") == 0 && json_is_string(value)) ||
           (strcmp(type, "integer") == 0 && json_is_integer(value)) ||
           (strcmp(type, "null") == 0 && json_is_null(value));
}

static bool check_type(const struct check *c, const json_t *keyword)
{
    size_t i;
    json_t *type;

    if (json_is_string(keyword) && has_type(json_string_value(keyword), c->value))
        return true;
    json_array_foreach(keyword, i,
                       type) if (has_type(json_string_value(type), c->value)) return true;
    return wrong(c, "has another type");
}

static bool check_enum(const struct check *c, const json_t *keyword)
{
    size_t i;
    json_t *choice;

    json_array_foreach(keyword, i, choice) if (json_equal(choice, c->value)) return true;
    return wrong(c, "is none of the values of the schema");
}

static bool check_const(const struct check *c, const json_t *keyword)
{
    return json_equal(keyword, c->value) || wrong(c, "is not the value of the schema");
}

static bool check_pattern(const struct check *c, const json_t *keyword)
{
    regex_t pattern;
    bool matches;

    if (!json_is_string(c->value))
        return true;
    if (regcomp(&pattern, json_string_value(keyword), REG_EXTENDED | REG_NOSUB) != 0)
        return wrong(c, "the schema's pattern is no pattern");
    matches = regexec(&pattern, json_string_value(c->value), 0, NULL, 0) == 0;
    regfree(&pattern);
    return matches || wrong(c, "'%s' does not match", json_string_value(c->value));
}

static bool check_minimum(const struct check *c, const json_t *keyword)
{
    return !json_is_number(c->value) || json_number_value(c->value) >= json_number_value(keyword) ||
           wrong(c, "is too small");
}

static bool check_maximum(const struct check *c, const json_t *keyword)
{
    return !json_is_number(c->value) || json_number_value(c->value) <= json_number_value(keyword) ||
           wrong(c, "is too large");
}

static bool check_required(const struct check *c, const json_t *keyword)
{
    size_t i;
    json_t *key;

    if (!json_is_object(c->value))
        return true;
    json_array_foreach(keyword, i, key)
    {
        if (!json_object_get(c->value, json_string_value(key)))
            return wrong(c, "has no '%s'", json_string_value(key));
    }
    return true;
}

static bool check_properties(const struct check *c, const json_t *keyword)
{
    const char *key;
    json_t *schema;

    json_object_foreach((json_t *)keyword, key, schema)
    {
        const json_t *member = json_object_get(c->value, key);
        char path[256];

        snprintf(path, sizeof path, "%s.%s", c->path, key);
        if (member && !run(c, schema, member, path))
            return false;
    }
    return true;
}

static bool check_additional(const struct check *c, const json_t *keyword)
{
    const json_t *known = json_object_get(c->schema, "properties");
    const char *key;
    json_t *member;

    json_object_foreach((json_t *)c->value, key, member)
    {
        char path[256];

        snprintf(path, sizeof path, "%s.%s", c->path, key);
        if (!json_object_get(known, key) && !run(c, keyword, member, path))
            return false;
    }
    return true;
}

static bool check_items(const struct check *c, const json_t *keyword)
{
    size_t i;
    json_t *item;

    json_array_foreach(c->value, i, item)
    {
        char path[256];

        snprintf(path, sizeof path, "%s[%zu]", c->path, i);
        if (!run(c, keyword, item, path))
            return false;
    }
    return true;
}

static bool check_ref(const struct check *c, const json_t *keyword)
{
    const char *name = json_string_value(keyword);
    const json_t *schema = NULL;

    if (strncmp(name, "#/$defs/", 8) == 0)
        schema = json_object_get(json_object_get(c->root, "$defs"), name + 8);
    return schema ? run(c, schema, c->value, c->path) : wrong(c, "the schema has no %s", name);
}

static bool check_nothing(const struct check *c, const json_t *keyword)
{
    (void)c;
    (void)keyword;
    return true;
}

static const struct {
    const char *keyword;
    bool (*check)(const struct check *c, const json_t *keyword);
} keywords[] = {
    {"type", check_type},
    {"enum", check_enum},
    {"const", check_const},
    {"pattern", check_pattern},
    {"minimum", check_minimum},
    {"maximum", check_maximum},
    {"required", check_required},
    {"properties", check_properties},
    {"additionalProperties", check_additional},
    {"items", check_items},
    {"$ref", check_ref},
    {"$schema", check_nothing},
    {"$defs", check_nothing},
    {"title", check_nothing},
};

static bool run(const struct check *parent, const json_t *schema, const json_t *value,
                const char *path)
{
    struct check c = *parent;
    const char *key;
    json_t *keyword;

    c.schema = schema;
    c.value = value;
    c.path = path;
    json_object_foreach((json_t *)schema, key, keyword)
    {
        size_t i = 0, count = sizeof keywords / sizeof keywords[0];

        while (i < count && strcmp(keywords[i].keyword, key) != 0)
            i++;
        if (i == count)
            return wrong(&c, "this validator does not know the keyword '%s'", key);
        if (!keywords[i].check(&c, keyword))
            return false;
    }
    return true;
}

bool schema_check(const json_t *root, const json_t *schema, const json_t *value, char *why,
                  size_t size)
{
    struct check c = {.root = root, .why = why, .size = size};

    return run(&c, schema, value, "report");
}
