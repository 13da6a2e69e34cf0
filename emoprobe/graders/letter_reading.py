"""Read the text of an answer as the letter of an option."""

from __future__ import annotations

import re

from emoprobe.graders.reading import DENIED, FLAGS, SENTENCE_END, WINDOW, Reading

# What surrounds the letter of an answer.
ONE_LETTER = re.compile(r"[\W_]*(?:(?:option|choice)\s+[\W_]*)?([A-Za-z])[\W_]*", re.IGNORECASE)
MENTION = re.compile(
    r"""(?<![\w'’\\.-])(?P<open>[(\[{"“‘'<]*\s?)(?P<letter>[A-Za-z])
    (?:\s?[)\]}"”’'>]|[.:,;!?]|(?=\s|$|[-/&+=]))(?![A-Za-z0-9'’])""",
    re.VERBOSE,
)
_NAMED = re.compile(
    r"(?:\b(?:option|choice|letter|answer|choose|select|pick|is|be)|[:=])\s*(?:(?:option|choice|letter)\s+)?$",
    re.IGNORECASE,
)
_LETTER_LEAD = re.compile(
    r"""[\s\[\](){}<>"'“”‘’:.,$]*(?:(?:the|correct|best|right|most|likely|probably|clearly|definitely|indeed|option|choice
    |letter|answer|is|it)\b[\s:]*){0,6}[\s\[({<"'“‘]*""",
    FLAGS,
)
# Words after a letter which show that it is no article (`A dog`) and no pronoun (`I think`).
_NO_NOUN = re.compile(
    r"""\s+(?:is|was|are|because|since|as|for|and|or|which|that|would|will|must|should|seems|looks|due|given|with|not|but
    |here|in|by|represents|describes|states|says|does|can|the)\b""",
    re.VERBOSE,
)
_JOINED = re.compile(
    r"""[)\]}"'”’>]*\s*(?:,\s*(?:and|or)\s|,|/|&|\+|\band\b|\bor\b)\s*(?:(?:option|choice|maybe|perhaps|possibly)\s+)?
    [(\[{"']*(?P<letter>[A-Z])(?![\w'’])(?!\s+[a-z]{2,})""",
    re.VERBOSE,
)
_ARTICLE = re.compile(r"^(?:the|an?)\s+")
# The text of the reading of an answer that is a whole option.
WHOLE_OPTION = "option"


def read_letter(rest: str, letters: str, options: list[str]) -> Reading | None:
    """Read the text of an answer as the letter of an option."""
    clause = rest.strip()
    alone = ONE_LETTER.fullmatch(clause)
    if alone and alone[1].upper() in letters:
        return Reading(alone[1].upper(), clause)
    spelled = [letter for letter, option in zip(letters, options, strict=False) if option == spelled_option(clause)]
    if len(spelled) == 1:
        return Reading(spelled[0], WHOLE_OPTION)
    mentions = [match for match in MENTION.finditer(clause) if _is_letter(clause, match, letters, options)]
    if not mentions:
        contained = contained_option(SENTENCE_END.split(clause)[0], letters, options)
        return Reading(contained, clause) if contained else None
    first = mentions[0]
    leads = _LETTER_LEAD.fullmatch(clause[: first.start()]) is not None
    named = [match for match in mentions if match["open"].strip() or _NAMED.search(clause[: match.start()])]
    if named and not leads:
        first = named[-1]
    letter, after = first["letter"].upper(), clause[first.end("letter") :]
    option = options[letters.index(letter)] if options else None
    if leads and option in (spelled_option(after), spelled_option(re.split("[,;]", after.lstrip(" ,.:)"))[0])):
        return Reading(letter, WHOLE_OPTION)
    joined = _JOINED.match(after)
    if joined and joined["letter"] in letters and joined["letter"] != letter:
        return Reading(None, clause)
    return Reading(letter, clause)


def _is_letter(clause: str, match: re.Match[str], letters: str, options: list[str]) -> bool:
    """Return whether a single letter of an answer's text names an option, and is no word, unit or denied option."""
    letter, before, after = match["letter"], clause[: match.start()], clause[match.end("letter") :]
    if letter.upper() not in letters or DENIED.search(before[-WINDOW // 8 :]):
        return False
    enclosed = bool(match["open"].strip()) and after.lstrip()[:1] in set(")]}\"”’'>.")
    leads = _LETTER_LEAD.fullmatch(before) is not None
    if letter.islower():
        return enclosed or (leads and re.match(r"[).:]|$", after) is not None)
    if (
        options
        and leads
        and options[letters.index(letter)] == spelled_option(SENTENCE_END.split(after.lstrip(" .,:)"))[0])
    ):
        return True
    # `A dog` and `I think` begin with a word, `B dog` with a letter.
    return letter not in "AI" or enclosed or not re.match(r"\s+\w", after) or _NO_NOUN.match(after) is not None


def contained_option(text: str, letters: str, options: list[str]) -> str | None:
    """The letter of the one option whose text is part of a text; options within others do not count beside them."""
    text = text.casefold()
    matches = [
        (letter, option)
        for letter, option in zip(letters, options, strict=False)
        if option and re.search(rf"(?<!\w)(?<!\bnot ){re.escape(option)}(?![\w.]?\w)", text)
    ]
    matches = [pair for pair in matches if not any(pair[1] != option and pair[1] in option for _, option in matches)]
    return matches[0][0] if len(matches) == 1 else None


def spelled_option(text: str) -> str:
    """The words of an option, without what may surround them."""
    return _ARTICLE.sub("", text.strip(" \t\n.,:;!?\"'“”‘’()[]{}$").casefold())
