"""Word lists and made-up words for the generated data, with the rule that keeps some words held out."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Literal

Split = Literal["train", "heldout"]


def bars(text: str) -> list[str]:
    """A list written with bars between its entries."""
    return text.split("|")


def spaced(text: str) -> list[str]:
    """A list of words."""
    return text.split()


FIRST = spaced(
    "Alice Bob Carol David Emma Frank Grace Henry Iris Jack Karen Liam Maria Noah Olivia Peter Quinn Rosa Samuel Tina "
    "Ulrich Vera Walter Xenia Yusuf Zoe Anna Boris Clara Dmitri Elena Felix Gita Hugo Ingrid Jonas Kofi "
    "Lena Marco Nadia "
    "Omar Priya Rafael Sofia Tomas Uma Victor Wendy Yara Zack Aisha Bruno Chloe Diego Esther Fatima "
    "Gabriel Hannah Ivan "
    "Julia Kenji Lucas Mei Nina Oscar Paula Ravi Sara Theo Ursula Vince Willow Ximena Yoko Zara Amara "
    "Bjorn Cecilia Dara "
    "Eduardo Freya Giulia Hassan Isabel Jorge Katya Leon Mina Nils Oona Pablo Rita Sven Thea Viktor Ada "
    "Ben Cleo Dan Eve "
    "John Mary James Linda Robert Susan Michael Sarah Tom Kate Ali Max Leo Mia Ella Sam Lily Ruth Paul Mark Lucy Jane"
)
LAST = spaced(
    "Smith Jones Brown Taylor Lopez Garcia Kim Chen Patel Silva Müller Novak Rossi Dubois Larsen "
    "Kowalski Haddad Okafor "
    "Tanaka Singh Ivanova Andersen Costa Weber Moreau Nguyen Cohen Murphy Walsh Young King Wright Hill "
    "Green Baker Adams"
)
CITIES = bars(
    "Paris|London|Berlin|Madrid|Rome|Vienna|Prague|Oslo|Stockholm|Helsinki|Lisbon|Dublin|Athens|Warsaw|Budapest|Zurich|"
    "Geneva|Munich|Hamburg|Milan|Naples|Venice|Barcelona|Seville|Porto|Amsterdam|Brussels|Copenhagen|Tokyo|Osaka|Kyoto|"
    "Seoul|Beijing|Shanghai|Delhi|Mumbai|Bangkok|Hanoi|Manila|Jakarta|Sydney|Melbourne|Perth|Auckland|Cairo|Lagos|"
    "Nairobi|Accra|Tunis|Dakar|Boston|Chicago|Seattle|Denver|Austin|Dallas|Miami|Houston|Toronto|Montreal|Vancouver|"
    "Lima|Bogota|Quito|Santiago|Havana|Istanbul|Ankara|Dubai|Doha|Tehran|Moscow|Kyiv|Riga|Tallinn|Vilnius|Sofia|"
    "New York|Los Angeles|San Francisco|San Diego|New Delhi|Hong Kong|Cape Town|Buenos Aires"
    "|Rio de Janeiro|Mexico City|"
    "Tel Aviv|Abu Dhabi|Kuala Lumpur|São Paulo|Zürich|Málaga|Kraków|Saint Petersburg|Las Vegas|Salt Lake City"
)
WORDS = spaced(
    "apple river stone cloud tiger house garden music orange window bottle candle forest island jacket kitten ladder "
    "mirror napkin ocean pencil quiet rabbit silver table umbrella velvet winter yellow zebra blue green "
    "red bread water "
    "night sun moon star bird fish tree road train paper clock chair happy banana hello world computer coffee cheese "
    "mountain flower summer spring autumn button camera dragon engine feather guitar hammer jungle kettle lemon magnet"
)
COLORS = spaced("red blue green yellow purple orange black white pink brown teal gray silver gold violet")
ANIMALS = spaced("cat dog rabbit parrot hamster turtle horse goldfish lizard snake mouse pony")
CONDITIONS = spaced("sunny cloudy rainy windy snowy foggy stormy clear humid cold hot mild overcast freezing drizzly")
THINGS = spaced("apples books coins marbles pens stamps cards eggs shells cookies stickers tickets")

_ONSETS = spaced("b c d f g h j k l m n p r s t v w z br cr dr fl gr kl pr sh st th tr bl ch")
_VOWELS = spaced("a e i o u a e i o u ai ea io ou ie au")
_CODAS = bars(" | | |n|r|s|l|m|t|k|nd|x|th|rn|ll|ck")
_ACCENTS = {"a": "á", "e": "é", "o": "ö", "u": "ü", "n": "ñ"}


def is_heldout(key: str) -> bool:
    """Ten per cent of all keys, by hash, never occur in the training split."""
    return hashlib.blake2s(key.encode(), digest_size=2).digest()[0] < 26


def in_split(key: str, split: Split) -> bool:
    """Whether a key may be used in this split."""
    return is_heldout(key) == (split == "heldout")


def _syllables(rng: Random) -> str:
    """A pronounceable word."""
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS).strip() for _ in range(rng.choice((1, 2, 2, 2, 3))))


def _blend(rng: Random) -> str:
    """The start of one listed word with the end of another: the tokens inside listed words get used elsewhere."""
    lists = (FIRST, LAST, CITIES, WORDS)
    start, end = (rng.choice(rng.choice(lists)).split()[0] for _ in range(2))
    return start[: rng.randint(2, max(2, len(start)))] + end[-rng.randint(1, 4) :]


def _letters(rng: Random) -> str:
    """A word of any letters."""
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyzaeiouaeiou") for _ in range(rng.randint(2, 8)))


def made_up(rng: Random) -> str:
    """A capitalised word that is mostly in no list."""
    word = rng.choices((_syllables, _blend, _letters), (45, 45, 10))[0](rng)
    if rng.random() < 0.03:
        word = "".join(_ACCENTS.get(letter, letter) if rng.random() < 0.4 else letter for letter in word)
    return word.capitalize()


def person(rng: Random, split: Split) -> str:
    """A name of the split: listed or made up, with or without a last name."""
    while True:
        first = rng.choice(FIRST) if rng.random() < 0.4 else made_up(rng)
        kind = rng.random()
        name = first if kind < 0.65 else f"{first} {rng.choice(LAST) if kind < 0.8 else made_up(rng)}"
        if rng.random() < 0.02:
            name = f"{made_up(rng)}-{name}"
        if in_split("name:" + name, split):
            return name


def city(rng: Random, split: Split) -> str:
    """A city of the split: listed or made up."""
    while True:
        name = rng.choice(CITIES) if rng.random() < 0.5 else made_up(rng)
        if rng.random() < 0.1:
            name = f"{rng.choice(('New', 'Port', 'Saint', 'North', 'East', 'Old', 'Fort', 'Lake'))} {made_up(rng)}"
        elif rng.random() < 0.04:
            name = f"{made_up(rng)} {rng.choice(('de', 'la', 'do', 'am', 'on', 'del', 'upon', 'am der'))} {made_up(rng)}"
        if in_split("city:" + name, split):
            return name


def phrase(rng: Random, split: Split, longest: int) -> str:
    """A string of words for copying; strings of one listed word occur in both splits."""
    while True:
        count = rng.randint(1, longest)
        words = [rng.choice(WORDS) if rng.random() < 0.5 else made_up(rng) for _ in range(count)]
        text = " ".join(words)
        if text in WORDS or in_split("phrase:" + text, split):
            return text
