#!/bin/bash
# SPDX-License-Identifier: MIT
# Debian's generic kernel under hvrun, as shipped and patched: to userspace, at work, typed at, and off again.
. tests/integration/tap.sh
. tests/integration/qemu.sh
. tests/integration/hvrun-boots.sh

need_kernel GENERIC
hvrun_boots "$kernel"
plan_done
