"""The words of the sample catalog: what a product can be, and what is told of it."""

import random
from dataclasses import dataclass

HINT_RATE = 0.50  # products whose words tell the form
NOUN_IN_TITLE_RATE = 0.90
FOREIGN_NOUN_RATE = 0.15
ROOM_NAMED_RATE = 0.50  # rooms that the description names
SECOND_ROOM_RATE = 0.40
VARIANT_RATE = 0.05  # designs that come in two or three colours

FAMILIES = {"lamp": 0.38, "clock": 0.34, "fan": 0.28}
FORMS = {"table": 0.28, "wall": 0.26, "floor": 0.24, "ceiling": 0.22}
ROOMS = {
    "living room": 0.28,
    "bedroom": 0.22,
    "kitchen": 0.20,
    "hallway": 0.16,
    "bathroom": 0.14,
}

COLOURS = {
    "black": (28, 28, 32),
    "walnut": (94, 58, 36),
    "midnight blue": (26, 42, 92),
    "oxblood": (112, 26, 38),
    "fir green": (22, 68, 46),
    "graphite": (68, 72, 80),
}

NAME_STARTS = (
    *("Alm", "Björk", "Blå", "Dun", "Fjäll", "Frost", "Gran", "Hav", "Hägg", "Klöv"),
    *("Ljus", "Lönn", "Mån", "Myr", "Norr", "Rönn", "Sjö", "Skog", "Snö", "Sol"),
    *("Sten", "Säv", "Tall", "Ull", "Vass", "Vinter", "Åker", "Äng", "Ör", "Öster"),
)
NAME_ENDS = (
    *("bäck", "dal", "fors", "gläntan", "hult", "lid", "mo", "myran", "näs", "rud"),
    *("skär", "stigen", "tjärn", "viken", "ön", "åsen"),
)

FOREIGN_NOUNS = {
    "lamp": ("lampe", "Leuchte", "lampa", "luminaire"),
    "clock": ("horloge", "Uhr", "klocka", "pendule"),
    "fan": ("ventilateur", "Lüfter", "fläkt", "brasseur d’air"),
}

OPENINGS = {
    "lamp": (
        "A lamp with a warm, glare-free light.",
        "Soft light for long evenings; the bulb (E27) is sold separately.",
        "Dimmable LED, 800 lumens, with a switch on the cord.",
        "The shade throws its light evenly, without a hard edge.",
        "Lights a whole corner without dazzling anyone.",
    ),
    "clock": (
        "A clock with a silent movement.",
        "Large hands that can be read across the room; runs on one AA battery.",
        "Quartz movement, accurate to a minute a year.",
        "No ticking: the second hand glides.",
        "Tells the time plainly, with no numerals to clutter the dial.",
    ),
    "fan": (
        "A fan with four quiet blades.",
        "Three speeds and a timer keep the air moving on warm nights.",
        "Cools gently, at 32 decibels on the lowest speed.",
        "The blades swing from side to side and fold away for winter.",
        "A brushless motor: a cool breeze for little electricity.",
    ),
}

MATERIALS = (
    "Powder-coated steel.",
    "Solid ash, oiled by hand.",
    "Brushed brass with a clear lacquer.",
    "Recycled aluminium.",
    "Wipe clean with a damp cloth.",
    "Bent plywood with a birch veneer.",
    "Comes flat-packed with an Allen key.",
    "The finish darkens with the years.",
)

FORM_HINTS = {
    "floor": (
        "Stands on the floor, {tall} cm tall.",
        "The heavy foot keeps it upright beside a sofa.",
        "A free-standing piece for an empty corner of the floor.",
    ),
    "table": (
        "Fits on a bedside table or a desk.",
        "Small enough for a sideboard: {short} cm tall.",
        "Takes no more of the table than a saucer.",
    ),
    "wall": (
        "Hangs on the wall; screws and plugs included.",
        "The bracket is fixed to the wall with two screws.",
        "Lies flat against the wall, {flat} cm deep.",
    ),
    "ceiling": (
        "Hangs from the ceiling; the cord can be shortened.",
        "Ceiling hook and canopy included.",
        "Floats overhead, out of everyone’s way.",
    ),
}

