/* SPDX-License-Identifier: MIT */
/* The one way for text of a report or an image into a page. */
#include <stdlib.h>
#include <string.h>

#include "image/json_whole.h"
#include "patchc/inspect_page.h"

#define REPLACEMENT 0xfffdu

/* The character at *text, which moves on behind it. What is no UTF-8 is a replacement character. */
static unsigned long next_character(const char **text)
{
    static const unsigned long least[] = {0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)*(*text)++;
    unsigned more = first < 0x80   ? 0
                    : first < 0xc2 ? 4
                    : first < 0xe0 ? 1
                    : first < 0xf0 ? 2
                    : first < 0xf5 ? 3
                                   : 4;
    unsigned long value = more ? first & (0x3fu >> more) : first;

    if (more == 4)
        return REPLACEMENT;
    for (unsigned i = 0; i < more; i++) {
        if (((unsigned char)**text & 0xc0) != 0x80)
            return REPLACEMENT;
        value = value << 6 | ((unsigned char)*(*text)++ & 0x3f);
    }
    return value < least[more] || value > 0x10ffff || value >> 11 == 0x1b ? REPLACEMENT : value;
}

/* Controls, and what makes text read in another order than it stands: names must not disguise themselves as others. */
static bool deceives(unsigned long c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || (c >= 0x200b && c <= 0x200f) ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) || c == 0xfeff;
}

static const char *entity(unsigned long c)
{
    return c == '&'    ? "&amp;"
           : c == '<'  ? "&lt;"
           : c == '>'  ? "&gt;"
           : c == '"'  ? "&quot;"
           : c == '\'' ? "&#39;"
                       : NULL;
}

void page_text(struct page *page, const char *text)
{
    while (*text) {
        const char *at = text;
        unsigned long c = next_character(&text);

        if (c == REPLACEMENT || deceives(c))
            fputs("&#xfffd;", page->out);
        else if (entity(c))
            fputs(entity(c), page->out);
        else
            fwrite(at, 1, (size_t)(text - at), page->out);
    }
}

void page_element(struct page *page, const char *tag, const char *class, const char *text)
{
    if (!*text)
        return;
    fprintf(page->out, "<%s class=%s>", tag, class);
    page_text(page, text);
    fprintf(page->out, "</%s>", tag);
}

void page_fact(struct page *page, const char *name, const char *value)
{
    if (!*value)
        return;
    fprintf(page->out, "<div><dt>%s</dt><dd>", name);
    page_text(page, value);
    fputs("</dd></div>", page->out);
}

void page_count(struct page *page, unsigned long long count)
{
    char digits[24];
    size_t length = (size_t)snprintf(digits, sizeof digits, "%llu", count);

    for (size_t i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0)
            fputs("&#8239;", page->out); /* a narrow space that does not break */
        fputc(digits[i], page->out);
    }
}

bool page_data(struct page *page, const char *id, const json_t *value)
{
    char *text = json_whole(value, JSON_COMPACT | JSON_REAL_PRECISION(6));

    if (!text)
        return false;
    fprintf(page->out, "<script type=\"application/json\" id=%s>", id);
    for (const char *p = text; *p; p++) {
        if (*p == '<') /* "</script" and "<!--" would end the block or change how it is read */
            fputs("\\u003c", page->out);
        else
            fputc(*p, page->out);
    }
    fputs("</script>\n", page->out);
    free(text);
    return true;
}
