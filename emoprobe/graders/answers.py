r"""Exact numbers out of text: `1,234.50`, `$3`, `-2/3`, `\frac{1}{2}`, `45%`, `1.2e3`, `1.5 × 10^6`, `20\,000`, `½`."""

from __future__ import annotations

import math
import re
import unicodedata
from fractions import Fraction
from typing import Any

MAX_DIGITS = 200
_MAX_EXPONENT = 200
_SCALES = {"hundred": 10**2, "thousand": 10**3, "lakh": 10**5, "million": 10**6, "crore": 10**7, "billion": 10**9}
_SCALES["trillion"] = 10**12

# The repetitions have bounds, so that no text takes more than linear time.
_GROUPED = (
    r"(?:[1-9]\d{0,2}(?:,\d{3}){1,20}(?!\d|,\d)"  # 1,234,567
    r"|[1-9]\d{0,2}(?:[ '’_]\d{3}){1,20}(?!\d|/)"  # 1 234 567, 1'234'567
    r"|[1-9]\d?(?:,\d{2}){1,20},\d{3}(?!\d|,\d))"  # 12,34,567
)
_DIGITS = rf"(?:{_GROUPED}|\d++)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d++)?|\.\d++)"
_POWER = r"10(?:\^|\*\*)(?:\{\s?[-+]?\d{1,3}\s?\}|\([-+]?\d{1,3}\)|[-+]?\d{1,3}(?!\d))"
_EXPONENT = rf"(?:[eE][+-]?\d{{1,3}}(?!\w)|[ ]?[×*xX][ ]?{_POWER})"
_SCALE = rf"(?:[ ](?:{'|'.join(_SCALES)})s?\b)"
# 1.234,56 and 1.234.567: a decimal comma and points as separators, where they cannot be read otherwise.
_CONTINENTAL = r"[1-9]\d{0,2}(?:(?:\.\d{3}){1,20},\d++|(?:\.\d{3}){2,20})(?![\d,.]\d)(?!\d)"
# A mixed number, a power of ten, an integer, a decimal or a fraction; its sign is read by `find_numbers`.
_UNSIGNED = (
    rf"(?:\d++(?:\s|\sand\s)\d++/\d++(?![\d/])|{_POWER}|{_CONTINENTAL}"
    rf"|{_DECIMAL}{_EXPONENT}?(?:\s?/\s?{_DECIMAL}(?![\d/]))?{_SCALE}?)"
)
# Digits that are no number: dates, times, ratios and versions; ordinals; digits inside of words.
_NO_NUMBER = (
    r"(?:(?<![\d.])\d{1,4}+(?:[/:-]\d{1,4}){2,4}(?![\d/])|\d{1,3}:\d++|\d++(?:\.\d++){2,}|\d++(?:st|nd|rd|th)\b"
    r"|[^\W\d_]\w{0,40}?\d\w*+|_\d\w*+)"
)
TOKEN = re.compile(
    rf"(?P<number>{_CONTINENTAL})|(?P<other>{_NO_NUMBER})|(?P<number_>(?:(?<![\w)\]}}])[-+])?{_UNSIGNED})"
    r"|(?P<word>[^\W\d_]+(?:['’-](?=[^\W\d_])[^\W\d_]+)*)|(?P<command>\\[A-Za-z]+)|(?P<relation>=|≈|≡|⇒|→)"
    r"|(?P<inequality>[<>≤≥≠]=?)|(?P<operator>[-+*/×÷^±√∞−])|(?P<space>[^\S\n]+)|(?P<mark>.)",
    re.DOTALL,
)
# The groups of `TOKEN` that are numbers.
NUMBER_KINDS = ("number", "number_")
_NUMBER = re.compile(_UNSIGNED)

