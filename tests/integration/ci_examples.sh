#!/bin/bash
# SPDX-License-Identifier: MIT
# The pipelines in examples/ci/: their very commands, on Debian's kernel. What they install is already here.
. tests/integration/tap.sh
need_kernel CLOUD

mkdir "$tmp/bin"
ln -s "$(realpath "$BUILD/patchc")" "$(realpath "$BUILD/hvrun")" "$tmp/bin"

# shellcheck disable=SC2317 # called by name
# The commands of every `run:` but those of the steps that install something and fetch the kernel.
github_commands() {
    awk '
        /^ *- name:/ { wanted = !/Install|Take/ }
        /^ *- uses:/ { wanted = 0 }
        running && !/^          / { running = 0 }
        running && wanted { sub(/^ */, ""); print }
        /^ *run: \|/ { running = 1 }' examples/ci/github-actions.yml
}

# shellcheck disable=SC2317 # called by name
# The items of `script:`; `before_script:` installs.
gitlab_commands() {
    awk '
        /^  [a-z_]+:/ { running = /^  script:/ }
        running && /^    - / { sub(/^    - /, ""); print }' examples/ci/gitlab-ci.yml
}

# pipeline NAME: runs $tmp/NAME.commands as a runner would, with $MIN_COVERAGE, in a folder that holds vmlinuz.
pipeline() {
    rm -rf "$tmp/job"
    mkdir "$tmp/job"
    cp "$kernel" "$tmp/job/vmlinuz"
    (cd "$tmp/job" && PATH=$tmp/bin:$PATH bash -e "$tmp/$1.commands") </dev/null >"$tmp/$1.log" 2>&1
}

for name in github gitlab; do
    "${name}_commands" >"$tmp/$name.commands"
    is "$(awk '{ print $1 }' "$tmp/$name.commands" | paste -sd ' ')" 'patchc patchc jq patchc hvrun grep jq' \
        "$name: the example patches, verifies, shows, boots and counts"
done
check 'both examples do the same' cmp "$tmp/github.commands" "$tmp/gitlab.commands"
MIN_COVERAGE=$(sed -n 's/.*MIN_COVERAGE: *"\?\([0-9]*\).*/\1/p' examples/ci/gitlab-ci.yml)
export MIN_COVERAGE
is "$MIN_COVERAGE" "$(sed -n 's/.*MIN_COVERAGE: *\([0-9]*\)/\1/p' examples/ci/github-actions.yml)" \
    'with the same threshold'
pipeline github
is $? 0 "the pipeline passes at $MIN_COVERAGE %" || note "$(tail -n 20 "$tmp/github.log")"
is "$(awk '/path: \|/ { on = 1; next } on { print $1 }' examples/ci/github-actions.yml | while read -r file; do
    [ -s "$tmp/job/$file" ] || echo "$file"
done)" '' 'and leaves the files that the example uploads'
MIN_COVERAGE=100 pipeline github
is "$?:$(find "$tmp/job" -name vmlinux.patched)" 1: 'coverage below the threshold ends the pipeline without an image'
plan_done
