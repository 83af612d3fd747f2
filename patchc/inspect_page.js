/* SPDX-License-Identifier: MIT */
/* Finds, filters and sorts the rows of an inspect page, and moves among them by keyboard. Everything
 * can be read without it. What is shown stands in the address ("#find=cpuid&status=left"), so that a view can be
 * bookmarked; "#s-ADDRESS" is a site. */
'use strict';

const list = document.getElementById('rows');
const form = document.getElementById('filter');
const find = document.getElementById('find');
const range = document.getElementById('range');
const shown = document.getElementById('shown');
const none = document.getElementById('none');
const selects = [...form.querySelectorAll('select')];
const number = new Intl.NumberFormat(document.documentElement.lang);

/* What a row has in a column; an instruction is filtered by what it is counted under. */
function cell(details, name) {
    if (name === 'instruction')
        return details.dataset.instruction;
    return details.firstElementChild.querySelector('.' + name)?.textContent ?? '';
}

let rows = [...list.children].map((details) => ({
    details,
    summary: details.firstElementChild,
    address: BigInt('0x' + details.id.slice(2)),
    text: [...details.firstElementChild.children].map((span) => span.textContent).join(' ').toLowerCase() +
        ' ' + details.dataset.instruction.toLowerCase(),
    facets: Object.fromEntries(selects.map((select) => [select.name, cell(details, select.name)])),
}));

/* Each filter offers what there is, most frequent first; one that could not choose is not shown. */
for (const select of selects) {
    const counts = new Map();
    for (const row of rows)
        counts.set(row.facets[select.name], (counts.get(row.facets[select.name]) ?? 0) + 1);
    counts.delete('');
    for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1]))
        select.add(new Option(`${value} (${number.format(count)})`, value));
    select.parentElement.hidden = counts.size < 2 && ![...counts.values()].some((n) => n < rows.length);
}

let span = null; /* [first, last] address, both included, or null */

function matches(row, words) {
    return words.every((word) => row.text.includes(word)) &&
        selects.every((select) => !select.value || row.facets[select.name] === select.value) &&
        (!span || (row.address >= span[0] && row.address <= span[1]));
}

function show() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
        const hit = matches(row, words);
        if (row.details.hidden === hit)
            row.details.hidden = !hit;
        count += hit;
    }
    for (const select of selects)
        select.classList.toggle('set', select.value !== '');
    range.hidden = !span;
    range.textContent = span ? `0x${span[0].toString(16)}…${span[1].toString(16).slice(-8)} ×` : '';
    none.hidden = count > 0 || rows.length === 0;
    shown.textContent = count === rows.length ? `${number.format(count)} sites`
        : `${number.format(count)} of ${number.format(rows.length)} sites`;
}

/* ---- the address of the page ---- */

function remember() {
    const state = new URLSearchParams();
    if (find.value)
        state.set('find', find.value);
    for (const select of selects)
        if (select.value)
            state.set(select.name, select.value);
    if (span)
        state.set('range', span.map((n) => n.toString(16)).join('-'));
    history.replaceState(null, '', '#' + (state.toString() || 'sites'));
}

function openSite(id) {
    const details = document.getElementById(id);
    if (!details || !list.contains(details))
        return;
    if (details.hidden) {
        clear();
        show();
    }
    details.open = true;
    details.firstElementChild.focus();
    details.scrollIntoView({block: 'start'});
}

function clear() {
    find.value = '';
    span = null;
    for (const select of selects)
        select.value = '';
}

function setRange(text) {
    const ends = /^([0-9a-f]{1,16})-([0-9a-f]{1,16})$/.exec(text ?? '');
    span = ends ? [BigInt('0x' + ends[1]), BigInt('0x' + ends[2])] : null;
}

function follow() {
    const hash = location.hash.slice(1);
    if (hash.startsWith('s-'))
        return openSite(hash);
    if (!hash.includes('='))
        return;
    const state = new URLSearchParams(hash);
    clear();
    find.value = state.get('find') ?? '';
    for (const select of selects)
        select.value = state.get(select.name) ?? '';
    setRange(state.get('range'));
    show();
}

function changed() {
    show();
    remember();
}

/* ---- sorting ---- */

function sortBy(button, name) {
    const down = button.classList.contains('up');
    const value = (row) => name === 'address' ? row.address
        : row.summary.querySelector('.' + name)?.textContent ?? row.summary.lastElementChild.textContent;
    const keyed = rows.map((row) => [value(row), row]);
    keyed.sort(([a, x], [b, y]) => (a < b ? -1 : a > b ? 1 : x.address < y.address ? -1 : 1) * (down ? -1 : 1));
    rows = keyed.map(([, row]) => row);
    list.append(...rows.map((row) => row.details));
    for (const other of document.querySelectorAll('.heads button'))
        other.className = '';
    button.className = down ? 'down' : 'up';
}

for (const head of document.querySelectorAll('.heads span')) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = head.textContent;
    button.title = 'sort';
    button.addEventListener('click', () => sortBy(button, head.className));
    head.replaceChildren(button);
}

/* ---- mouse and keyboard ---- */

form.hidden = false;
form.addEventListener('submit', (event) => event.preventDefault());
form.addEventListener('input', changed);
form.addEventListener('reset', (event) => {
    event.preventDefault();
    clear();
    changed();
});
range.addEventListener('click', () => {
    span = null;
    changed();
});

/* Links of the map and the tables, which lead to the first such site without a script, filter. */
document.addEventListener('click', (event) => {
    const link = event.target.closest('[data-facet], [data-range]');
    if (!link)
        return;
    event.preventDefault();
    clear();
    if (link.dataset.range)
        setRange(link.dataset.range);
    else
        form.elements[link.dataset.facet].value = link.dataset.value;
    changed();
    document.getElementById('sites').scrollIntoView();
});

function neighbour(from, step) {
    let i = rows.findIndex((row) => row.details === from);
    do
        i += step;
    while (rows[i]?.details.hidden);
    return rows[i]?.summary;
}

function edge(last) {
    const visible = rows.filter((row) => !row.details.hidden);
    return visible.at(last ? -1 : 0)?.summary;
}

/* Where the keys lead from the row that has the focus. */
const moves = {
    ArrowDown: (row) => neighbour(row, 1),
    ArrowUp: (row) => neighbour(row, -1) ?? find,
    j: (row) => neighbour(row, 1),
    k: (row) => neighbour(row, -1) ?? find,
    Home: () => edge(false),
    End: () => edge(true),
};

function keyInSearch(event) {
    const first = edge(false);
    if (event.key === 'Escape') {
        find.value = '';
        changed();
    } else if ((event.key === 'ArrowDown' || event.key === 'Enter') && first) {
        if (event.key === 'Enter')
            first.parentElement.open = true;
        first.focus();
    } else {
        return;
    }
    event.preventDefault();
}

function keyInRow(event, row) {
    const target = Object.hasOwn(moves, event.key) ? moves[event.key](row) : null;
    if (event.key === 'Escape')
        row.open = false;
    else if (!target)
        return;
    target?.focus();
    event.preventDefault();
}

document.addEventListener('keydown', (event) => {
    const row = document.activeElement?.closest?.('#rows > details');
    if (event.ctrlKey || event.altKey || event.metaKey)
        return;
    if (document.activeElement === find) {
        keyInSearch(event);
    } else if (event.key === '/' && !/^(INPUT|SELECT)$/.test(document.activeElement?.tagName)) {
        event.preventDefault();
        find.focus();
        find.select();
    } else if (row && document.activeElement.parentElement === row) {
        keyInRow(event, row);
    }
});

window.addEventListener('hashchange', follow);
show();
follow();
