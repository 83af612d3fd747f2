#!/bin/bash
# SPDX-License-Identifier: MIT
# Names that linking cannot check. What nobody else calls is static, so that the compiler sees what is used no more. And
# unit tests are linked with -z muldefs, so that a test may put a double in a
# library function's place, which makes any other clash silent.
. tests/integration/tap.sh

# names FLAG FILE...: `object name` of the public names that objects and archives define or call; those of the
# sanitizers begin with __.
names() {
    nm --extern-only --print-file-name "$@" 2>/dev/null |
        sed -n 's|^\(.*/\)\?\([^/]*\)\.o:[^:]* \([A-Za-z]\) \([^ ]*\)$|\2 \4|p' | grep -v ' __' | sort
}

# objects PATTERN: the objects of the sources of unit tests whose name does (does not: -v) match.
objects() {
    basename -s .c tests/unit/*.c | grep "$@" | sed "s|.*|$BUILD/obj/tests/unit/&.o|"
}

none() { # SENTENCE NAMES
    is "$2" '' "$1"
}

libraries=("$BUILD"/lib*.a)
mapfile -t tests < <(objects '^test_')
mapfile -t support < <(objects -v '^test_')

names --defined-only "${libraries[@]}" | cut -d' ' -f2 | sort >"$tmp/library"
names --defined-only "${support[@]}" | cut -d' ' -f2 | sort >"$tmp/support"
names --undefined-only "${libraries[@]}" | cut -d' ' -f2 >"$tmp/called" # in each other or in the C library
sort -u "$tmp/library" "$tmp/called" >"$tmp/replaceable"
names --defined-only "${tests[@]}" | grep -v ' main$' >"$tmp/doubles"

check "there are names to look at" test "$(wc -l <"$tmp/library")" -gt 500 -a "$(wc -l <"$tmp/support")" -gt 50 \
    -a -s "$tmp/called" -a -s "$tmp/doubles"
none "no public name is defined twice in the libraries" "$(uniq -d "$tmp/library")"
none "nor in what unit tests share" "$(uniq -d "$tmp/support")"
none "which takes no name of the libraries" "$(comm -12 "$tmp/library" "$tmp/support")"
none "what a unit test defines for others stands for something that the libraries have or call" \
    "$(awk 'NR == FNR { known[$1] = 1; next } !known[$2]' "$tmp/replaceable" "$tmp/doubles")"
none "and for nothing that unit tests share" \
    "$(awk 'NR == FNR { known[$1] = 1; next } known[$2]' "$tmp/support" "$tmp/doubles")"

# The interface of the library is for others: vmcs.h. Fuzz targets are built by themselves; a benchmark may not be.
fuzz=${FUZZ:-build/fuzz}/obj/tests/fuzz
grep -oE '\bvmcs_[a-z_]+\(|\bsmm_[a-z_]+\(' runtime/vmcs.h | tr -d '(' | sort -u >"$tmp/interface"
find "$BUILD/obj/tests" "$fuzz" "$BUILD/obj/patchc/main.o" "$BUILD/obj/runtime/main.o" -name '*.o' -print0 2>/dev/null |
    xargs -0 nm --undefined-only 2>/dev/null | awk '$1 == "U" { print $2 }' | sort -u - "$tmp/called" "$tmp/interface" >"$tmp/used"
if [ -d "$fuzz" ]; then
    none "what no other file calls is static" "$(comm -23 "$tmp/library" "$tmp/used" | grep -v '^page_\|^templates_blob')"
else
    skip "what no other file calls is static" "fuzz targets are not built"
fi
plan_done
