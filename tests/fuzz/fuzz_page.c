/* SPDX-License-Identifier: MIT */
/* Fuzzes the pages of inspect: a report together with an image that may be another's, and the report compared with
 * what the image tells. The input: two bytes that say how long the report is, the report, the image. Whatever they
 * say, no markup comes from them: a page has as many elements that could run or fetch something as it should. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "patchc/inspect_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool open_bytes(const uint8_t *bytes, size_t size, struct view *view)
{
    struct error err = {0};
    char path[32];
    int file = memfd_create("fuzz", MFD_CLOEXEC);

    if (file < 0 || write(file, bytes, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    bool good = view_open(path, view, &err) == 0;
    close(file);
    return good;
}

static void expect(const char *text, const char *part, unsigned count)
{
    for (; (text = strstr(text, part)) != NULL; text++)
        count--;
    if (count)
        abort();
}

static void make(const struct page_side *side, const struct page_side *after)
{
    char *text = NULL;
    size_t size;
    struct page page = {.side = *side, .out = open_memstream(&text, &size)};
    bool whole = page.out && (after ? page_comparison(&page, after) : page_report(&page));

    if (!whole || fclose(page.out))
        abort();
    expect(text, "<script", side->view->patched && !after ? 1 : 2);
    expect(text, "</script", side->view->patched && !after ? 1 : 2);
    expect(text, "<style", 1);
    expect(text, "<meta", 5);
    expect(text, "<img", 0);
    expect(text, "<iframe", 0);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct view report = {0}, image = {0};

    if (size < 2)
        return 0;
    size_t length = (size_t)data[0] | (size_t)data[1] << 8;
    if (length > size - 2)
        length = size - 2;
    if (open_bytes(data + 2, length, &report)) {
        bool both = open_bytes(data + 2 + length, size - 2 - length, &image);
        struct page_side side = {&report, both ? image.patched : NULL},
                         other = {&image, image.patched};

        make(&side, NULL);
        if (both) {
            make(&other, NULL);
            make(&side, &other);
            make(&other, &side);
        }
    }
    view_close(&image);
    view_close(&report);
    return 0;
}
