/* The report as one page that needs no other file and no network: summary, breakdowns, and the
 * sites as a table to filter. Without scripts it is still complete, only not filtered. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "image/output.h"
#include "patchc/inspect_view.h"

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<style>\n"
    ":root{color-scheme:light dark;--line:#8884;--good:#1a7f37;--warn:#9a6700;--faint:#6e7781}\n"
    "@media(prefers-color-scheme:dark){:root{--good:#3fb950;--warn:#d29922;--faint:#8b949e}}\n"
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}\n"
    "h1{font-size:1.5rem}h2{font-size:1.05rem;margin:1.5rem 0 .4rem}\n"
    "table{border-collapse:collapse;width:100%}\n"
    "th,td{text-align:left;padding:.2rem .6rem;border-bottom:1px solid var(--line)}\n"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\n"
    "code,td.c{font-family:ui-monospace,monospace;font-size:.86em}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(22rem,1fr));gap:0 2rem}\n"
    ".patched,.block{color:var(--good)}.left{color:var(--warn)}.excluded{color:var(--faint)}\n"
    "progress{width:100%;height:.8rem;accent-color:var(--good)}\n"
    "form{display:flex;gap:.6rem;margin:.4rem 0;position:sticky;top:0;background:Canvas;"
    "padding:.4rem 0}\n"
    "input{flex:1}input,select{font:inherit;padding:.25rem .5rem}\n"
    ".scroll{overflow-x:auto}\n"
    "</style>\n";

static const char script[] =
    "<script>\n"
    "const words=document.getElementById('words'),status=document.getElementById('status'),\n"
    "rows=[...document.querySelectorAll('#sites tbody "
    "tr')],shown=document.getElementById('shown');\n"
    "const text=rows.map(r=>r.textContent.toLowerCase());\n"
    "function filter(){const "
    "w=words.value.toLowerCase().split(/\\s+/).filter(Boolean),s=status.value;"
    "let n=0;\n"
    "rows.forEach((r,i)=>{const hit=(!s||r.className===s)&&w.every(x=>text[i].includes(x));"
    "r.hidden=!hit;n+=hit});\n"
    "shown.textContent=n+' of '+rows.length}\n"
    "words.addEventListener('input',filter);status.addEventListener('input',filter);\n"
    "document.querySelector('form').addEventListener('submit',e=>e.preventDefault());filter();\n"
    "</script>\n";

/* Text of the report is text of the page, never markup. */
static void put_escaped(FILE *page, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&':
            fputs("&amp;", page);
            break;
        case '<':
            fputs("&lt;", page);
            break;
        case '>':
            fputs("&gt;", page);
            break;
        case '"':
            fputs("&quot;", page);
            break;
        default:
            fputc(*text, page);
        }
    }
}

static void put_cell(FILE *page, const char *class, const char *text)
{
    fprintf(page, "<td%s>", class);
    put_escaped(page, text);
    fputs("</td>", page);
}

static long long count_of(const json_t *object, const char *key)
{
    return (long long)json_integer_value(json_object_get(object, key));
}

static void put_breakdown(FILE *page, const json_t *summary, const char *key, const char *title,
                          bool reasons)
{
    const json_t *list = json_object_get(summary, key);
    size_t i;
    json_t *row;

    if (json_array_size(list) == 0)
        return;
    fprintf(page,
            "<section><h2>%s</h2><div class=scroll><table><tr><th></th>"
            "<th class=n>sites</th>%s</tr>\n",
            title,
            reasons ? "<th>meaning</th>"
                    : "<th class=n>patched</th><th class=n>left</th><th class=n>excluded</th>");
    json_array_foreach(list, i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));

        fputs("<tr>", page);
        put_cell(page, " class=c", name ? name : "");
        fprintf(page, "<td class=n>%lld</td>", count_of(row, "sites"));
        if (reasons)
            put_cell(page, "", view_explanation(name ? name : ""));
        else
            fprintf(page, "<td class=n>%lld</td><td class=n>%lld</td><td class=n>%lld</td>",
                    count_of(row, "patched") + count_of(row, "block"), count_of(row, "left"),
                    count_of(row, "excluded"));
        fputs("</tr>\n", page);
    }
    fputs("</table></div></section>\n", page);
}

