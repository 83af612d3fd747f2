#!/bin/bash
# SPDX-License-Identifier: MIT
# The pages of patchc inspect --html: whole, one file, and nothing in them but what was meant; then in a browser, where
# there is one (chromium is not among what `make deps` installs; PV_CHROMIUM names another).
. tests/integration/tap.sh
. tests/integration/command.sh
program=$BUILD/patchc

cat > "$tmp/guest.S" <<'ASM'
        .globl _start
_start: mov $1, %eax
        cpuid
        mov %ebx, %esi
        mov $0x3f8, %edx
        in (%dx), %al
        mov %eax, %edi
1:      hlt
        jmp 1b
        .fill 8192, 1, 0xcc
        nop
        .section .note.GNU-stack,"",@progbits
ASM
gcc -nostdlib -static -Wl,-Ttext=0x100000 -Wl,--build-id=none -o "$tmp/guest" "$tmp/guest.S" ||
    skip_all 'no compiler for the guest'
succeeds 'a guest is patched' build -o "$tmp/new" "$tmp/guest"
succeeds 'and once more, otherwise' build --skip cpuid -o "$tmp/old" "$tmp/guest"

# ---- what a page has ----
succeeds 'inspect --html writes a page of a report' inspect --html "$tmp/page.html" "$tmp/new.json"
succeeds 'and of an image' inspect --html "$tmp/image.html" "$tmp/new"
check 'they are the same: the other one is found beside it' cmp "$tmp/page.html" "$tmp/image.html"
check 'an original instruction is there' grep -q '<mark>cpuid</mark>' "$tmp/page.html"
check 'and the jump that took its place' grep -Eq '^(<[a-z/=]+>)*0*100005  e9[0-9a-f]{8} +</i> jmp 0x' \
    <(sed 's/<pre>/&\n/g' "$tmp/page.html" | sed 's/^<i>0*/<i>/')
mkdir "$tmp/apart"
cp "$tmp/new.json" "$tmp/apart/report.json"
succeeds 'a report without its image gives a page too' inspect --html "$tmp/apart.html" "$tmp/apart/report.json"
check 'which says that it has no code' grep -q 'has no code' "$tmp/apart.html"
cp "$tmp/old" "$tmp/apart/new"
succeeds 'an image that does not belong to the report is not taken for it' \
    inspect --html "$tmp/apart.html" "$tmp/apart/report.json"
check_status 1 'no code of another image' grep -q '<pre>' <(grep -v displaced "$tmp/apart.html" | grep -o 'Patched</figcaption><pre>')

# data ID PAGE: the data block of the page.
data() {
    sed -n "s/^<script type=\"application\/json\" id=$1>\(.*\)<\/script>$/\1/p" "$2"
}
is "$(data report "$tmp/page.html" | jq -Sc .)" "$(jq -Sc . "$tmp/new.json")" 'the page carries the report, as it is'
is "$(grep -o 'class=row id=s-[0-9a-f]*' "$tmp/page.html" | sort)" \
    "$(jq -r '.sites[].address | "class=row id=s-\(.[2:])"' "$tmp/new.json" | sort)" 'every site is there, once'

# hash TAG: of what stands between <TAG> and </TAG>, as the policy has it.
hash() {
    sed -n "/<$1>/,/<\/$1>/p" "$tmp/page.html" | sed "1s/.*<$1>//; s/<\/$1>.*//" | head -c -1 | sha256sum |
        cut -c1-64 | tr a-f A-F | basenc --base16 -d | base64
}
check 'the policy allows its script' grep -qF "script-src 'sha256-$(hash script)'" "$tmp/page.html"
check 'and its style, and nothing else' grep -qF "default-src 'none'; style-src 'sha256-$(hash style)'" "$tmp/page.html"
is "$(grep -cE '<(script|style|link|img|iframe|object|base)\b' "$tmp/page.html")" 3 \
    'there is one style, one script, one block of data'
is "$(grep -oE ' (href|src|style|on[a-z]+)=[^ >]*' "$tmp/page.html" | grep -vE '^ href="#(s-[0-9a-f]+|sites)"')" '' \
    'links lead into the page, and no attribute runs or fetches anything'

