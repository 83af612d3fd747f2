/* SPDX-License-Identifier: MIT */
/* Loads a report, or a patched image in the shape of one, for inspection. */
#include "patchc/inspect_view.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "patchc/inspect_image.h"
#include "patchc/json.h"
#include "image/terminal.h"

#define REPORT_SCHEMA 1
#define REPORT_MAX    (64u << 20) /* bytes: ten times that of a large kernel's report */

/* A member that must be a string or null or absent. False if it is something else. Control
 * characters are taken out of it here, so that whoever prints it need not think of them. */
static bool text_member(const json_t *object, const char *key, const char **text)
{
    json_t *value = json_object_get(object, key);
    char *copy;

    *text = "";
    if (!value || json_is_null(value))
        return true;
    if (!json_is_string(value))
        return false;
    *text = json_string_value(value);
    for (const char *p = *text; *p; p++) {
        if ((unsigned char)*p >= 0x20 && *p != 0x7f)
            continue;
        copy = strdup(*text);
        if (!copy)
            return false;
        terminal_clean(copy);
        json_string_set(value, copy);
        free(copy);
        *text = json_string_value(value);
        break;
    }
    return true;
}

static bool number_member(const json_t *object, const char *key, long long *number)
{
    const json_t *value = json_object_get(object, key);

    *number = -1;
    if (!value || json_is_null(value))
        return true;
    *number = json_integer_value(value);
    return json_is_integer(value) && *number >= 0;
}

static bool address_member(const json_t *object, const char *key, uint64_t *address)
{
    const json_t *value = json_object_get(object, key);

    *address = 0;
    return !value || json_is_null(value) || json_hex_value(value, address);
}

static bool status_member(const json_t *object, enum site_status *status)
{
    const char *text;

    if (!text_member(object, "status", &text))
        return false;
    for (unsigned i = 0; i < STATUSES; i++) {
        if (strcmp(text, status_name((enum site_status)i)) == 0) {
            *status = (enum site_status)i;
            return true;
        }
    }
    return false;
}

static bool displaced_member(const json_t *object, const json_t **displaced)
{
    size_t i;
    json_t *value;

    *displaced = json_object_get(object, "displaced");
    if (!*displaced || json_is_null(*displaced)) {
        *displaced = NULL;
        return true;
    }
    if (!json_is_array(*displaced))
        return false;
    json_array_foreach(*displaced, i, value) if (!json_is_string(value)) return false;
    return true;
}

/* The window: address and size, wholly inside the address space. */
static bool window_member(const json_t *object, struct view_site *site)
{
    const json_t *window = json_object_get(object, "window");
    long long size;

    if (!window || json_is_null(window))
        return true;
    if (!json_is_object(window) || !address_member(window, "address", &site->window) ||
        !number_member(window, "size", &size) || size < 0)
        return false;
    site->window_size = (uint64_t)size;
    return site->window + site->window_size >= site->window;
}

/* What a site is counted under: its mnemonic, with the prefix of a string instruction; moves by the
 * special register and the direction. */
static void group_site(struct view_site *site)
{
    static const char *const special[] = {"cr", "dr"};
    char text[128], *comma;

    snprintf(text, sizeof text, "%s", site->instruction);
    if (strncmp(text, "mov ", 4) == 0 && (comma = strchr(text, ',')) != NULL) {
        *comma = '\0';
        const char *target = text + 4, *source = comma + 1 + strspn(comma + 1, " ");

        for (size_t i = 0; i < sizeof special / sizeof special[0]; i++) {
            if (strncmp(target, special[i], 2) == 0)
                snprintf(site->group, sizeof site->group, "mov to %.8s", target);
            else if (strncmp(source, special[i], 2) == 0)
                snprintf(site->group, sizeof site->group, "mov from %.8s", source);
        }
        if (site->group[0])
            return;
    }
    size_t length = strcspn(text, " ");

    if (strncmp(text, "rep", 3) == 0 && text[length] == ' ')
        length += 1 + strcspn(text + length + 1, " ");
    snprintf(site->group, sizeof site->group, "%.*s", (int)length, text);
}

