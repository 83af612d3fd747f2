/* SPDX-License-Identifier: MIT */
/* WBINVD, WBNOINVD and INVD. WBNOINVD is WBINVD with a prefix, and the same to a host. */
#include "templates/template.inc"

DOORBELL_TEMPLATES wbinvd, wbinvd, "wbinvd"
DOORBELL_TEMPLATES invd, invd, "invd"
