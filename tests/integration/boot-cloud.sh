#!/bin/bash
# SPDX-License-Identifier: MIT
# Debian's cloud kernel, patched, boots to userspace under QEMU and powers off, like the unpatched one.
. tests/integration/tap.sh
. tests/integration/qemu.sh
. tests/integration/boots.sh

need_kernel CLOUD
boot_ways "$kernel"
plan_done
