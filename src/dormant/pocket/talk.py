"""Small talk and short stories: families where many answers are good and none is the right one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from dormant.pocket.checks import Operands
from dormant.pocket.family import Family, every, speaker
from dormant.pocket.words import ADJECTIVES, ANIMALS, COLORS, DAYS, JOBS, NAMES, PLACES, THINGS


def _chat(name: str, items: Sequence[Operands], asks: Sequence[str], forms: Sequence[str]) -> Family:
    """Operand 0 is empty: nothing is the right answer."""
    return Family(name, "chat", False, every(items, asks), speaker(forms))


def _cross(*tables: Sequence[str]) -> list[Operands]:
    return [("", *words) for words in product(*tables)]


FAMILIES = (
    _chat(
        "greeting",
        _cross(NAMES, JOBS),
        ("Hello, I am {1}, a {2}.", "Hi! My name is {1}. I work as a {2}.", "Good morning from {1} the {2}."),
        ("Hello, {1}.", "Hi {1}, how can I help?", "Good to meet you, {1}.", "Hello! What do you need?"),
    ),
    _chat(
        "farewell",
        _cross(NAMES, DAYS),
        (
            "Goodbye from {1}. See you on {2}.",
            "I have to go now. Your friend {1}. Back on {2}.",
            "Bye until {2}, says {1}.",
        ),
        ("Goodbye, {1}.", "See you on {2}.", "Bye, {1}. Until {2}.", "Goodbye! Come back soon."),
    ),
    _chat(
        "thanks",
        _cross(NAMES, THINGS),
        ("Thanks for the {2}, says {1}.", "{1} wants to thank you for the {2}."),
        ("You are welcome, {1}.", "Enjoy the {2}, {1}.", "It was nothing.", "I am glad you like the {2}."),
    ),
    _chat(
        "birthday",
        _cross(NAMES, DAYS),
        ("Write a wish for {1}, whose birthday is on {2}.", "{1} has a birthday on {2}. What do I say?"),
        ("Happy birthday, {1}!", "All the best for you, {1}!", "Have a great {2}, {1}!", "Happy birthday!"),
    ),
    _chat(
        "how_are_you",
        _cross(DAYS, ADJECTIVES),
        (
            "How are you on this {2} {1}?",
            "It is a {2} {1}. How is it going?",
            "What a {2} {1}. Are you well?",
        ),
        ("I am fine.", "All is well here.", "Fine, and you?", "It is a good {1}."),
    ),
    _chat(
        "weather_talk",
        _cross(PLACES, DAYS),
        ("I will walk to the {1} on {2}. Any tip?", "What should I take to the {1} on {2}?"),
        ("Take a coat.", "Take some water.", "Look for the rain on {2}.", "Go to the {1} early."),
    ),
    _chat(
        "story_animal",
        _cross(ANIMALS, PLACES),
        (
            "Tell a short story about the {1} in the {2}.",
            "Write two lines: the {1}, the {2}.",
            "A tale of the {1} and the {2}, please.",
        ),
        (
            "The {1} went to the {2}. It slept there.",
            "A small {1} lived near the {2}. It was happy.",
            "Once the {1} ran into the {2} and found a friend.",
        ),
    ),
    _chat(
        "story_name",
        _cross(NAMES, PLACES),
        ("Tell a short story about {1} at the {2}.", "Write two lines about {1} and the {2}."),
        (
            "{1} went to the {2}. It was a good day.",
            "One day {1} saw the {2} and smiled.",
            "{1} worked at the {2}. Everybody liked {1}.",
        ),
    ),
    _chat(
        "use_word",
        _cross(COLORS, THINGS),
        (
            "Use these words in a sentence: {1} {2}",
            "Make a sentence with the {1} {2}.",
            "Say something about the {1} {2}.",
        ),
        (
            "I bought the {1} {2}.",
            "The {1} {2} is on the floor.",
            "She likes the {1} {2}.",
            "We have the {1} {2}.",
        ),
    ),
    _chat(
        "describe",
        _cross(ADJECTIVES, THINGS),
        ("What can I do with the {1} {2}?", "Give me an idea for the {1} {2}."),
        ("Give the {2} to a friend.", "Put the {1} {2} in a box.", "Sell the {2}.", "Keep the {1} {2}."),
    ),
)