static void put_summary(FILE *page, const struct view *view, const json_t *summary)
{
    size_t patched = view->by_status[STATUS_PATCHED] + view->by_status[STATUS_BLOCK];
    size_t eligible = view->count - view->by_status[STATUS_EXCLUDED];
    const char *input = view_text(view, "input", "name");

    fputs("<title>", page);
    put_escaped(page, *input ? input : view->name);
    fputs(": patched sites</title></head><body>\n<h1>", page);
    put_escaped(page, *input ? input : view->name);
    fputs(": patched sites</h1>\n", page);
    fprintf(
        page,
        "<p>%zu listed, %zu excluded, %zu eligible: <b class=patched>%zu patched</b> (%.1f %%), "
        "<b class=left>%zu left</b>.</p>\n<progress max=%zu value=%zu></progress>\n",
        view->count, view->by_status[STATUS_EXCLUDED], eligible, patched,
        eligible ? 100.0 * (double)patched / (double)eligible : 100.0, view->by_status[STATUS_LEFT],
        eligible ? eligible : 1, eligible ? patched : 1);
    fputs("<div class=grid>\n", page);
    put_breakdown(page, summary, "instructions", "Instructions", false);
    put_breakdown(page, summary, "sections", "Sections", false);
    put_breakdown(page, summary, "symbols", "Symbols with most sites", false);
    put_breakdown(page, summary, "forms", "Forms", false);
    put_breakdown(page, summary, "tactics", "How room was made", false);
    put_breakdown(page, summary, "left_reasons", "Left, and why", true);
    put_breakdown(page, summary, "excluded_reasons", "Excluded, and why", true);
    fputs("</div>\n", page);
}

static void put_sites(FILE *page, const struct view *view)
{
    fputs("<h2>Sites <small id=shown></small></h2>\n"
          "<form><input id=words type=search placeholder=\"filter: symbol, instruction, tactic...\""
          " aria-label=filter><select id=status aria-label=status><option value=\"\">all</option>",
          page);
    for (unsigned i = 0; i < STATUSES; i++)
        fprintf(page, "<option>%s</option>", status_name((enum site_status)i));
    fputs("</select></form>\n<div class=scroll><table id=sites><thead><tr><th>address</th>"
          "<th>symbol</th><th>section</th><th>instruction</th><th>status</th><th>form</th>"
          "<th>tactic</th><th>template</th><th>reason</th></tr></thead><tbody>\n",
          page);
    for (size_t i = 0; i < view->count; i++) {
        const struct view_site *site = &view->sites[i];
        const char *status = status_name(site->status);

        fprintf(page, "<tr class=%s><td class=c>0x%" PRIx64 "</td>", status, site->address);
        put_cell(page, " class=c", site->symbol);
        put_cell(page, " class=c", site->section);
        put_cell(page, " class=c", site->instruction);
        put_cell(page, "", status);
        put_cell(page, "", site->form);
        put_cell(page, "", site->tactic);
        put_cell(page, "", site->template_name);
        put_cell(page, "", site->reason);
        fputs("</tr>\n", page);
    }
    fputs("</tbody></table></div>\n", page);
}

int inspect_html_write(const struct view *view, const char *path, struct error *err)
{
    json_t *summary = inspect_summary_json(view);
    struct iovec piece = {0};
    char *text = NULL;
    FILE *page = summary ? open_memstream(&text, &piece.iov_len) : NULL;
    int status;

    if (!page) {
        json_decref(summary);
        return fail(err, EXIT_IO, "%s: out of memory", view->name);
    }
    fputs(head, page);
    put_summary(page, view, summary);
    put_sites(page, view);
    fputs(script, page);
    fputs("</body></html>\n", page);
    json_decref(summary);
    status = fclose(page);
    piece.iov_base = text;
    if (status != 0)
        status = fail(err, EXIT_IO, "%s: out of memory", view->name);
    else
        status = output_write(path, &piece, 1, 0644, err);
    free(text);
    return status;
}