static const char *load_site(const json_t *object, struct view_site *site)
{
    const struct {
        const char *key;
        const char **text;
    } texts[] = {
        {"symbol", &site->symbol}, {"section", &site->section},
        {"bytes", &site->bytes},   {"instruction", &site->instruction},
        {"form", &site->form},     {"form_reason", &site->form_reason},
        {"tactic", &site->tactic}, {"template", &site->template_name},
        {"reason", &site->reason},
    };

    *site = (struct view_site){.object = object};
    if (!json_is_object(object))
        return "is no object";
    if (!json_object_get(object, "address") || !address_member(object, "address", &site->address))
        return "has no 'address'";
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (!text_member(object, texts[i].key, texts[i].text))
            return "has a member that should be a string";
    if (!status_member(object, &site->status))
        return "has an unknown 'status'";
    if (!number_member(object, "slot", &site->slot) ||
        !number_member(object, "index", &site->index))
        return "has a 'slot' or 'index' that is no number";
    if (!address_member(object, "routine", &site->routine) || !window_member(object, site) ||
        !displaced_member(object, &site->displaced))
        return "has a malformed 'routine', 'window' or 'displaced'";
    group_site(site);
    return NULL;
}

static int by_address(const void *left, const void *right)
{
    const struct view_site *a = left, *b = right;

    return (a->address > b->address) - (a->address < b->address);
}

static int load_sites(struct view *view, struct error *err)
{
    json_t *sites = json_object_get(view->root, "sites"), *object;
    const json_t *schema = json_object_get(view->root, "schema");
    size_t i;

    if (!json_is_integer(schema) || !json_is_array(sites))
        return fail(err, EXIT_INPUT, "%s: JSON, but not a report: no 'schema' or no 'sites'",
                    view->name);
    if (json_integer_value(schema) != REPORT_SCHEMA)
        return fail(err, EXIT_INPUT, "%s: report schema %lld; this program knows %d", view->name,
                    (long long)json_integer_value(schema), REPORT_SCHEMA);
    view->sites = calloc(json_array_size(sites) + 1, sizeof *view->sites);
    if (!view->sites)
        return fail(err, EXIT_IO, "%s: out of memory", view->name);
    json_array_foreach(sites, i, object)
    {
        const char *wrong = load_site(object, &view->sites[i]);

        if (wrong)
            return fail(err, EXIT_INPUT, "%s: sites[%zu] %s", view->name, i, wrong);
        view->by_status[view->sites[i].status]++;
        view->count++;
    }
    qsort(view->sites, view->count, sizeof *view->sites, by_address);
    return 0;
}

