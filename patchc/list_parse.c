/* SPDX-License-Identifier: MIT */
/* The parser of instruction lists (D6). The grammar, as patchc-list(5) explains it:
 *
 *   line      = [ ("include" | "exclude") rule | "@include" file ] [ "#" comment ]
 *   rule      = mnemonics [ operand { "," operand } ] { setting }
 *   mnemonics = "*" | name { "/" name }
 *   operand   = form { "/" form }
 *   setting   = name "=" value          conditions and, in include rules, preferences
 *
 * A line is cut into words at blanks; a comma is a word of its own. A word with "=" is a setting,
 * which is how the end of the operands is found without looking further. Each word is visited once.
 */
#include "patchc/list_rules.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct word {
    const char *at;
    size_t length; /* 0: end of the line */
};

struct parser {
    struct list *list;
    const char *name;               /* of the file or option, for errors */
    unsigned line;                  /* 0: an option, which has only columns */
    const char *start, *next, *end; /* of the line, its comment cut off */
    struct error *err;
};

/* A word as it may stand in a message: short, printable. */
struct quoted {
    char text[48];
};

static struct quoted quote(const char *at, size_t length)
{
    struct quoted q;
    size_t n = 0;
    for (; n < length && n < sizeof q.text - 4; n++)
        q.text[n] = isprint((unsigned char)at[n]) ? at[n] : '?';
    if (n < length)
        for (int dots = 0; dots < 3; dots++)
            q.text[n++] = '.';
    q.text[n] = 0;
    return q;
}

