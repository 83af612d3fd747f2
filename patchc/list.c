/* SPDX-License-Identifier: MIT */
/* Instruction lists (D6): reading files, building the index, giving all of it back. */
#include "patchc/list_rules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void *list_grow(void *array_pointer, size_t *count, size_t *room, size_t size, struct error *err)
{
    char *array;
    memcpy(&array, array_pointer, sizeof array);
    if (*count == *room) {
        size_t larger = *room ? *room * 2 : 16;
        char *moved = reallocarray(array, larger, size);
        if (!moved) {
            fail(err, EXIT_IO, "out of memory");
            return NULL;
        }
        array = moved;
        *room = larger;
        memcpy(array_pointer, &array, sizeof array);
    }
    return memset(array + size * (*count)++, 0, size);
}

static struct list *list_new(const char *name, struct error *err)
{
    const char *slash = strrchr(name, '/');
    struct list *list = calloc(1, sizeof *list);
    if (list)
        list->name = strdup(slash ? slash + 1 : name);
    if (!list || !list->name) {
        fail(err, EXIT_IO, "%s: out of memory", name);
        list_free(list);
        return NULL;
    }
    return list;
}

/* Sorts the rules by mnemonic, keeping their order (a counting sort). */
static int build_index(struct list *list, struct error *err)
{
    list->by_mnemonic = calloc(list->name_count + 1, sizeof *list->by_mnemonic);
    if (!list->by_mnemonic)
        return fail(err, EXIT_IO, "%s: out of memory", list->name);
    for (size_t i = 0; i < list->name_count; i++) {
        unsigned m = list->names[i].mnemonic;
        list->first[m + 1]++;
        if (!list->rules[list->names[i].rule].include)
            continue;
        list->included[m / 8] |= (uint8_t)(1u << m % 8);
        list->includes_all |= m == ZYDIS_MNEMONIC_INVALID;
    }
    for (size_t m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++)
        list->first[m + 1] += list->first[m];
    uint32_t fill[ZYDIS_MNEMONIC_MAX_VALUE + 1];
    memcpy(fill, list->first, sizeof fill);
    for (size_t i = 0; i < list->name_count; i++)
        list->by_mnemonic[fill[list->names[i].mnemonic]++] = list->names[i].rule;
    free(list->names);
    list->names = NULL;
    list->name_count = list->name_room = 0;
    return 0;
}

/* Completes a list that was read, or gives it back if that failed. */
static struct list *finish(struct list *list, int result, struct error *err)
{
    if (result || build_index(list, err)) {
        list_free(list);
        return NULL;
    }
    return list;
}

/* Reads at most LIST_TEXT_MAX + 1 bytes of an open file: one more than a list may have. */
static int read_text(struct list *list, int fd, const char *path, unsigned depth, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return fail(err, EXIT_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return fail(err, EXIT_INPUT, "%s: not a regular file: give a list file", path);
    char *text = malloc(LIST_TEXT_MAX + 1);
    const char *slash = strrchr(path, '/');
    char *directory = strndup(path, slash ? (size_t)(slash - path) + 1 : 0);
    size_t length = 0;
    ssize_t got = 1;
    int result = 0;
    if (!text || !directory)
        result = fail(err, EXIT_IO, "%s: out of memory", path);
    while (!result && got && length <= LIST_TEXT_MAX) {
        got = read(fd, text + length, LIST_TEXT_MAX + 1 - length);
        if (got < 0 && errno != EINTR)
            result = fail(err, EXIT_IO, "%s: %s", path, strerror(errno));
        if (got > 0)
            length += (size_t)got;
    }
    if (!result)
        result = list_parse_text(list, path, directory, depth, text, length, err);
    free(directory);
    free(text);
    return result;
}

int list_read_file(struct list *list, const char *path, unsigned depth, struct error *err)
{
    if (list->file_count++ == LIST_FILES_MAX)
        return fail(err, EXIT_INPUT, "%s: a list may include at most %u files", path,
                    LIST_FILES_MAX - 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not make us wait */
    if (fd < 0)
        return fail(err, EXIT_IO, "%s: %s", path, strerror(errno));
    int result = read_text(list, fd, path, depth, err);
    close(fd);
    return result;
}

struct list *list_open(const char *path, struct error *err)
{
    struct list *list = list_new(path, err);
    return list ? finish(list, list_read_file(list, path, 0, err), err) : NULL;
}

struct list *list_parse(const char *name, const char *text, size_t length, struct error *err)
{
    struct list *list = list_new(name, err);
    if (!list)
        return NULL;
    return finish(list, list_parse_text(list, name, NULL, 0, text, length, err), err);
}

struct list *list_parse_rule(const char *option, const char *text, struct error *err)
{
    struct list *list = list_new(option, err);
    return list ? finish(list, list_parse_option(list, option, text, err), err) : NULL;
}

void list_free(struct list *list)
{
    if (!list)
        return;
    for (size_t i = 0; i < list->rule_count; i++) {
        struct list_rule *rule = &list->rules[i];
        free(rule->section);
        free(rule->symbol);
        free(rule->range_start);
        free(rule->range_end);
        free(rule->template);
    }
    free(list->rules);
    free(list->forms);
    free(list->names);
    free(list->by_mnemonic);
    free(list->name);
    free(list);
}

const char *list_name(const struct list *list)
{
    return list->name;
}

enum pv_form list_rule_form(const struct list_rule *rule)
{
    return rule->form;
}

const char *list_rule_template(const struct list_rule *rule)
{
    return rule->template;
}

bool list_rule_prefers_block(const struct list_rule *rule)
{
    return rule->block;
}