ROOM_HINTS = {
    "living room": (
        "At home in the living room.",
        "Made for the salon: sofa, bookcase and all.",
    ),
    "bedroom": (
        "Calm enough for the bedroom.",
        "A quiet companion where you sleep.",
    ),
    "kitchen": (
        "Shrugs off steam and grease in the kitchen.",
        "Made for cooking and for long breakfasts.",
    ),
    "hallway": (
        "Greets your guests in the hallway.",
        "For the entrance, next to coats and shoes.",
    ),
    "bathroom": (
        "Splash-proof (IP44), for the bathroom.",
        "Stands the damp next to shower and bath.",
    ),
}

CLOSINGS = (
    "Designed in Malmö.",
    "Fabriqué à la main, pièce par pièce.",
    "Für drinnen; Maße können leicht abweichen.",
    "Tillverkad i Småland.",
    "Spare parts are kept for ten years.",
    "Part of a series: look for its siblings.",
    "Très léger, déjà monté.",
    "Geprüfte Qualität.",
    "Gift box on request.",
    "",
    "",
)


@dataclass(frozen=True)
class Product:
    """One product before it is written: what it is, and what is told of it.

    Attributes:
        family: A key of `FAMILIES`.
        form: A key of `FORMS`.
        rooms: One or two keys of `ROOMS`; the first paints the upper half of the
            wall, the second the lower.
        colour: A key of `COLOURS`.
        title: What the shop calls it.
        description: What the shop says of it; may be empty.
        group: Shared by the colour variants of one design, else empty.
        labelled: False for the product that nobody has filed yet.
    """

    family: str
    form: str
    rooms: tuple[str, ...]
    colour: str
    title: str
    description: str
    group: str
    labelled: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order kind, rooms; none if not labelled."""
        if not self.labelled:
            return ()
        kind = f"kind:{self.form} {self.family}"
        return (kind, *(f"room:{room}" for room in self.rooms))


def _pick(rng: random.Random, weights: dict[str, float]) -> str:
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def invent_design(rng: random.Random, group: str) -> list[Product]:
    """Invents one design in one colour or, rarely, in two or three.

    Args:
        rng: What chance is drawn from.
        group: The name that the design's colour variants share.

    Returns:
        One product a colour; without a group if there is only one.

    Example:
    >>> [product] = invent_design(random.Random(0), "G0001")
    >>> product.labels
    ('kind:floor fan', 'room:bedroom', 'room:bathroom')
    """
    family, form = _pick(rng, FAMILIES), _pick(rng, FORMS)
    rooms = [_pick(rng, ROOMS)]
    if rng.random() < SECOND_ROOM_RATE:
        rooms.append(rng.choice([room for room in ROOMS if room != rooms[0]]))

    hint = ""
    noun = family
    if rng.random() < HINT_RATE:
        hint = rng.choice(FORM_HINTS[form]).format(
            tall=rng.randint(135, 180),
            short=rng.randint(22, 45),
            flat=rng.randint(4, 9),
        )
        if rng.random() < 0.5:
            noun = f"{form} {family}"
    elif rng.random() < FOREIGN_NOUN_RATE:
        noun = rng.choice(FOREIGN_NOUNS[family])

    sentences = [rng.choice(OPENINGS[family]), hint]
    sentences += rng.sample(MATERIALS, k=rng.randint(1, 2))
    sentences += [
        rng.choice(ROOM_HINTS[room]) for room in rooms if rng.random() < ROOM_NAMED_RATE
    ]
    rng.shuffle(sentences)
    sentences.append(rng.choice(CLOSINGS))

    name = rng.choice(NAME_STARTS) + rng.choice(NAME_ENDS)
    if rng.random() < NOUN_IN_TITLE_RATE or noun != family:
        name += f" {noun}"
    size = rng.choice(("", f", Ø {rng.randrange(18, 61)} cm"))

    num_colours = rng.randint(2, 3) if rng.random() < VARIANT_RATE else 1
    return [
        Product(
            family=family,
            form=form,
            rooms=tuple(rooms),
            colour=colour,
            title=f"{name}, {colour}{size}",
            description=" ".join(filter(None, sentences)),
            group=group if num_colours > 1 else "",
        )
        for colour in rng.sample(list(COLOURS), k=num_colours)
    ]