/* Reports an error at a place in the line. Returns -1. */
static int __attribute__((format(printf, 3, 4)))
bad(struct parser *p, const char *at, const char *format, ...)
{
    char message[360];
    va_list ap;
    va_start(ap, format);
    vsnprintf(message, sizeof message, format, ap);
    va_end(ap);
    unsigned column = (unsigned)(at - p->start) + 1;
    if (!p->line)
        return fail(p->err, EXIT_USAGE, "%s: column %u: %s", p->name, column, message);
    return fail(p->err, EXIT_INPUT, "%.120s:%u:%u: %s", p->name, p->line, column, message);
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static struct word next_word(struct parser *p)
{
    while (p->next < p->end && blank(*p->next))
        p->next++;
    struct word w = {p->next, 0};
    if (p->next < p->end && *p->next == ',')
        p->next++;
    else
        while (p->next < p->end && !blank(*p->next) && *p->next != ',')
            p->next++;
    w.length = (size_t)(p->next - w.at);
    return w;
}

static bool is(struct word w, const char *text)
{
    return w.length == strlen(text) && !strncasecmp(w.at, text, w.length);
}

/* Cuts the next alternative off a "a/b/c" word. False when none is left. */
static bool next_alternative(struct word *rest, struct word *alternative, bool *more)
{
    if (!*more)
        return false;
    const char *slash = memchr(rest->at, '/', rest->length);
    size_t length = slash ? (size_t)(slash - rest->at) : rest->length;
    *alternative = (struct word){rest->at, length};
    *more = slash != NULL;
    if (slash)
        *rest = (struct word){slash + 1, rest->length - length - 1};
    return true;
}

/* A number, decimal or 0x hexadecimal, that is all of the word. */
static bool number(const char *at, size_t length, uint64_t *value)
{
    char text[24];
    bool hex = length > 2 && at[0] == '0' && (at[1] | 0x20) == 'x';
    if (!length || length >= sizeof text || !isxdigit((unsigned char)at[hex ? 2 : 0]))
        return false;
    memcpy(text, at, length);
    text[length] = 0;
    char *end;
    errno = 0;
    *value = strtoull(hex ? text + 2 : text, &end, hex ? 16 : 10);
    return !*end && !errno;
}

/* LOW or LOW-HIGH, both inclusive. */
static int number_range(struct parser *p, struct word value, uint64_t limit, const char *expected,
                        uint64_t *low, uint64_t *high)
{
    const char *dash = memchr(value.at, '-', value.length);
    size_t length = dash ? (size_t)(dash - value.at) : value.length;
    if (!number(value.at, length, low))
        return bad(p, value.at, "expected %s, not '%s'", expected, quote(value.at, length).text);
    *high = *low;
    if (dash && !number(dash + 1, value.length - length - 1, high))
        return bad(p, dash + 1, "expected %s, not '%s'", expected,
                   quote(dash + 1, value.length - length - 1).text);
    if (*high < *low)
        return bad(p, value.at, "the range ends before it begins");
    if (*high > limit)
        return bad(p, dash ? dash + 1 : value.at, "0x%llx is too large: expected %s",
                   (unsigned long long)*high, expected);
    return 0;
}

static char *copy(struct parser *p, const char *at, size_t length)
{
    char *text = strndup(at, length);
    if (!text)
        fail(p->err, EXIT_IO, "%s: out of memory", p->name);
    return text;
}

/* mnemonics */

static int add_name(struct parser *p, ZydisMnemonic mnemonic)
{
    struct list *list = p->list;
    struct list_name *name =
        list_grow(&list->names, &list->name_count, &list->name_room, sizeof *name, p->err);
    if (!name)
        return -1;
    name->rule = (uint32_t)(list->rule_count - 1);
    name->mnemonic = (uint16_t)mnemonic;
    return 0;
}

static int unknown_mnemonic(struct parser *p, struct word w)
{
    if (!w.length)
        return bad(p, w.at, "expected a mnemonic");
    if (memchr(w.at, '*', w.length) || memchr(w.at, '?', w.length))
        return bad(p, w.at,
                   "'%s': a mnemonic cannot be a pattern, it would name more than it seems to; "
                   "name each one (a/b/c), or use '*' alone for every instruction",
                   quote(w.at, w.length).text);
    const char *close = list_mnemonic_close_to(w.at, w.length);
    if (close)
        return bad(p, w.at, "unknown mnemonic '%s'; did you mean '%s'?", quote(w.at, w.length).text,
                   close);
    return bad(p, w.at, "unknown mnemonic '%s'", quote(w.at, w.length).text);
}

static int parse_mnemonics(struct parser *p, struct word word)
{
    if (is(word, "*"))
        return add_name(p, ZYDIS_MNEMONIC_INVALID);
    struct word w;
    bool more = true;
    while (next_alternative(&word, &w, &more)) {
        const ZydisMnemonic *family = list_family_named(w.at, w.length);
        if (family) {
            for (; *family != ZYDIS_MNEMONIC_INVALID; family++)
                if (add_name(p, *family))
                    return -1;
            continue;
        }
        ZydisMnemonic mnemonic = list_mnemonic_named(w.at, w.length);
        if (mnemonic == ZYDIS_MNEMONIC_INVALID)
            return unknown_mnemonic(p, w);
        if (add_name(p, mnemonic))
            return -1;
    }
    return 0;
}

/* True if every mnemonic of the rule that is being parsed is one of IN, OUT, INS and OUTS. */
static bool all_io(const struct parser *p)
{
    for (size_t i = p->list->name_count; i-- > 0;) {
        if (p->list->names[i].rule != p->list->rule_count - 1)
            break;
        switch (p->list->names[i].mnemonic) {
        case ZYDIS_MNEMONIC_IN:
        case ZYDIS_MNEMONIC_OUT:
        case ZYDIS_MNEMONIC_INSB:
        case ZYDIS_MNEMONIC_INSW:
        case ZYDIS_MNEMONIC_INSD:
        case ZYDIS_MNEMONIC_OUTSB:
        case ZYDIS_MNEMONIC_OUTSW:
        case ZYDIS_MNEMONIC_OUTSD:
            break;
        default:
            return false;
        }
    }
    return true;
}

/* operands */

static int unknown_operand(struct parser *p, struct word w)
{
    if (!w.length || is(w, ","))
        return bad(p, w.at,
                   "expected an operand (*, a register, cr*, dr*, gpr64, sreg, mem, imm8, rel or "
                   "a number)");
    const char *after = w.at + w.length;
    while (after < p->end && blank(*after))
        after++;
    if (after < p->end && *after == '=')
        return bad(p, after, "no blank may stand before '='");
    return bad(
        p, w.at,
        "unknown operand '%s' (expected *, a register, cr*, dr*, gpr64, sreg, mem, imm8, rel "
        "or a number)",
        quote(w.at, w.length).text);
}

static int parse_operand(struct parser *p, struct list_rule *rule, struct word word)
{
    struct list *list = p->list;
    if (rule->operand_count == LIST_OPERANDS_MAX)
        return bad(p, word.at, "no instruction has more than %u operands", LIST_OPERANDS_MAX);
    uint32_t first = (uint32_t)list->form_count;
    struct word w;
    bool more = true;
    while (next_alternative(&word, &w, &more)) {
        struct operand_form form;
        uint64_t value;
        if (number(w.at, w.length, &value))
            form = (struct operand_form){.kind = OPERAND_VALUE, .low = value};
        else if (!list_operand_named(w.at, w.length, &form))
            return unknown_operand(p, w);
        struct operand_form *slot =
            list_grow(&list->forms, &list->form_count, &list->form_room, sizeof form, p->err);
        if (!slot)
            return -1;
        *slot = form;
    }
    rule->operands[rule->operand_count].first = first;
    rule->operands[rule->operand_count].count = (uint32_t)list->form_count - first;
    rule->operand_count++;
    return 0;
}

/* settings */

static int set_port(struct parser *p, struct list_rule *rule, struct word value)
{
    if (!all_io(p))
        return bad(p, value.at, "only IN, OUT, INS and OUTS have a port: name one of these");
    if (is(value, "dx")) {
        rule->port_dx = true;
        return 0;
    }
    uint64_t low = 0, high = 0;
    if (number_range(p, value, 0xffff, "a port: dx, PORT or PORT-PORT", &low, &high))
        return -1;
    if (high > 0xff)
        return bad(p, value.at,
                   "port 0x%llx cannot be an immediate: ports above 0xff are reached through DX "
                   "(port=dx)",
                   (unsigned long long)high);
    rule->port_low = (uint16_t)low;
    rule->port_high = (uint16_t)high;
    return 0;
}

static int set_section(struct parser *p, struct list_rule *rule, struct word value)
{
    rule->section = copy(p, value.at, value.length);
    return rule->section ? 0 : -1;
}

static int set_symbol(struct parser *p, struct list_rule *rule, struct word value)
{
    rule->symbol = copy(p, value.at, value.length);
    return rule->symbol ? 0 : -1;
}

static int set_address(struct parser *p, struct list_rule *rule, struct word value)
{
    return number_range(p, value, UINT64_MAX, "an address: ADDRESS or ADDRESS-ADDRESS",
                        &rule->address_low, &rule->address_high);
}

static int set_range(struct parser *p, struct list_rule *rule, struct word value)
{
    const char *dots = memmem(value.at, value.length, "..", 2);
    size_t length = dots ? (size_t)(dots - value.at) : 0;
    if (!dots || !length || length + 2 == value.length)
        return bad(p, value.at, "expected two symbols: START..END, not '%s'",
                   quote(value.at, value.length).text);
    if (p->list->range_count++ == LIST_RANGES_MAX)
        return bad(p, value.at, "more than %u rules with range=", LIST_RANGES_MAX);
    rule->range_start = copy(p, value.at, length);
    rule->range_end = copy(p, dots + 2, value.length - length - 2);
    if (!rule->range_start || !rule->range_end)
        return -1;
    rule->range_missing[0] = rule->range_start;
    rule->range_missing[1] = rule->range_end;
    return 0;
}

static int set_branch(struct parser *p, struct list_rule *rule, struct word value)
{
    rule->branch_far = is(value, "far");
    if (!rule->branch_far && !is(value, "near"))
        return bad(p, value.at, "expected near or far, not '%s'",
                   quote(value.at, value.length).text);
    return 0;
}

static int set_form(struct parser *p, struct list_rule *rule, struct word value)
{
    static const struct {
        const char *name;
        enum pv_form form;
    } forms[] = {{"auto", PV_FORM_NONE},
                 {"jump", PV_FORM_JUMP},
                 {"call", PV_FORM_CALL},
                 {"branch", PV_FORM_BRANCH},
                 {"break", PV_FORM_BREAK}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (is(value, forms[i].name)) {
            rule->form = forms[i].form;
            return 0;
        }
    return bad(p, value.at, "expected auto, jump, call, branch or break, not '%s'",
               quote(value.at, value.length).text);
}

static int set_template(struct parser *p, struct list_rule *rule, struct word value)
{
    for (size_t i = 0; i < value.length; i++)
        if (!isalnum((unsigned char)value.at[i]) && !strchr("_-.", value.at[i]))
            return bad(p, value.at + i,
                       "a template's name has only letters, digits, '_', '-', '.'");
    rule->template = copy(p, value.at, value.length);
    return rule->template ? 0 : -1;
}

static int set_action(struct parser *p, struct list_rule *rule, struct word value)
{
    rule->block = is(value, "block");
    if (!rule->block && !is(value, "patch"))
        return bad(p, value.at, "expected patch or block, not '%s'",
                   quote(value.at, value.length).text);
    if (rule->block && !all_io(p))
        return bad(p, value.at, "only IN, OUT, INS and OUTS can be left to an IO block");
    return 0;
}

static const struct setting {
    const char *name;
    unsigned condition; /* enum condition; 0: a preference, only for include rules */
    int (*set)(struct parser *p, struct list_rule *rule, struct word value);
} settings[] = {
    {"port", CONDITION_PORT, set_port},
    {"section", CONDITION_SECTION, set_section},
    {"symbol", CONDITION_SYMBOL, set_symbol},
    {"address", CONDITION_ADDRESS, set_address},
    {"range", CONDITION_RANGE, set_range},
    {"branch", CONDITION_BRANCH, set_branch},
    {"form", 0, set_form},
    {"template", 0, set_template},
    {"action", 0, set_action},
};

static int parse_setting(struct parser *p, struct list_rule *rule, struct word w, unsigned *seen)
{
    const char *equals = memchr(w.at, '=', w.length);
    if (!equals)
        return bad(p, w.at,
                   "expected a setting (NAME=VALUE) or the end of the line, not '%s' (operands are "
                   "separated by commas)",
                   quote(w.at, w.length).text);
    struct word name = {w.at, (size_t)(equals - w.at)};
    struct word value = {equals + 1, w.length - name.length - 1};
    for (unsigned i = 0; i < sizeof settings / sizeof *settings; i++) {
        const struct setting *s = &settings[i];
        if (!is(name, s->name))
            continue;
        if (*seen & 1u << i)
            return bad(p, w.at, "%s= is there twice", s->name);
        *seen |= 1u << i;
        if (!s->condition && !p->line)
            return bad(p, w.at, "%s= belongs in a list, not in %s", s->name, p->name);
        if (!s->condition && !rule->include)
            return bad(p, w.at, "an exclude rule takes no %s=", s->name);
        if (!value.length)
            return bad(p, value.at, "%s= needs a value, with no blank before it", s->name);
        rule->conditions |= s->condition;
        return s->set(p, rule, value);
    }
    return bad(
        p, w.at,
        "unknown setting '%s' (expected port, section, symbol, address, range, branch, form, "
        "template or action)",
        quote(name.at, name.length).text);
}

static int parse_rule(struct parser *p, bool include)
{
    struct list *list = p->list;
    struct word w = next_word(p);
    if (!w.length || is(w, ","))
        return bad(p, w.at, "expected a mnemonic, or * for every instruction");
    if (list->rule_count == LIST_RULES_MAX)
        return bad(p, w.at, "more than %u rules", LIST_RULES_MAX);
    struct list_rule *rule =
        list_grow(&list->rules, &list->rule_count, &list->rule_room, sizeof *rule, p->err);
    if (!rule)
        return -1;
    rule->include = include;
    if (parse_mnemonics(p, w))
        return -1;
    w = next_word(p);
    if (w.length && !memchr(w.at, '=', w.length)) {
        if (parse_operand(p, rule, w))
            return -1;
        for (w = next_word(p); is(w, ","); w = next_word(p))
            if (parse_operand(p, rule, next_word(p)))
                return -1;
    }
    unsigned seen = 0;
    for (; w.length; w = next_word(p))
        if (parse_setting(p, rule, w, &seen))
            return -1;
    return 0;
}

/* @include FILE: a file in the folder of this one or below it. */
static int parse_include(struct parser *p, const char *directory, unsigned depth)
{
    struct word w = next_word(p);
    if (!w.length)
        return bad(p, w.at, "expected the name of a list file");
    for (const char *c = w.at; c < w.at + w.length; c++)
        if (!isprint((unsigned char)*c))
            return bad(p, c, "a file name has only printable ASCII characters");
    if (!directory)
        return bad(p, w.at, "@include works only in list files");
    if (*w.at == '/' || memmem(w.at, w.length, "..", 2))
        return bad(p, w.at, "'%s' must lie in the folder of this list or below it",
                   quote(w.at, w.length).text);
    if (depth == LIST_DEPTH_MAX)
        return bad(p, w.at, "lists include each other more than %u deep", LIST_DEPTH_MAX);
    struct word rest = next_word(p);
    if (rest.length)
        return bad(p, rest.at, "expected the end of the line, not '%s'",
                   quote(rest.at, rest.length).text);
    char *path = NULL;
    if (asprintf(&path, "%s%.*s", directory, (int)w.length, w.at) < 0)
        return fail(p->err, EXIT_IO, "%s: out of memory", p->name);
    int result = list_read_file(p->list, path, depth + 1, p->err);
    free(path);
    return result;
}

/* Cuts the comment off the line [start, end) and refuses what is not text. */
static int begin_line(struct parser *p, const char *start, const char *end)
{
    p->start = p->next = start;
    p->end = end;
    if (end - start > LIST_LINE_MAX)
        return bad(p, start + LIST_LINE_MAX, "the line is longer than %u bytes", LIST_LINE_MAX);
    for (const char *c = start; c < end; c++)
        if (iscntrl((unsigned char)*c) && !blank(*c))
            return bad(p, c, "control character 0x%02x: is this a list?", (unsigned char)*c);
    const char *comment = memchr(start, '#', (size_t)(end - start));
    if (comment)
        p->end = comment;
    return 0;
}

int list_parse_text(struct list *list, const char *name, const char *directory, unsigned depth,
                    const char *text, size_t length, struct error *err)
{
    struct parser p = {.list = list, .name = name, .err = err};
    if (length > LIST_TEXT_MAX || (list->text_bytes += length) > LIST_TEXT_MAX)
        return fail(err, EXIT_INPUT, "%.120s: a list may have at most %u bytes in all", name,
                    LIST_TEXT_MAX);
    const char *end = text + length;
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *line_end = newline ? newline : end;
        p.line++;
        if (begin_line(&p, text, line_end))
            return -1;
        struct word w = next_word(&p);
        int result = 0;
        if (is(w, "include") || is(w, "exclude"))
            result = parse_rule(&p, is(w, "include"));
        else if (is(w, "@include"))
            result = parse_include(&p, directory, depth);
        else if (w.length)
            result = bad(&p, w.at, "expected include, exclude or @include, not '%s'",
                         quote(w.at, w.length).text);
        if (result)
            return -1;
        text = newline ? newline + 1 : end;
    }
    return 0;
}

int list_parse_option(struct list *list, const char *option, const char *text, struct error *err)
{
    struct parser p = {.list = list, .name = option, .err = err};
    return begin_line(&p, text, text + strlen(text)) || parse_rule(&p, true) ? -1 : 0;
}
