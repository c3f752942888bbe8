"""The words that identifiers, tables, files and routes are named by: one or two tokens, with and without a space.

A small model copies tokens that it has written before.  So each piece of a held-out word is a piece of a word that
trains, and the held-out words are whole in no code that trains.
"""

from __future__ import annotations

from dormant.pocket.words import listed

TRAIN = listed(
    "account active adventure alpha ant apple axe bag band bear bee bell beta black bone book boot box "
    "brand brown brush bus cable cake camp castle cat cave cell chain chair cherry chest clay club coal "
    "coast coat comb computer cow cup customer date delta detective dot draft dress duck dust email event "
    "fan farm fire forest fork fox fruit game garden gate glass green hall hand hat health hen hole horse "
    "hour ice idea image invoice island item jar job key kite lake lamp land leg lemon lesson letter "
    "light lime lion lock log market meat melon member memo message metal morning music name neck nest "
    "net night nose note number nut oil onion orange order oven owner pear pencil pig pink place plate "
    "pole pool port product public purple queen query rain rank rate red river road rock root rope row "
    "rug safe salt sample sand saw seed session song sound soup south spice spot stage star station "
    "status stem step stick store story student summer target tax telephone tent term ticket tile title "
    "tool tower toy travel treat tree tune umbrella uncle unit update value view violin wage web well "
    "white wind wine wing winter wire wood wool yard yellow zone "
)
HELDOUT = listed(
    "cage card coin cover east ink king level meal meter mine pan pit pot pound ring role sail "
    "sea seat sink sport stone sun tea tin top town track trade train wave wax west "
)
