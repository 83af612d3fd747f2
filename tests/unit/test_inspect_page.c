/* SPDX-License-Identifier: MIT */
/* The pages of patchc inspect --html: everything is there, as text and as data, and nothing that
 * comes from a report or an image is anything but text. */
#include "patchc/inspect_page.h" /* before cmocka.h, which makes a macro of fail() */
#include "patchc/inspect.h"
#include "patched_image.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static struct patched_image image;
static char report_path[128], other_path[128], page_path[128];

static int set_up(void **state)
{
    (void)state;
    patched_image_make(&image);
    snprintf(report_path, sizeof report_path, "%s/report.json", image.folder);
    snprintf(other_path, sizeof other_path, "%s/other.json", image.folder);
    snprintf(page_path, sizeof page_path, "%s/page.html", image.folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(report_path);
    unlink(other_path);
    unlink(page_path);
    patched_image_free(&image);
    return 0;
}

/* What every hostile string is: the end of an attribute, an element, style, script and data. */
#define EVIL "\"'></script></style><!--<x-evil a=\"\xe2\x80\xae&"

/* Writes a report in which ' stands for " and @ for a hostile string. */
static void write_report(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    json_t *evil = json_string(EVIL);
    char *quoted = json_dumps(evil, JSON_ENCODE_ANY);

    assert_non_null(file);
    for (; *text; text++) {
        if (*text == '@')
            fputs(quoted, file);
        else
            fputc(*text == '\'' ? '"' : *text, file);
    }
    fclose(file);
    free(quoted);
    json_decref(evil);
}

/* The page of what stands at `path`; malloc'd. */
static char *page_of(const char *path, const char *diff)
{
    struct inspect_options options = {.path = path, .diff = diff, .html = page_path};
    struct error err = {0};
    size_t size = 1 << 20;
    char *text = malloc(size + 1);

    if (inspect_run(&options, stdout, &err) != 0)
        fail_msg("%s", err.text);
    FILE *file = fopen(page_path, "r");
    assert_non_null(file);
    size = fread(text, 1, size, file);
    text[size] = '\0';
    fclose(file);
    assert_string_equal(text + size - 8, "</html>\n");
    return text;
}

static size_t count(const char *text, const char *part)
{
    size_t found = 0;

    for (; (text = strstr(text, part)) != NULL; text++)
        found++;
    return found;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in the page", part);
}

/* The data block, decoded. */
static json_t *data_of(const char *page, const char *id)
{
    char begin[64];
    json_t *value;

    snprintf(begin, sizeof begin, "<script type=\"application/json\" id=%s>", id);
    const char *at = strstr(page, begin);
    assert_non_null(at);
    at += strlen(begin);
    value = json_loadb(at, (size_t)(strstr(at, "</script>") - at), 0, NULL);
    assert_non_null(value);
    return value;
}

/* ---- text ---- */

static void text_is_text_whatever_it_says(void **state)
{
    static const struct {
        const char *text, *written;
    } rows[] = {
        {"plain", "plain"},
        {"<b a=\"1\" c='2'>&amp;", "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;"},
        {"\x01\x1b[2J\x7f", "&#xfffd;&#xfffd;[2J&#xfffd;"},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {"a\xe2\x80\xae"
         "b",
         "a&#xfffd;b"}, /* U+202E turns what follows around */
        {"\xc2\x85\xe2\x81\xa6\xef\xbb\xbf", "&#xfffd;&#xfffd;&#xfffd;"},
        {"\xff"
         "a\xc0\xbc",
         "&#xfffd;a&#xfffd;&#xfffd;"},    /* C0 BC would be an overlong '<' */
        {"\xe0\x80\xbc", "&#xfffd;"},     /* so would this */
        {"\xed\xa0\x80", "&#xfffd;"},     /* half of a surrogate pair */
        {"\xf4\x90\x80\x80", "&#xfffd;"}, /* beyond U+10FFFF */
        {"\xe2\x82<", "&#xfffd;&lt;"},    /* cut off: '<' is no part of it */
        {"\xf0\x9f", "&#xfffd;"},         /* at the end */
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text = NULL;
        size_t size;
        struct page page = {.out = open_memstream(&text, &size)};

        page_text(&page, rows[i].text);
        fclose(page.out);
        assert_string_equal(text, rows[i].written);
        free(text);
    }
}

static void nothing_of_a_hostile_report_becomes_markup(void **state)
{
    static const char report[] =
        "{'schema':1,'tool':@,'list':@,'input':{'name':@,'format':@,'xxh3':@},"
        "'output':{'name':@,'xxh3':@},'stub':{'header':@,'space_used':1},"
        "'tables_updated':{@:1},'warnings':[{'count':1,'text':@}],"
        "'io_blocks':[{'address':@,'symbol':@,'site':@,'hash':@,'ports':[@],'traits':[@],"
        "'ranges':[{'address':@}]}],'sites':[{'address':'0x1000','status':'patched','symbol':@,"
        "'section':@,'bytes':@,'instruction':@,'form':@,'form_reason':@,'tactic':@,'template':@,"
        "'slot':0,'context':[@],'displaced':[@]},"
        "{'address':'0x2000','status':'left','reason':@}]}";
    char *page;
    json_t *data, *same;

    (void)state;
    write_report(report_path, report);
    write_report(other_path, "{'schema':1,'sites':[]}");
    page = page_of(report_path, NULL);
    data = data_of(page, "report");
    same = json_load_file(report_path, 0, NULL);
    assert_true(json_equal(data, same));
    assert_true(count(page, "&quot;&#39;&gt;&lt;/script&gt;") > 20);
    for (unsigned compared = 0; compared < 2; compared++) {
        assert_int_equal(count(page, "<x-evil"), 0);
        assert_int_equal(count(page, "<!--"), 0);
        assert_int_equal(count(page, "<script"), 2);
        assert_int_equal(count(page, "</script"), 2);
        assert_int_equal(count(page, "</style"), 1);
        free(page);
        page = page_of(report_path, other_path);
    }
    free(page);
    json_decref(data);
    json_decref(same);
}

/* ---- what is in it ---- */

#define REPORT(sites) "{'schema':1,'input':{'name':'vmlinux','xxh3':'0x1'},'sites':[" sites "]}"

static const char three[] = REPORT(
    "{'address':'0x1000','symbol':'early','instruction':'cpuid','status':'patched','form':'jump'},"
    "{'address':'0x2000','symbol':'m+4','instruction':'hlt','status':'left','reason':'no-room'},"
    "{'address':'0x3000','symbol':'x','instruction':'hlt','status':'excluded','reason':'context'}");

static const char others[] = REPORT(
    "{'address':'0x1000','symbol':'early','instruction':'cpuid','status':'left','reason':'table'},"
    "{'address':'0x2000','symbol':'m+4','instruction':'hlt','status':'patched','form':'call'},"
    "{'address':'0x4000','symbol':'y','instruction':'hlt','status':'left','reason':'no-room'}");

static void a_page_has_every_site_and_why_it_was_left(void **state)
{
    char *page;

    (void)state;
    write_report(report_path, three);
    page = page_of(report_path, NULL);
    assert_int_equal(count(page, "<details class=row "), 3);
    assert_has(page, "<b>50.0&#8239;%</b> of 2 eligible sites patched");
    assert_has(page, "id=s-2000 ");
    assert_has(page, "<a href=\"#s-2000\">0x2000</a>");
    assert_has(page, "branch targets stand too close");
    assert_has(page, "data-facet=form data-value=jump");
    assert_has(page, "<title>0x1000…: 1 jump</title>");
    assert_has(page, "this page has no code");
    assert_int_equal(count(page, "http://") + count(page, "https://"), 0);
    free(page);
}

static void a_page_of_an_image_has_the_code_of_each_site(void **state)
{
    char *page = page_of(image.patched_path, NULL), text[64];
    const struct pv_patch *patch = &image.patches[PATCH_JUMP];

    (void)state;
    assert_has(page, "<mark>cpuid</mark>");
    snprintf(text, sizeof text, "bytes at 0x%" PRIx64,
             image.note->header_address + (uint64_t)patch->trampoline_offset);
    assert_has(page, text);
    assert_has(page, "What was left is in the report");
    assert_int_equal(count(page, "application/json"), 0); /* an image has no report to carry */
    free(page);
}

static void a_comparison_shows_what_was_gained_and_lost(void **state)
{
    char *page;
    json_t *data;

    (void)state;
    write_report(report_path, three);
    write_report(other_path, others);
    page = page_of(report_path, other_path);
    data = data_of(page, "comparison");
    assert_int_equal(json_array_size(json_object_get(data, "sites")), 4);
    assert_int_equal(count(page, "<details class=row "), 4);
    assert_has(page,
               "<span class=\"change t-lost\">lost</span><span class=before>patched (jump)</span>"
               "<span class=after>left (table)</span>");
    assert_has(page, "<span class=\"change t-gained\">gained</span>");
    assert_has(page, "<span class=\"change t-gone\">gone</span>");
    assert_has(page, "<span class=\"change t-new\">new</span>");
    json_decref(data);
    free(page);
}

static void a_page_that_cannot_be_written_leaves_nothing(void **state)
{
    struct inspect_options options = {.path = report_path, .html = "/nonexistent/page.html"};
    struct error err = {0};

    (void)state;
    write_report(report_path, three);
    assert_int_equal(inspect_run(&options, stdout, &err), -1);
    assert_int_equal(err.code, EXIT_IO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(text_is_text_whatever_it_says),
        TEST(nothing_of_a_hostile_report_becomes_markup),
        TEST(a_page_has_every_site_and_why_it_was_left),
        TEST(a_page_of_an_image_has_the_code_of_each_site),
        TEST(a_comparison_shows_what_was_gained_and_lost),
        TEST(a_page_that_cannot_be_written_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