succeeds 'two reports are compared in a page' inspect --diff "$tmp/new.json" --html "$tmp/diff.html" "$tmp/old.json"
is "$(data comparison "$tmp/diff.html" | jq -c .summary)" \
    "$("$program" inspect --json --diff "$tmp/new.json" "$tmp/old.json" | jq -c .summary)" \
    'the page carries the comparison'
is "$(grep -o 'class=row id=s-[0-9a-f]*' "$tmp/diff.html" | sort)" \
    "$(data comparison "$tmp/diff.html" | jq -r '.sites[].address | "class=row id=s-\(.[2:])"' | sort)" \
    'and shows the sites that changed'
check 'with the one that was left out before' grep -q '<span class="change t-new">' "$tmp/diff.html"
refused 2 'a site and a page exclude each other' inspect --site 0x1 --html "$tmp/x" "$tmp/new.json"

# ---- 3000 sites, with names that want out ----
# shellcheck disable=SC2016 # $name is jq's
jq -n '{schema: 1, input: {name: "<img src=http://page.invalid/i onerror=alert(1)>", format: "elf64", size: 1, xxh3: "0x1"},
    list: "</script><script>document.title=\"owned\"</script>", io_blocks: [], tables_updated: {"<b>": 1}, sites: [range(3000) |
    {address: ("0xffffffff81" + ("000000" + (. * 16 | tostring))[-6:]),
     symbol: (if . % 100 == 7 then "</span><script>document.title=\"owned\"</script>" else "symbol_\(.)+0x1" end),
     section: (if . < 1000 then ".text" else "\u0022 onx=1 .init" end), bytes: "0fa2",
     instruction: (if . % 3 == 0 then "cpuid" else "wrmsr" end), status: (if . % 10 == 0 then "left" else "patched" end),
     reason: (if . % 10 == 0 then "no-room" else null end), form: (if . % 10 == 0 then null else "jump" end)}]}' > "$tmp/many.json"
succeeds 'a hostile report of 3000 sites gives a page' inspect --html "$tmp/many.html" "$tmp/many.json"
is "$(grep -oE '<(img|script|style)\b' "$tmp/many.html" | sort | uniq -c | tr -d ' \n')" '2<script1<style' \
    'no name became an element'
check_status 1 'or an attribute' grep -qE '[" ]onx=1' <(grep -v '^<script' "$tmp/many.html" | sed 's/&#34; onx=1//g')

# ---- in a browser ----
for browser in "${PV_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    [ -z "$browser" ] || ! command -v "$browser" > /dev/null || break
    browser=
done
if [ -z "$browser" ]; then
    skip 'the page in a browser: finds, filters, sorts, moves by keys' 'chromium is not installed'
    plan_done
fi

# browse PAGE: the page after its script has run is in $tmp/dom, what the browser says in $tmp/browser.log, what it asked
# the network for in $tmp/net.json.
browse() {
    HOME=$tmp timeout 120 "$browser" --headless --no-sandbox --disable-gpu --no-first-run --user-data-dir="$tmp/profile" \
        --enable-logging=stderr --log-net-log="$tmp/net.json" --net-log-capture-mode=IncludeSensitive \
        --host-resolver-rules='MAP * ~NOTFOUND' --disable-background-networking --disable-component-update \
        --virtual-time-budget=5000 --dump-dom "file://$1" > "$tmp/dom" 2> "$tmp/browser.log"
}
complaints() {
    grep -a CONSOLE "$tmp/browser.log" | cut -c 1-300
}
visible() {
    grep -o '<details class="row" [^>]*>' "$tmp/dom" | grep -cv ' hidden='
}
if ! browse "$tmp/page.html" || ! grep -q '</html>' "$tmp/dom"; then
    skip 'the page in a browser' "$browser does not start here: $(tail -n 1 "$tmp/browser.log" | cut -c 1-120)"
    plan_done
fi
is "$(complaints)" '' 'the browser has nothing to complain of'

