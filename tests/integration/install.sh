#!/bin/bash
# SPDX-License-Identifier: MIT
# What `make install` puts where, that it is usable there, and that `make uninstall` takes it away again.
. tests/integration/tap.sh

# run_make ARGUMENT...: with the folders of the build that is tested, so that nothing is built anew.
# shellcheck disable=SC2317 # check calls it
run_make() {
    make -s BUILD="${BUILD%/san}" SAN="${SAN:-}" DESTDIR="$tmp/root" "$@"
}

check 'make install succeeds' run_make install
prefix=$tmp/root/usr/local
for file in bin/patchc bin/hvrun share/patchvisor/lists/kvm.list share/patchvisor/lists/io.list \
    share/patchvisor/lists/deprivileged.list share/patchvisor/report.schema.json \
    share/patchvisor/stats.schema.json share/man/man1/patchc.1 share/man/man1/hvrun.1 \
    share/man/man5/patchc-list.5 share/man/man5/patchc-report.5 share/man/man7/hvstub.7 \
    share/bash-completion/completions/patchc share/bash-completion/completions/hvrun \
    share/doc/patchvisor/README.md share/doc/patchvisor/LICENSE share/doc/patchvisor/docs/architecture.md \
    share/doc/patchvisor/examples/step_guest.c lib/libhvrun.a lib/libpvimage.a lib/pkgconfig/hvrun.pc \
    include/patchvisor/runtime/vmcs.h include/patchvisor/hvstub/hvstub.h; do
    [ -s "$prefix/$file" ] || missing+=" $file"
done
is "${missing:-}" '' 'every part of the product is there'
is "$(find "$tmp/root" -type f -printf '%m %P\n' | grep -vE '^644 |^755 usr/local/bin/')" '' \
    'programs can be executed, all else only read'
is "$("$prefix/bin/patchc" --version)" "patchc $(cat VERSION)" 'the installed patchc runs'
is "$("$prefix/bin/hvrun" --version)" "hvrun $(cat VERSION)" 'the installed hvrun runs'
check 'the installed patchc finds the installed lists' "$prefix/bin/patchc" scan -l io "$BUILD/samples/hello.elf"
is "$(cd "$prefix/share/doc/patchvisor" && grep -ohE '\]\([^)#:]+\.md\)' README.md docs/*.md | sort -u |
    tr -d ']()' | while read -r page; do [ -e "$page" ] || [ -e "docs/$page" ] || echo "$page"; done)" '' \
    'links between the installed pages lead somewhere'
if command -v man >/dev/null; then
    is "$(for page in "$prefix"/share/man/man?/*; do
        MANROFFSEQ='' LC_ALL=C.UTF-8 man --warnings -E UTF-8 -l "$page" 2>&1 >/dev/null
    done)" '' 'man formats every page without a warning'
else
    skip 'man formats every page without a warning' 'man is not installed'
fi
if command -v mandoc >/dev/null; then
    is "$(mandoc -Tlint -Wstyle man/*.[1-9] | grep -v 'referenced manual not found')" '' 'mandoc finds nothing to say'
else
    skip 'mandoc finds nothing to say' 'mandoc is not installed (make lint-deps)'
fi
check 'make uninstall succeeds' run_make uninstall
is "$(find "$tmp/root" ! -type d)" '' 'and leaves no file'
is "$(find "$tmp/root" -name '*patchvisor*')" '' 'nor a folder of its own'

# ---- the Debian package's description ----
needed=$(sed -n '/^BUILD_DEPS :=/,/[^\\]$/p' Makefile | grep -oE '[a-z0-9.+-]+-dev' | grep -v '^libc6-dev$' | sort)
for package in Source 'Package: libhvrun-dev'; do
    is "$(sed -n "/^$package/,/^Description/p" debian/control | sed -n 's/^ \([a-z0-9.+-]*-dev\),\?$/\1/p' | sort -u)" "$needed" \
        "debian/control (${package#*: }) names the libraries that the Makefile names"
done
is "$(sed -n '1s/.*(\(.*\)).*/\1/p' debian/changelog)" "$(cat VERSION)" 'debian/changelog has the version of VERSION'
plan_done