_DASHES = "\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63\uff0d\u207b"
_SUPERSCRIPT = re.compile("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,9}")
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufe0e\ufe0f\ufeff]")
_SYMBOLS = str.maketrans(
    {**dict.fromkeys(_DASHES, "-"), **dict.fromkeys("·⋅∙✕✖⨯", "×"), "⁄": "/", "∕": "/", "～": "~", "⟹": "⇒", "∴": " "}
)
_CURRENCY = re.compile(r"(?P<sign>(?<![\w)])[-+])?[ ]?(?:\\?[$€£¥₹])+[ ]?(?P<minus>-)?")
# LaTeX that only sets a number. A command that is not listed here is mathematics, and stays.
_COMMANDS = {
    **dict.fromkeys(["quad", "qquad", "displaystyle", "textstyle", "left", "right", "bigl", "bigr", "big", "Big"], " "),
    **dict.fromkeys(["newline", "centering", "therefore", "mathrm", "mathbf", "textbf", "text", "bf", "rm"], " "),
    **dict.fromkeys(["thinspace", "enspace", "space", "nobreakspace"], " "),
    **dict.fromkeys([",", ";", ":", " ", "[", "]", "(", ")"], " "),
    **dict.fromkeys(["times", "cdot", "ast"], "×"),
    **dict.fromkeys(["approx", "sim", "simeq", "approxeq", "cong"], "≈"),
    **dict.fromkeys(["implies", "Rightarrow", "Longrightarrow", "rightarrow", "to", "longrightarrow"], "⇒"),
    **dict.fromkeys(["le", "leq", "leqslant"], "≤"),
    **dict.fromkeys(["ge", "geq", "geqslant"], "≥"),
    **dict.fromkeys(["ne", "neq"], "≠"),
    **dict.fromkeys(["ldots", "dots", "cdots"], "..."),
    **{character: character for character in "%$&#_"},
    "div": "÷",
    "pm": "±",
    "!": "",
    "degree": " degrees",
    "equiv": "≡",
}
_COMMAND = re.compile(r"\\([A-Za-z]+|[^A-Za-z\n])")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[A-Za-z*]{1,20}\}")
_WORDS = re.compile(r"\\(?:text(?:bf|it|rm|tt)?|math(?:rm|bf|it|tt|sf)|mbox|hbox|operatorname)\s?\{([^{}]{0,200})\}")
_DEGREES = re.compile(r"\^\s?\{?\s?\\circ\b\s?\}?|°")
_FRACTION = re.compile(
    rf"\\[dtc]?frac\s?(?:\{{\s?([-+]?{_DECIMAL})\s?\}}|(\d))\s?(?:\{{\s?([-+]?{_DECIMAL})\s?\}}|(\d))"
)
_UNIT_POWER = re.compile(
    r"(?<![A-Za-z])((?:[kcmd]?m|in|ft|yd|mi|s|units?|feet|meters?|metres?|inch(?:es)?|miles?|yards?))\s?\^\s?\{?-?[23]\}?"
)


def plain(text: str) -> str:
    """Text with numbers, LaTeX, spaces, dashes and full-width characters in one plain notation, in linear time."""
    if not text.isascii():
        text = re.sub("\r\n?|[\u2028\u2029\x85]", "\n", text)
        text = _INVISIBLE.sub("", text)
        text = _SUPERSCRIPT.sub(lambda match: "^" + unicodedata.normalize("NFKC", match[0]).replace("−", "-"), text)
        text = "".join(map(_vulgar, text)).translate(_SYMBOLS)
        text = unicodedata.normalize("NFKC", text.replace("√", "\\sqrt ").replace("π", "\\pi ")).translate(_SYMBOLS)
    if "\\" in text or "{" in text or "~" in text:
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text).replace("\\\\", "\n")
        text = _WORDS.sub(r" \1 ", _ENVIRONMENT.sub(" ", text))
        text = re.sub(r",\s?\\!", ",", text.replace("{,}", ",").replace("{\\,}", " ").replace("~", " "))
        text = _DEGREES.sub(" degrees", text)
        text = _COMMAND.sub(lambda match: _COMMANDS.get(match[1], match[0]), text)
        text = _FRACTION.sub(_fraction, text)
    # Two spaces, so that no currency's place joins the digits around it into one number.
    text = _CURRENCY.sub(lambda match: match["sign"] or "  " + (match["minus"] or ""), text)
    return _UNIT_POWER.sub(r"\1", text) if "^" in text else text


def _fraction(match: re.Match[str]) -> str:
    # `2\frac{1}{2}` is a mixed number.
    mixed = match.start() > 0 and match.string[match.start() - 1].isdigit()
    return f"{' ' if mixed else ''}{match[1] or match[2]}/{match[3] or match[4]}"


def _vulgar(character: str) -> str:
    if character < "\x80" or "fraction" not in unicodedata.decomposition(character):
        return character
    return " " + unicodedata.normalize("NFKC", character).replace("⁄", "/")