/* Opens a regular file and looks at its first bytes. */
static int open_file(const char *path, FILE **file, bool *elf, struct error *err)
{
    struct stat status;
    char magic[4];
    int fd, result = 0;

    *elf = false;
    /* without O_NONBLOCK, opening a FIFO waits for a writer */
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    *file = fd < 0 ? NULL : fdopen(fd, "r");
    if (!*file) {
        fail(err, EXIT_IO, "%s: cannot open it: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (fstat(fileno(*file), &status) < 0)
        result = fail(err, EXIT_IO, "%s: %s", path, strerror(errno));
    else if (S_ISDIR(status.st_mode))
        result = fail(err, EXIT_INPUT, "%s: this is a directory; give a patched image or a report",
                      path);
    else if (!S_ISREG(status.st_mode))
        result = fail(err, EXIT_INPUT, "%s: this is not a regular file", path);
    *elf = result == 0 && fread(magic, 1, 4, *file) == 4 && memcmp(magic, "\177ELF", 4) == 0;
    if (result == 0 && ferror(*file))
        result = fail(err, EXIT_IO, "%s: cannot be read", path);
    else if (result == 0 && !*elf && status.st_size > REPORT_MAX)
        result = fail(err, EXIT_INPUT, "%s: neither a patched image nor a report: too large", path);
    if (result < 0)
        fclose(*file);
    else
        rewind(*file);
    return result;
}

static int load_report(FILE *file, struct view *view, struct error *err)
{
    json_error_t wrong;

    view->root = json_loadf(file, JSON_REJECT_DUPLICATES, &wrong);
    if (!view->root)
        return fail(err, EXIT_INPUT, "%s:%d:%d: neither a patched image nor a report: %s",
                    view->name, wrong.line, wrong.column, wrong.text);
    return 0;
}

int view_open(const char *path, struct view *view, struct error *err)
{
    const char *slash = strrchr(path, '/');
    FILE *file;
    bool elf;
    int status;

    *view = (struct view){.name = strdup(slash ? slash + 1 : path)};
    if (!view->name)
        return fail(err, EXIT_IO, "%s: out of memory", path);
    if (open_file(path, &file, &elf, err) < 0)
        return -1;
    if (elf) {
        view->patched = patched_image_open(path, err);
        view->root = view->patched ? patched_image_report(view->patched, err) : NULL;
        status = view->root ? 0 : -1;
    } else {
        status = load_report(file, view, err);
    }
    fclose(file);
    return status < 0 ? -1 : load_sites(view, err);
}

void view_close(struct view *view)
{
    patched_image_close(view->patched);
    json_decref(view->root);
    free(view->sites);
    free(view->name);
    *view = (struct view){0};
}

const char *view_text(const struct view *view, const char *object, const char *member)
{
    const char *text;

    return text_member(json_object_get(view->root, object), member, &text) ? text : "";
}

const char *view_explanation(const char *reason)
{
    for (unsigned i = REASON_NONE + 1; i < REASONS; i++)
        if (strcmp(reason, reason_name((enum reason)i)) == 0)
            return reason_explanation((enum reason)i);
    return "";
}

char *view_symbol(const struct view_site *site, char *name, size_t size)
{
    snprintf(name, size, "%.*s", (int)strcspn(site->symbol, "+"), site->symbol);
    return name;
}

/* True if the person's words name this site. */
static bool named(const struct view_site *site, const char *what)
{
    size_t length = strcspn(site->symbol, "+"), asked = strcspn(what, "+");
    uint64_t offset = 0;
    char *end;

    if (asked != length || strncmp(site->symbol, what, length) != 0)
        return false;
    if (what[asked] == '\0')
        return true;
    if (site->symbol[length] == '+')
        offset = strtoull(site->symbol + length + 1, NULL, 0);
    return strtoull(what + asked + 1, &end, 0) == offset && *end == '\0';
}

static bool holds(const struct view_site *site, uint64_t address)
{
    uint64_t length = strlen(site->bytes) / 2;

    return address == site->address || address - site->address < length ||
           address - site->window < site->window_size;
}

size_t view_find(const struct view *view, const char *what,
                 void (*visit)(const struct view *view, const struct view_site *site,
                               void *context),
                 void *context)
{
    bool prefixed = what[0] == '0' && (what[1] == 'x' || what[1] == 'X');
    const char *digits = prefixed ? what + 2 : what;
    size_t length = strspn(digits, "0123456789abcdefABCDEF"), found = 0;
    /* Addresses as `patchc scan` prints them stand without 0x; "add" is a symbol. */
    bool address = length <= 16 && length > (prefixed ? 0 : 7) && digits[length] == '\0';
    uint64_t value = address ? strtoull(digits, NULL, 16) : 0;
    bool exact = false;

    for (size_t i = 0; address && i < view->count; i++)
        exact |= view->sites[i].address == value;
    for (size_t i = 0; i < view->count; i++) {
        const struct view_site *site = &view->sites[i];
        bool hit = !address ? named(site, what)
                   : exact  ? site->address == value
                            : holds(site, value);

        if (!hit)
            continue;
        visit(view, site, context);
        found++;
    }
    return found;
}
