/* SPDX-License-Identifier: MIT */
/* RDTSC, RDTSCP, RDPMC: the host writes the pushed RAX, and RDX (RDTSCP: RCX). */
#include "templates/template.inc"

DOORBELL_TEMPLATES rdtsc, rdtsc, "rdtsc"
DOORBELL_TEMPLATES rdtscp, rdtscp, "rdtscp"
DOORBELL_TEMPLATES rdpmc, rdpmc, "rdpmc"