def find_numbers(text: str) -> list[tuple[str, Fraction]]:
    """Every number in a plain text with its exact value, in order.

    A digit that belongs to a word (`x2`, `4th`, `H2O`), a date, a time or a ratio is no number.
    """
    numbers = (match[0] for match in TOKEN.finditer(text) if match.lastgroup in NUMBER_KINDS)
    return [(literal, value) for literal in numbers if (value := number_value(literal)) is not None]


def parse_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number, or None.

    Accepts a sign, a currency, separators of thousands, a decimal point, an exponent, a power of ten, a fraction, a
    mixed number and a percent sign, which is dropped: `45%` is 45, as GSM8K writes percentages. A comma that may be
    either a decimal comma or a separator of a list (`3,5`) makes it no number.
    """
    text = plain(text).strip().rstrip("%").strip()
    return number_value(text)


def number_value(text: str) -> Fraction | None:
    """The exact value of a plain number, as `TOKEN` finds them; None for any other text, or too large a number."""
    negative = text.startswith("-")
    text = text.removeprefix("-").removeprefix("+").strip()
    if sum(character.isdigit() for character in text) > MAX_DIGITS or _NUMBER.fullmatch(text) is None:
        return None
    if re.fullmatch(_CONTINENTAL, text):
        text = text.replace(".", "").replace(",", ".")
    scale = 1
    if match := re.search(r"\s([a-z]+?)s?$", text):
        scale, text = _SCALES[match[1]], text[: match.start()]
    try:
        value = _quotient(text)
    except (ValueError, ZeroDivisionError):
        return None
    return None if value is None else (-value if negative else value) * scale


def _quotient(text: str) -> Fraction | None:
    if match := re.fullmatch(r"(\d+)\s(?:and\s)?(\d+)/(\d+)", text):
        return int(match[1]) + Fraction(int(match[2]), int(match[3]))
    top, _, bottom = text.partition("/")
    if (value := _power(top)) is None or not bottom:
        return value
    below = _power(bottom)
    return None if below is None else value / below


def _power(text: str) -> Fraction | None:
    """The value of a decimal with an exponent or a power of ten, or of one of the two alone."""
    text = re.sub("[,'’_ ]", "", text)
    text = re.sub(r"(?:^|[×*xX])10(?:\^|\*\*)", "e", re.sub("[(){}]", "", text))
    base, mark, power = text.lower().partition("e")
    if mark and abs(int(power)) > _MAX_EXPONENT:
        return None
    return Fraction(base or "1") * Fraction(10) ** int(power or "0")


def canonical(value: Fraction) -> str:
    """The shortest exact notation: an integer, a finite decimal, or a fraction in lowest terms."""
    if value.denominator == 1:
        return str(value.numerator)
    rest = value.denominator
    twos = fives = 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FINAL = re.compile(r"####\s*(.+)")


def gold_number(answer: Any) -> Fraction | None:
    """The exact number in an answer column: a number, a text that is one, or a solution that ends in `#### n`."""
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, int):
        return Fraction(answer)
    if isinstance(answer, float):
        # The shortest decimal that reads back as this float is what the author wrote.
        return Fraction(repr(answer)) if math.isfinite(answer) else None
    text = str(answer)
    if finals := _FINAL.findall(text):
        return parse_number(finals[-1].strip().rstrip("."))
    return parse_number(text.strip().rstrip("."))


def gold_letter(answer: Any, choices: list[str]) -> str | None:
    """The letter of the right option, from a letter, an index from 0, or the option's text.

    None where the answer is none of them, may mean two different options, or is one that no letter is left for.
    """
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        return None
    text = str(answer).strip()
    indices = {index for index, choice in enumerate(choices) if choice.strip() == text}
    letter = text.rstrip(".)").removeprefix("(")
    if isinstance(answer, str) and len(letter) == 1 and letter.upper() in LETTERS[: len(choices)]:
        indices.add(LETTERS.index(letter.upper()))
    if text.isascii() and text.isdigit() and int(text) < len(choices):
        indices.add(int(text))
    letters = LETTERS[indices.pop() :][:1] if len(indices) == 1 else ""
    return letters or None


def is_letter(answer: str) -> bool:
    """Return whether a gold answer in its canonical notation is a letter."""
    return len(answer) == 1 and answer in LETTERS


def with_options(question: str, choices: list[str] | None) -> str:
    """A question as it is asked: followed by its options, `A. …` a line, where it has some."""
    if not choices:
        return question
    lines = [f"{letter}. {choice.strip()}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *lines])
