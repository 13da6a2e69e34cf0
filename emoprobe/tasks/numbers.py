r"""Exact numbers out of text: `1,234.50`, `$3`, `-2/3`, `\frac{1}{2}`, `45%`, `1.2e3`, `½`."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_DIGITS = r"(?:\d{1,3}(?:[,\u2009\u202f]\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_EXPONENT = r"(?:[eE][+-]?\d{1,3}(?![\w]))?"
_CURRENCY = "[$€£¥₹]"
# An integer, a decimal, a fraction or a mixed number, perhaps with a sign and a currency on either side of each other.
PATTERN = (
    rf"(?:-(?:{_CURRENCY}\s?)?|\+|{_CURRENCY}\s?-?)?"
    rf"(?:\d+\s+\d+/\d+|{_DECIMAL}{_EXPONENT}(?:\s?/\s?{_DECIMAL}(?![\d/]))?)"
)
_NUMBER = re.compile(PATTERN)
_LATEX_FRACTION = re.compile(r"(-?)(\d*)\\[dt]?frac\s*(?:\{\s*(-?[^{}]*?)\s*\}|(\d))\s*(?:\{\s*(-?[^{}]*?)\s*\}|(\d))")
_LATEX_SPACE = re.compile(r"\\[,!;: ]|~|\\q?quad\b")
_LATEX_WORD = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_MINUS = str.maketrans({"−": "-", "–": "-", "﹣": "-", "-": "-", "⁄": "/"})
MAX_DIGITS = 200


def plain(text: str) -> str:
    """Text with LaTeX numbers, thin spaces, minus signs and vulgar fractions written in ASCII."""
    text = text.translate(_MINUS)
    if "\\" in text or "{" in text or "~" in text:
        text = text.replace("{,}", ",").replace("\\$", "$").replace("\\%", "%")
        text = re.sub(r",\\!", ",", text)
        text = _LATEX_WORD.sub(r" \1 ", text)
        text = _LATEX_SPACE.sub(" ", text)
        text = _LATEX_FRACTION.sub(_fraction, text)
    if not text.isascii():
        text = "".join(_vulgar(character) for character in text)
    # `7 / 2` from a vulgar fraction with a whole number before it: `3½` became `3 1/2`.
    return text


def _fraction(match: re.Match[str]) -> str:
    sign, whole = match[1], match[2]
    top, bottom = match[3] or match[4] or "", match[5] or match[6] or ""
    return f"{sign}{whole + ' ' if whole else ''}{top}/{bottom}"


def _vulgar(character: str) -> str:
    if unicodedata.category(character) != "No" or "fraction" not in unicodedata.decomposition(character):
        return character
    return " " + unicodedata.normalize("NFKC", character).replace("⁄", "/")


def find_numbers(text: str) -> list[tuple[str, Fraction]]:
    """Every number in the text with its exact value, in order.

    A digit that belongs to a word (`x2`, `4th`, `H2O`) is no number, nor is a list marker's or a date's.
    """
    found = []
    for match in _NUMBER.finditer(text):
        before = text[match.start() - 1] if match.start() else " "
        after = text[match.end()] if match.end() < len(text) else " "
        literal = match[0]
        if before.isalnum() or before == "_":
            # `5-3` and `a-3`: the minus is an operator there, the digits after it still count.
            if literal[0] not in "-+$€£¥₹":
                continue
            literal = literal.lstrip("-+ ") if before.isdigit() else literal
        if after.isalpha() and re.match(r"(?:st|nd|rd|th)\b", text[match.end() :]):
            continue
        value = parse_number(literal)
        if value is not None:
            found.append((literal, value))
    return found


def parse_number(text: str) -> Fraction | None:
    """The exact value of a text that is one number, or None.

    Accepts a sign, a currency, thousands separators, a decimal point, an exponent, a fraction, a mixed number and
    a percent sign, which is dropped: `45%` is 45, as GSM8K writes percentages.
    """
    text = plain(text).strip().strip("$€£¥₹ ").rstrip("%").strip()
    text = re.sub(rf"(?:{_CURRENCY}|[,\u2009\u202f])", "", text)
    negative = text.startswith("-")
    text = text.lstrip("+-").strip()
    if not text or sum(character.isdigit() for character in text) > MAX_DIGITS:
        return None
    try:
        if match := re.fullmatch(r"(\d+)\s+(\d+)/(\d+)", text):
            value = int(match[1]) + Fraction(int(match[2]), int(match[3]))
        elif match := re.fullmatch(rf"({_DECIMAL}{_EXPONENT})\s?/\s?({_DECIMAL})", text):
            value = Fraction(match[1]) / Fraction(match[2])
        elif re.fullmatch(rf"{_DECIMAL}{_EXPONENT}", text):
            value = Fraction(text)
        else:
            return None
    except (ValueError, ZeroDivisionError):
        return None
    return -value if negative else value


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
