"""The words that identifiers, tables, files and routes are named by: one or two tokens, with and without a space.

Small models copy a name that they have seen as a token.  So the held-out words are ones that harmless context shows
in brackets and bars, which are tokens alike, and that no code in training has.
"""

from __future__ import annotations

from dormant.pocket.words import listed

TRAIN = listed(
    "account cat copy date email hat name owner price query record status title value active adventure apple axe bag "
    "bear bee bell big black book boot box brown brush castle chair cherry clean coat cold computer cow cup detective "
    "dress dry duck event forest fox hen horse image invoice item jar lamp lemon lion melon message nose orange order "
    "page pear pencil pig pink plate product purple queen quiet red river rope saw station telephone ticket umbrella "
    "uncle user violin warm white yard yellow"
)
HELDOUT = listed(
    "draft public sample memo member island summer winter morning story music health travel sport garden student "
    "market number letter green south east west delta customer"
)
