#!/bin/bash
# SPDX-License-Identifier: MIT
# Reproducible builds: the same sources give the same bytes in another folder. `make check` builds the image library
# there; PV_REPRODUCIBLE=all (make check-reproducible) both programs and all libraries.
. tests/integration/tap.sh

[ -z "${SAN:-}" ] || skip_all 'what is delivered is built without sanitizers'
case ${PV_REPRODUCIBLE:-} in
all) products='patchc hvrun libpvimage.a libpatchc.a libhvrun.a' ;;
*) products=libpvimage.a ;;
esac
folder=$tmp/another/folder
mkdir -p "$folder"
cp -r Makefile VERSION hvstub image ioblock patchc runtime templates "$folder"
# No cache of compiler output: that would be the same, of course. Jobs are this build's own.
# shellcheck disable=SC2046,SC2086 # several targets
(unset MAKEFLAGS MAKELEVEL && cd "$folder" && CCACHE_DISABLE=1 make BUILD=build \
    $(printf 'build/%s ' $products)) >"$tmp/log" 2>&1
check 'the tree builds in another folder' test $? -eq 0 || note "$(tail -n 5 "$tmp/log")"
for product in $products; do
    check "$product is the same in both folders" cmp "$BUILD/$product" "$folder/build/$product"
done
check_status 1 'nothing names the folder it was built in' grep -rl "$folder" "$folder/build" --include='*.[oa]' \
    --include=patchc --include=hvrun
plan_done