browse "$tmp/many.html#find=cpuid&status=left"
is "$(complaints)" '' 'nor of the hostile one'
is "$(visible)" 100 'found and filtered: 100 of 3000 sites are cpuid and left'
check 'which it says' grep -q 'aria-live="polite">100 of 3,000 sites<' "$tmp/dom"
check_status 1 'no name ran a script' grep -q '<title>owned' "$tmp/dom"
check_status 1 'and the network was not asked' grep -q 'page\.invalid' "$tmp/net.json"

# The rest by a script that does what a person would do. The page's policy has to go for it, which shows that it holds.
cat > "$tmp/person.js" <<'JS'
const results = [], key = (k) => document.activeElement.dispatchEvent(
    new KeyboardEvent('keydown', {key: k, bubbles: true, cancelable: true}));
const seen = () => rows.filter((row) => !row.details.hidden);
const test = (holds, sentence) => results.push(`${holds ? 'ok' : 'not ok'} ${sentence}`);
test(seen().length === 3000, 'at first all sites are shown');
key('/');
test(document.activeElement === find, 'a slash leads to the search');
find.value = 'symbol_12';
find.dispatchEvent(new Event('input', {bubbles: true}));
test(seen().length === 110 && location.hash === '#find=symbol_12', 'typing finds, and the address has it');
key('ArrowDown');
test(document.activeElement === seen()[0].summary, 'arrow down leads from the search to the first site');
key('ArrowDown');
key('j');
test(document.activeElement === seen()[2].summary, 'and on');
key('ArrowUp');
test(document.activeElement === seen()[1].summary, 'arrow up leads back');
key('End');
test(document.activeElement === seen().at(-1).summary, 'End leads to the last');
document.activeElement.click();
test(seen().at(-1).details.open, 'activating a site opens it');
key('Escape');
test(!seen().at(-1).details.open, 'Escape closes it');
form.reset();
test(seen().length === 3000 && !find.value, 'Clear shows all again');
form.elements.section.value = '.text';
form.elements.section.dispatchEvent(new Event('input', {bubbles: true}));
test(seen().length === 1000, 'a section filters');
document.querySelector('#left a').click();
location.hash = '#s-ffffffff81000160';
follow();
test(document.activeElement.parentElement.id === 's-ffffffff81000160' && document.activeElement.parentElement.open,
    'a link to a site opens it');
document.querySelector('[data-facet=status][data-value=left]').click();
test(seen().length === 300, 'a count filters by what it counts');
document.querySelector('[data-range]').dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
test(seen().length > 0 && seen().length < 300 && !range.hidden, 'a column of the map filters by addresses');
form.reset();
document.querySelector('.heads .symbol button').click();
const names = rows.map((row) => row.summary.querySelector('.symbol').textContent);
test(names.every((name, i) => !i || names[i - 1] <= name) && list.firstElementChild === rows[0].details, 'a head sorts');
document.title = 'done';
document.body.replaceChildren(...results.map((line) => Object.assign(document.createElement('p'), {textContent: line})));
JS
{
    sed '/^<\/body>/,$d' "$tmp/many.html"
    printf '<script>'
    cat "$tmp/person.js"
    printf '</script></body></html>\n'
} > "$tmp/closed.html"
sed 's/<meta http-equiv=Content-Security-Policy[^>]*>//' "$tmp/closed.html" > "$tmp/open.html"
browse "$tmp/closed.html"
is "$(grep -c '<title>done' "$tmp/dom"):$(complaints | grep -c 'Content Security Policy')" 0:1 \
    'a script that is not the page'\''s own does not run'
browse "$tmp/open.html"
is "$(complaints)" '' 'nothing is complained of while the page is used'
while read -r line; do
    case $line in
    ok*) ok "in the browser: ${line#ok }" ;;
    *) not_ok "in the browser: ${line#not ok }" ;;
    esac
done < <(sed -n 's/<\/p>/\n/gp' "$tmp/dom" | sed -n 's/.*<p>\(\(not \)\?ok .*\)/\1/p')
is "$(grep -o '<p>\(not \)\?ok' "$tmp/dom" | wc -l)" 15 'a person'\''s every step was taken'
plan_done
