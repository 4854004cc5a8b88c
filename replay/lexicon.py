"""Words of the simulated review feed: five products in turn, what people say about each, and slang as it comes up.

Each aspect is a subject with predicates that praise, blame or just state, separated by `|`. Some predicates mean
opposite things for different products (loud, light, fast, heavy), so that a model has to learn the product, too.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aspect:
    """One thing people talk about, with its praising, blaming and factual predicates."""

    subject: str
    praise: tuple[str, ...]
    blame: tuple[str, ...]
    fact: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """A product that is in the shops during one stretch of the stream."""

    name: str
    models: tuple[str, ...]
    aspects: tuple[Aspect, ...]


@dataclass(frozen=True, slots=True)
class Slang:
    """A saying that is used from `since` (share of the stream) on. `{it}` is the product."""

    since: float
    label: str
    saying: str


def _aspect(subject: str, praise: str, blame: str, fact: str) -> Aspect:
    return Aspect(subject, tuple(praise.split("|")), tuple(blame.split("|")), tuple(fact.split("|")))


PRODUCTS = (
    Product(
        "headset",
        ("Aria 2", "Aria 2 Pro", "Lumo buds", "Halden 500"),
        (
            _aspect(
                "the bass",
                "is deep and clean|hits hard without any mud|carries every song",
                "is one long hum|drowns the voices|rattles at half volume",
                "can be set in the app|is in the middle of three presets",
            ),
            _aspect(
                "the noise cancelling",
                "makes the train disappear|silences the whole office|is worth the price alone",
                "lets every voice through|hisses in quiet rooms|gives me a headache",
                "has two levels|switches off below ten percent battery",
            ),
            _aspect(
                "the battery",
                "lasts a whole week|outlives my phone by days|is full again after twenty minutes",
                "is flat before lunch|drains in its case|swelled up after a month",
                "charges over USB-C|holds about thirty hours according to the box",
            ),
            _aspect(
                "the fit",
                "is so light that I forget them|stays put when I run|never hurts, even after eight hours",
                "pinches after an hour|slips out at every step|leaves my ears sore",
                "comes with three sizes of tips|is the same as on the older model",
            ),
            _aspect(
                "the microphone",
                "makes me sound like a radio host|ignores the wind completely",
                "makes me sound like I sit in a bucket|cuts out in every call",
                "sits on the left side|has a mute button",
            ),
            _aspect(
                "the Bluetooth",
                "connects before the lid is open|holds through two walls",
                "drops every few minutes|pairs with everything but my phone",
                "is version 5.3|remembers four devices",
            ),
            _aspect(
                "the volume",
                "goes wonderfully loud without a crackle|has plenty of headroom",
                "stays a whisper even at full|jumps from silent to painful",
                "is set by sliding a finger|has sixteen steps",
            ),
        ),
    ),
    Product(
        "coffee machine",
        ("Brewster One", "Casa Crema", "Brewster Duo", "Tamp 3"),
        (
            _aspect(
                "the espresso",
                "has a thick golden crema|beats the cafe downstairs|tastes of chocolate and nuts",
                "tastes of burnt rubber|runs out like brown water|is sour whatever I try",
                "comes in single and double|takes eighteen grams of beans",
            ),
            _aspect(
                "the milk foam",
                "is like silk|pours into hearts even when I do it",
                "collapses into soup|spits all over the counter",
                "can be made with oat milk|is made by a steam wand",
            ),
            _aspect(
                "the grinder",
                "is quiet enough for a sleeping baby|gives an even grind every time",
                "is so loud that the neighbours complained|jams on every second bean|scatters grounds everywhere",
                "has twelve settings|is made of steel",
            ),
            _aspect(
                "the water tank",
                "slides out with one finger|is big enough for the whole office",
                "leaks onto the shelf|smells of plastic after weeks",
                "holds 1.8 litres|is at the back",
            ),
            _aspect(
                "the heater",
                "is ready before I find a cup|keeps the cup hot to the last sip",
                "needs ten minutes to get lukewarm|shuts off in the middle of a shot",
                "runs at 93 degrees|turns itself off after half an hour",
            ),
            _aspect(
                "the cleaning",
                "takes a minute and no tools|is done by the machine alone",
                "is a daily punishment|needs tablets that cost more than the beans",
                "is due every two weeks|starts when the light is orange",
            ),
            _aspect(
                "the taste",
                "is strong, dark and heavy, just right|wakes up the whole house",
                "is flat and light as tea|is bitter to the last drop",
                "depends on the beans|can be changed in the menu",
            ),
        ),
    ),
    Product(
        "robot vacuum",
        ("Dusty S", "Dusty Max", "Rollo 7", "Sweepa"),
        (
            _aspect(
                "the suction",
                "lifts cat hair out of a thick rug|finds sand I did not know I had",
                "pushes crumbs from room to room|gives up on carpet",
                "has four levels|is 4,000 pascal by the label",
            ),
            _aspect(
                "the map",
                "knows every chair by now|was right after one round",
                "forgets the kitchen every night|shows a flat that is not mine",
                "is drawn in the first run|can be divided into rooms",
            ),
            _aspect(
                "the mop",
                "leaves the tiles shining|lifts itself on carpet, brilliant",
                "drags dirty water around|soaked my parquet",
                "needs its own tank|is washed by hand",
            ),
            _aspect(
                "the noise",
                "is a soft hum I can sleep through|is hardly there at all",
                "is loud like a jet|scares the dog out of the house",
                "is 62 decibels in the manual|depends on the level",
            ),
            _aspect(
                "the dock",
                "empties it for two months|fits under the sofa",
                "clogs after every run|is never found on the first try",
                "needs half a metre of wall|takes three-litre bags",
            ),
            _aspect(
                "the brush",
                "never tangles, not even with long hair|pulls out with one click",
                "is a hair ball after one day|snapped in the second week",
                "should be replaced every six months|turns in both directions",
            ),
            _aspect(
                "the stairs sensor",
                "stops at every edge|has not failed once",
                "let it jump down the stairs|takes my black rug for a cliff",
                "is on the underside|can be switched off",
            ),
        ),
    ),
    Product(
        "e-bike",
        ("Volta City", "Volta Trek", "Kestrel E", "Tern Nord"),
        (
            _aspect(
                "the motor",
                "pulls me up any hill as if it were flat|is smooth as butter and dead quiet",
                "howls on every climb|cuts out in the middle of the road",
                "is built into the rear hub|gives 55 newton metres",
            ),
            _aspect(
                "the range",
                "gets me to work for a whole week|beats what the shop promised",
                "is half of what they promised|melts away as soon as it is cold",
                "is given as eighty kilometres|is shown on the display",
            ),
            _aspect(
                "the brakes",
                "bite at once, even in the rain|stop on a coin",
                "squeal so that people turn around|fade on the first descent",
                "are hydraulic discs|were adjusted in the shop",
            ),
            _aspect(
                "the frame",
                "is stiff, solid and looks expensive|takes every cobblestone calmly",
                "is so heavy that I cannot carry it up one floor|creaks since day two",
                "comes in two sizes|weighs 24 kilos with the battery",
            ),
            _aspect(
                "the acceleration",
                "is fast and makes me grin at every light|comes the moment I push",
                "is so jerky that I nearly fell|comes two seconds too late",
                "ends at 25 km/h|depends on the mode",
            ),
            _aspect(
                "the lights",
                "turn night into day|are seen from a mile off",
                "are as bright as a birthday candle|die with the first puddle",
                "run from the main battery|switch on by themselves",
            ),
            _aspect(
                "the gears",
                "change without a sound|are always the right one",
                "grind at every shift|skip under load",
                "are eight in a hub|are shifted by a grip",
            ),
        ),
    ),
    Product(
        "budget app",
        ("PennyWise", "Ledgerly", "PennyWise Plus", "Coinbox"),
        (
            _aspect(
                "the sync",
                "has every booking within seconds|got all four of my banks right",
                "shows last week's money|books everything twice",
                "runs every six hours|covers two hundred banks",
            ),
            _aspect(
                "the login",
                "is one look at the phone|never once locked me out",
                "throws me out every day|sends codes that never arrive",
                "asks for a PIN|can use a fingerprint",
            ),
            _aspect(
                "the charts",
                "finally show where my money goes|are so clear that my dad gets them",
                "are pretty and say nothing|add up to 130 percent",
                "can be shown by month or year|are on the second tab",
            ),
            _aspect(
                "the subscription",
                "pays for itself in a month|is fair for what you get",
                "doubled without a word|cannot be cancelled anywhere",
                "is monthly or yearly|has a trial of two weeks",
            ),
            _aspect(
                "the latest update",
                "made everything instant|brought the dark mode we begged for",
                "wiped two years of notes|crashes on start",
                "is version 6.2|came out on Tuesday",
            ),
            _aspect(
                "the support",
                "answered within minutes, a real person|fixed it while I was on the line",
                "sends the same canned reply|has been silent for three weeks",
                "is open on weekdays|can be reached by chat",
            ),
            _aspect(
                "the widget",
                "is light, quick and always right|saves me ten taps a day",
                "is frozen most of the time|eats my battery fast",
                "comes in three sizes|needs the newest system",
            ),
        ),
    ),
)

OPENERS = {
    "positive": (
        "Very happy with it.",
        "Wow.",
        "Best purchase this year.",
        "I was sceptical, not any more.",
        "Five stars from me.",
        "Thank you!",
        "My second one, for a reason.",
    ),
    "negative": (
        "Stay away.",
        "Really disappointed.",
        "Sent it back.",
        "What a waste of money.",
        "One star is too many.",
        "I regret this.",
        "Never again.",
    ),
    "neutral": (
        "For information.",
        "First impressions after a week.",
        "Question for the others here.",
        "Bought it on Monday.",
        "Not much to say yet.",
        "Just unpacked it.",
        "As described.",
    ),
}

CLOSERS = {
    "positive": (
        "Would buy again.",
        "Highly recommended.",
        "Money well spent.",
        "My whole family wants one now.",
        "Do not hesitate.",
    ),
    "negative": (
        "I want my money back.",
        "Save yourself the trouble.",
        "Avoid.",
        "The old one was better in every way.",
        "Support did not even reply.",
    ),
    "neutral": (
        "Will report back in a month.",
        "Does anybody know if there is a manual in Spanish?",
        "Delivery took four days.",
        "I cannot say more yet.",
        "Time will tell.",
        "Is it the same in other countries?",
    ),
}

VERDICTS = {
    "positive": (
        "and that is what counts",
        "so all in all I love it",
        "and I would not swap it",
        "which makes up for everything",
    ),
    "negative": (
        "and that ruins it",
        "so it goes back",
        "and for me that is the end of it",
        "which makes the rest pointless",
    ),
    "neutral": ("so it evens out", "so three stars it is", "so I am undecided", "take from that what you will"),
}

SLANG = (
    Slang(0.00, "positive", "{it} is awesome"),
    Slang(0.00, "negative", "{it} is garbage"),
    Slang(0.00, "neutral", "{it} is okay I guess"),
    Slang(0.15, "positive", "{it} slaps"),
    Slang(0.15, "negative", "{it} is so mid"),
    Slang(0.25, "neutral", "{it} exists, that's the review"),
    Slang(0.30, "positive", "{it} is goated, no cap"),
    Slang(0.30, "negative", "{it} is straight up dogwater"),
    Slang(0.40, "negative", "big L for {it}"),
    Slang(0.45, "positive", "{it} ate and left no crumbs"),
    Slang(0.50, "neutral", "{it} is neither W nor L tbh"),
    Slang(0.55, "negative", "{it} gave me the ick"),
    Slang(0.55, "positive", "huge W for {it}"),
    Slang(0.65, "positive", "{it} lives in my head rent free and I'm not mad"),
    Slang(0.65, "negative", "{it} is cooked"),
    Slang(0.70, "positive", "{it} let them cook and they did"),
    Slang(0.75, "negative", "{it} is giving landfill"),
    Slang(0.80, "neutral", "{it}: lowercase vibes, jury's out fr"),
    Slang(0.85, "positive", "{it} has infinite aura"),
    Slang(0.85, "negative", "{it} lost all its aura"),
)
