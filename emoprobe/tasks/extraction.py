r"""Read the final answer of a completion: the last one that is marked as such, else the last number or letter.

The reading has three steps, each linear in the length of the text:

1. Find the marks (`Answer:`, `####`, `\boxed{}`, "the answer is"), or that the whole text is the answer.
2. From the last mark back, read the text behind each one. It gives one value; or it says something that is not one
   value (`5 or 6`, `3\pi`, "A and B"), which ends the search with no answer; or it gives none, and the mark before counts.
3. Where nothing is marked, take the last number or letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NamedTuple

from emoprobe.tasks.gold import LETTERS
from emoprobe.tasks.numbers import TOKEN, canonical, number_value, parse_number, plain

# How an answer was found: behind a mark or as the whole text, in a box, as the last number or letter, or not at all.
Extraction = Literal["marker", "boxed", "last_number", "letter", "none"]

# No answer needs more text than this behind its mark; with it, a text with many marks is read in linear time.
_WINDOW = 400
_EMPHASIS = re.compile(
    r"(?<!\d)(?<!\d )\*{2,3}|(?<=\d)\*{2,3}(?![ ]?[\d(])|(?<![\w*)}\s])\*(?=[^\s*])|(?<=[^\s*])\*(?![\w*({$\\])"
    r"|(?:(?<=\s)|^)\*(?=[^\s*][^*\n]{0,200}\*(?!\w))|`|(?<!\w)_+|_+(?!\w)"
    r"|</?(?:b|strong|i|em|u|p|span|br|div|mark|center|code|boxed)\b[^<>\n]{0,80}>"
)
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~|<(?:s|del|strike)>[^<\n]{1,200}</(?:s|del|strike)>")
# A dash with a space before its number is a sign where no number can stand before it.
_SIGN = re.compile(
    r"(?P<before>[=:(\[{≈][ ]?|\b(?:is|equals|of|to|be|was)[ ])[ ]?(?:-[ ]|—[ ]?|minus[ ])(?=[\d.])|(?P<word>\bnegative\s)(?=[\d.])",
    re.IGNORECASE,
)
_ADJECTIVES = r"(?:(?:final|correct|right|best|only|most likely)\s+)*"
_MARK = re.compile(
    r"(?P<box>\\(?:boxed|fbox)\s*(?=\{)|\\boxed\s+(?=\d)|\\boxed(?=\d))"
    r"|(?P<hashes>(?<!#)####(?!#)[ \t]*)"
    r"|(?P<tag><answer>)"
    # `Answer: 5`, `Final answer (in km) - 5`, `ANSWER = 5`; not `2 points/answer = 48`
    r"|(?P<colon>(?<!/)(?<!per )\b(?:answers?|ans|(?:correct|right|best|final)\s+(?:option|choice|result|value|solution))"
    r"\s?(?:\([^)\n]{0,30}\)\s?)?(?:[:=—]|-(?=\s)|(?<=\s)(?=-\d)))"
    # a heading or a line that is only `Answer`
    rf"|(?P<heading>(?:^|(?<=\n))[ \t#>]*(?:the\s)?{_ADJECTIVES}answer[ \t]*(?=\n|\Z))"
    # `The answer is 5`, `the final answer to the problem would be: 5`, `the correct option is C`
    r"|(?P<sentence>(?<!if the )(?<!whether the )\b(?:answer|(?:correct|right|best)\s+(?:option|choice|letter)|final\s+(?:result|value))\b"
    r"[^\n.:=]{0,60}?\b(?:is|are|was|is(?=n['’]t)|(?:would|will|must|should|has to) be|equals|(?:comes|turns) (?:out )?to(?: be)?)(?:\b|(?=n['’]t))\s?:?)",
    re.IGNORECASE,
)
# `42 is the final answer`, `option C is correct`: what comes before is the answer.
_MARK_BEHIND = re.compile(
    rf"(?P<value>(?:(?<![\w.,])-?\d[\d,.]{{0,30}}|(?<![\w'’])\(?[A-Z]\)?))\s+(?:is|would be)\s+(?:the|my|our)\s+{_ADJECTIVES}"
    r"(?:answer|option|choice)\b|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+(?P<letter>\(?[A-Z]\)?)\s+is\s+(?:the\s+)?"
    r"(?:correct|right|best)\b|(?<![\w'’])(?P<bracketed>\([A-Z]\))\s+is\s+correct\b"
)
_BETWEEN_BOXES = re.compile(r"\{([^{}\n]{0,100})\}[\s$]*(?:,|,?\s*(?:or|and)\b)[\s$]*(?:[A-Za-z]\s?=[\s$]*)?")
_LAST_LINE = re.compile(r"(?:^|\n)[ \t]*A:[ \t]*(?=[^\n]*\s*\Z)")
# Lines that hold a value of their own lines: fences, rules, displays, headers of tables.
_EMPTY_LINE = re.compile(r"[\s`$|:=~\[\](){}_*#>.-]*|```\w*")
_NEXT_QUESTION = re.compile(r"\n\s*\W{0,4}(?:Q|Question|Problem)(?:\s\d+)?\s?:")

_SENTENCE_END = re.compile(r"[.!?;](?:\s|$)|\n")
_ASIDE = re.compile(r"(?<![\d\w)(×*/+-])(?<![×*/+=-] )\([^()\n]{0,200}\)")
_BRACKET = re.compile(r"\s*[\[({<]\s*([^\[\](){}<>\n]{1,100}?)\s*[\])}>](?!\s*[-+*/×÷^=(])")
_LIST_ITEM = re.compile(r"\s*1[.)]\s+[^\W\d]")
_BULLET = re.compile(r"\s*(?:[-•>]\s+)+")
# What may come before the number of a line that is an answer by itself.
_LEAD = re.compile(
    r"[^\w\n]*(?:(?:it is|it's|that is|it equals|about|approximately|approx|roughly|around|exactly|only|just|simply|"
    r"[A-Za-z]\s?[=≈])[^\w\n]*){0,3}",
    re.IGNORECASE,
)
_UNITS = re.compile(r"[\s%]*(?:[^\W\d_]+[\s/]*){0,4}[\s\W]*")
_RESULT = re.compile(
    r"\b(?:(?:which|that|it)\s+(?:is|equals|makes|gives|comes to|adds up to|totals)|is equal to|equals|is|are|makes|gives|or|to get"
    r"|gets|becomes|totals|leaves|so)\b[^\w-]*(?:(?:about|approximately|only|exactly|a total of|now)\s)?$"
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|be|equals|has|have|had|costs?|gets?|needs?|earns?|pays?|makes?|gives?|spends?|takes?|sells?|leaves?)"
    r"\b[^\w-]*(?:(?:about|approximately|only|exactly|now|a total of|paid|left with)\s)*[^\w]*$"
)
_DENIED = re.compile(
    r"(?:\bnot|n't|\bnever|\bcannot|\brather than|\binstead of)\s+(?:(?:be|equal to|exactly|just|only|the|option|choice|answer|more than|less than)\s+){0,4}\W?$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"\b(?:steps?|questions?|problem|parts?|equations?|eq|figure|line|nearest)\.?\s?[(#]?$", re.IGNORECASE)
_PRECISION = re.compile(r"[\s-]?(?:decimals?\b|significant|sig\b|d\.?p\b|s\.?f\b)", re.IGNORECASE)
# A sentence about the answer, not the answer: "the answer is rounded to 2 decimal places".
_REMARK = re.compile(
    r"\s*(?:rounded|given|expressed|written|stated|shown|based|found|obtained|calculated|derived|reasonable|verified|correct|"
    r"incorrect|wrong|the same as|in\b|above|below|consistent|close|less|more|greater|between|yes|no|not)\b",
    re.IGNORECASE,
)
_OPERAND = re.compile(r"(?:\s+[^\W\d]+){0,2}\s*(?:,?\s*\band\b|\bplus\b|\bminus\b|\btimes\b|\bdivided by\b|\bmultiplied by\b)\s*")
_ALTERNATIVE = re.compile(
    r"(?:\s*[^\W\d_]+){0,2}?\s*(?:,\s*(?:and|or)\b|\bor\b|\bto\b|\band\b|\bthrough\b|[,/&~]|\s[-—]\s|—)\s*"
    r"(?:(?:about|perhaps|maybe|possibly|even|the)\s+)?[A-Za-z]?\W*"
)
_END = re.compile(r"(?:\s*(?!(?:of|is|are|was|were|more|less|fewer|each|per|left|remain|if|for|because|than)\b)[^\W\d_]+){0,2}\s*(?:[.,;:!?)\]}\n]|\band\b|\bor\b|$)")
_LARGE = r"(?:years?|months?|weeks?|days?|hours?|hrs?|h|minutes?|mins?|feet|foot|ft|dollars?|pounds?|lbs?|kilograms?|kg|km|kilometers?|m|meters?)"
_SMALL = r"(?:months?|weeks?|days?|hours?|minutes?|mins?|seconds?|secs?|inch(?:es)?|in|cents?|ounces?|oz|grams?|g|cm|meters?|m)"
_COMPOUND = (re.compile(rf"\s*{_LARGE}\b\.?,?\s*(?:and\s*)?", re.IGNORECASE), re.compile(rf"\s*{_SMALL}\b", re.IGNORECASE))
_CORRECTION = re.compile(
    r"\b(?:(?:wait|sorry|oops|no|hmm|hold on)(?=\s*[,.!:;…—-]|\s+(?:wait|no|it|that|sorry|the answer|actually|i)\b)"
    r"|actually|correction|i meant?|make that|scratch that|or rather|rather)\b(?P<fillers>[\s,:.!…—'’-]*(?:(?:no|wait|sorry|actually|it|"
    r"it's|that|that's|s|should|must|would|be|is|was|the|final|correct|answer|i|mean|meant|make|to|say|option|choice|equals)\b[\s,:.!…—'’-]*){0,8})",
    re.IGNORECASE,
)
_CORRECTED = re.compile(r"(?:\s*[^\W\d_]+){0,2}\s*(?:[.!;)\n]|$)")

# Words after a letter that show that it is the letter of an option, not the article `A` or the pronoun `I`.
_NO_NOUN = re.compile(
    r"\s+(?:is|was|are|because|since|as|for|and|or|which|that|would|will|must|should|seems|looks|due|given|with|not|but|here|in|by|"
    r"represents|describes|states|says|does|can|the)\b"
)
_MENTION = re.compile(r"(?<![\w'’\\.-])(?P<open>[(\[{\"“‘'<]*\s?)(?P<letter>[A-Za-z])(?P<close>\s?[)\]}\"”’'>]|[.:,;!?]|(?=\s|$|[-/&+=]))(?![A-Za-z0-9'’])")
_NAMED = re.compile(r"(?:\b(?:option|choice|letter|answer|choose|select|pick|is|be)|[:=])\s*(?:option\s+|choice\s+|letter\s+)?$", re.IGNORECASE)
_LETTER_LEAD = re.compile(r"[\s\[\](){}<>\"'“”‘’:.,$]*(?:(?:the|correct|best|right|most|likely|probably|clearly|definitely|indeed|option|choice|letter|answer|is|it)\b[\s:]*)*[\s\[({<\"'“‘]*", re.IGNORECASE)
_JOINED = re.compile(r"[)\]}\"'”’>]*\s*(?:,\s*(?:and|or)\s|,|/|&|\+|\band\b|\bor\b)\s*(?:(?:option|choice)\s+)?[(\[{\"']*(?P<letter>[A-Z])(?![\w'’])(?!\s+[a-z]{2,})")
_LOOSE_LETTER = re.compile(r"\((?P<bracketed>[A-Z])\)|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Cc]hoose|[Ss]elect|[Pp]ick)\s+(?P<named>[A-Z])\b(?!\s+[a-z])")
_DIGIT = re.compile(r"\d")
# Letters that are variables where they touch a number or an operator; the others may be units.
_SYMBOLS = frozenset("xyznijabqruvwXYZNeAB")
_ARTICLE = re.compile(r"^(?:the|an?)\s+")


class Extracted(NamedTuple):
    """An answer: its value (a number or a letter; None: there is none), its text, and how it was found."""

    value: Fraction | str | None
    text: str | None
    extraction: Extraction

    @property
    def notation(self) -> str | None:
        """The value as files and tables have it: a number in its shortest exact notation, or the letter."""
        return canonical(self.value) if isinstance(self.value, Fraction) else self.value


_NOTHING = Extracted(None, None, "none")


class _Reading(NamedTuple):
    """One value and its text; without a value: an answer that is not one value."""

    value: Fraction | str | None
    text: str


_Reader = Callable[[str], _Reading | None]


@dataclass(frozen=True)
class _Candidate:
    """The text behind a mark that ends at `end`."""

    kind: str
    rest: str
    end: int
    # Whether that text comes on a later line, and whether that line is the last one.
    later_line: bool = False
    last_line: bool = False


@dataclass
class _Run:
    """A number with all the mathematics around it, from `start` to `end` of the text that it is in."""

    start: int
    end: int
    numbers: list[tuple[str, Fraction | None]] = field(default_factory=list)
    # Whether there are operators in it (`3 + 4`), or symbols (`3\\pi`, `5x`).
    operators: bool = False
    symbols: bool = False

    @property
    def value(self) -> Fraction | None:
        """The value of a run that is one number."""
        return self.numbers[0][1] if len(self.numbers) == 1 and not self.operators and not self.symbols else None


def extract_number(text: str) -> Extracted:
    """Return the final answer of a text as an exact number."""
    text = _prepared(text)
    if (found := _marked(text, _read_number, letters=False)) is not None:
        return found
    for run in reversed(_runs(text)):
        if not run.symbols and not _is_aside(text, run):
            literal, value = run.numbers[-1]
            if value is not None:
                return Extracted(value, literal, "last_number")
    return _NOTHING


def extract_letter(text: str, choices: list[str] | None = None) -> Extracted:
    """Return the final answer of a text as the letter of an option; the text of an option counts as well.

    Without `choices`, every letter may be one.
    """
    letters = LETTERS[: len(choices)] if choices else LETTERS
    options = [_spelled(plain(choice)) for choice in choices or []]
    text = _prepared(text)

    def read(rest: str) -> _Reading | None:
        return _read_letter(rest, letters, options)

    if (found := _marked(text, read, letters=True)) is not None:
        return found
    last = text.strip().rpartition("\n")[2]
    found_letters = [match["bracketed"] or match["named"] for match in _LOOSE_LETTER.finditer(text)]
    if match := re.match(r"\s*([A-Z])(?:[.):]|\s*$)", last):
        found_letters.append(match[1])
    found_letters = [letter for letter in found_letters if letter in letters]
    if not found_letters and (spelled := _contained(last[-_WINDOW:], letters, options)):
        found_letters = [spelled]
    return Extracted(found_letters[-1], found_letters[-1], "letter") if found_letters else _NOTHING


def _prepared(text: str) -> str:
    """A completion in plain notation, without emphasis and with its signs next to their numbers."""
    text = plain(_EMPHASIS.sub("", _STRUCK.sub(" ", text)))
    return _SIGN.sub(lambda match: (match["before"] or "") + "-", text)


def _marked(text: str, read: _Reader, *, letters: bool) -> Extracted | None:
    """The last marked answer of a text, `_NOTHING` where that is not one value; None where nothing is marked."""
    question = _NEXT_QUESTION.search(text)
    if question is not None and text[: question.start()].strip():
        # A model that goes on with a question of its own has answered ours before.
        found = _marked(text[: question.start()], read, letters=letters)
        if found is not None:
            return found
    if (whole := _whole(text, read, letters=letters)) is not None:
        return whole
    for candidate in _candidates(text, letters=letters):
        reading = _read_candidate(candidate, read, letters=letters)
        if reading is None:
            continue
        corrected = _corrected(text[candidate.end :], letters=letters) if reading.value is not None else None
        value, literal = corrected or reading
        return _NOTHING if value is None else Extracted(value, literal, "boxed" if candidate.kind == "box" else "marker")
    return None


def _whole(text: str, read: _Reader, *, letters: bool) -> Extracted | None:
    """The answer of a text that is nothing else: `7`, `$7$`, `7 apples.`, `(B)`, `B. Rome`."""
    lines = [line for line in text.strip()[: 2 * _WINDOW].split("\n") if not _EMPTY_LINE.fullmatch(line)]
    if len(lines) != 1 or len(text.strip()) > _WINDOW:
        return None
    line = lines[0].strip()
    if (reading := read(line)) is None or reading.value is None:
        return None
    if letters:
        alone = re.fullmatch(r"\W*(?:option\s+|choice\s+)?\W*[A-Za-z]?\W*", line, re.IGNORECASE) or reading.text == "option"
    else:
        before, _, after = line.partition(reading.text)
        alone = "=" not in after and _LEAD.fullmatch(before) and _UNITS.fullmatch(after)
    return Extracted(reading.value, line, "marker") if alone else None


def _candidates(text: str, *, letters: bool) -> Iterator[_Candidate]:
    """The text behind every mark, the last mark first."""
    marks = [(match.start(), match.end(), match.lastgroup or "", "") for match in _MARK.finditer(text)]
    for match in _MARK_BEHIND.finditer(text):
        value = match["value"] or match["letter"] or match["bracketed"]
        if letters or value[:1] in "-0123456789":
            marks.append((match.start(), match.end(), "behind", value))
    if match := _LAST_LINE.search(text[-_WINDOW:]):
        start = max(0, len(text) - _WINDOW)
        marks.append((start + match.start(), start + match.end(), "line", ""))
    limit = len(text)
    marks.sort(reverse=True)
    for index, (start, end, kind, value) in enumerate(marks):
        earlier = next((mark[1] for mark in marks[index + 1 : index + 2] if mark[2] == "box"), None)
        if kind == "behind":
            yield _Candidate(kind, value, end)
        elif kind == "box":
            content = _braced(text, end)
            if earlier is not None and (match := _BETWEEN_BOXES.fullmatch(text, earlier, start)):
                content = f"{match[1]} or {content}"
            yield _Candidate(kind, content, end)
        else:
            yield _behind(text, kind, end, max(end, limit))
        limit = start


def _behind(text: str, kind: str, start: int, limit: int) -> _Candidate:
    """What comes behind a mark on its line, up to the next mark; where that is nothing, the next line that has text."""
    end = text.find("\n", start, min(limit, start + _WINDOW))
    rest = text[start : end if end >= 0 else min(limit, start + _WINDOW)]
    if kind == "tag":
        rest = text[start : min(limit, start + _WINDOW)].partition("</answer>")[0].strip()
    if end < 0 or not _EMPTY_LINE.fullmatch(rest):
        return _Candidate(kind, rest, start)
    for _ in range(8):
        start, end = end + 1, text.find("\n", end + 1, end + 1 + _WINDOW)
        rest = text[start : end if end >= 0 else start + _WINDOW]
        if not _EMPTY_LINE.fullmatch(rest) or end < 0:
            break
    return _Candidate(kind, rest, start, later_line=True, last_line=end < 0 or not text[end:].strip())


def _braced(text: str, start: int) -> str:
    """The text between the brace at `start` and the one that closes it, or the number there."""
    if text[start : start + 1] != "{":
        return text[start : start + 40].partition("\n")[0]
    depth = 0
    for end in range(start, min(len(text), start + _WINDOW)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[start + 1 : end]
    return text[start + 1 : start + _WINDOW].partition("\n")[0]


def _read_candidate(candidate: _Candidate, read: _Reader, *, letters: bool) -> _Reading | None:
    rest = candidate.rest
    if candidate.later_line:
        rest = _BULLET.sub("", rest, count=1) if _BULLET.match(rest) else rest
    if (box := re.search(r"\\(?:boxed|fbox)\s?(?=\{)", rest)) is not None:
        rest = _braced(rest, box.end())
    if candidate.kind == "sentence" and _REMARK.match(rest) and not re.search(r"=|\bwhich\b|\bto be\b|\boption\b|\bis\b|\bbut\b", rest):
        return None
    reading = read(rest)
    if reading is None or letters:
        return reading if not candidate.kind == "line" or (reading and re.match(r"\W*[A-Za-z]\b", rest)) else None
    if (candidate.later_line or candidate.kind == "hashes") and not _is_answer(rest, reading, candidate):
        return None
    return reading


def _is_answer(line: str, reading: _Reading, candidate: _Candidate) -> bool:
    """Whether a line begins with its number, or is the last one and has one number or result."""
    runs = _runs(line)
    if _LIST_ITEM.match(line) or (candidate.kind == "hashes" and re.match(r"\s*\d+[.)]\s+[^\W\d]", line)):
        return False
    if _LEAD.fullmatch(line[: runs[0].start]) or re.match(r"[^\d\n]{0,60}=[^\w\n]*$", line[: runs[0].start]):
        return True
    return candidate.last_line and candidate.kind != "hashes" and (len(runs) == 1 or "=" in line)


def _corrected(after: str, *, letters: bool) -> tuple[Fraction | str, str] | None:
    """The value that a correction behind an answer puts in its place: `Answer: 5. No, wait, 6`."""
    found = None
    for match in _CORRECTION.finditer(after):
        rest = after[match.end() : match.end() + 80]
        if letters:
            letter = re.match(r"[(\[\"']*([A-Z])[)\]\"']*(?=[.,!;\s]|$)(?!\s+[a-z])", rest)
            found = (letter[1], letter[1]) if letter else found
        elif runs := _runs(rest):
            run = runs[0]
            if run.value is not None and not rest[: run.start].strip("( ") and _CORRECTED.match(rest, run.end):
                found = (run.value, run.numbers[0][0])
    return found


def _runs(text: str) -> list[_Run]:
    """The numbers of a text, each with the operators and symbols that belong to it."""
    tokens = [token for token in TOKEN.finditer(text) if token.lastgroup != "space"]
    runs: list[_Run] = []
    run: _Run | None = None
    operator, symbol = False, -1  # an operator behind the run; the start of a symbol before the next number
    for index, token in enumerate(tokens):
        kind, literal = _kind(tokens, index), token[0]
        if kind == "number":
            signed = literal[0] in "+-" and run is not None
            if run is None or not (operator or signed or text[run.end : token.start()] in (")(", "}{")):
                run = _Run(token.start() if symbol < 0 else symbol, token.end(), symbols=symbol >= 0)
                runs.append(run)
            else:
                run.operators = True
            run.numbers.append((literal, None if token.lastgroup == "other" else number_value(literal)))
            run.end, operator, symbol = token.end(), False, -1
        elif kind == "operator":
            operator = run is not None or symbol >= 0
        elif kind == "symbol":
            if run is None:
                symbol = token.start() if symbol < 0 else symbol
            else:
                run.symbols, run.end = True, token.end()
        elif kind != "bracket":
            run, operator, symbol = None, False, -1
    return runs


def _kind(tokens: list[re.Match[str]], index: int) -> str:
    """What a token is in a run: a number, an operator, a symbol, a bracket, or no part of one."""
    token = tokens[index]
    group, literal = token.lastgroup or "", token[0]
    if group in ("number", "number_") or (group == "other" and literal[0].isdigit()):
        return "number"
    if group == "command" or literal in "±∞":
        return "symbol"
    if group == "operator":
        return "operator"
    if literal in "()[]{}":
        return "bracket"
    before = tokens[index - 1] if index else None
    if group != "word" or len(literal) > 1:
        attached = before is not None and before.end() == token.start() and set(literal) <= set("xyz")
        return "symbol" if group == "word" and attached else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    numbers = [other is not None and other.lastgroup in ("number", "number_") for other in (before, after)]
    if literal in "xX" and all(numbers):
        return "operator"
    touches = (before is not None and before.end() == token.start() and (before.lastgroup != "mark" or before[0] in "{}")) or (
        after is not None and after.start() == token.end() and after.lastgroup in ("operator", "command")
    )
    beside = any(other is not None and other.lastgroup == "operator" and other[0] != "-" for other in (before, after))
    return "symbol" if literal in _SYMBOLS and (touches or beside) else ""


def _is_aside(text: str, run: _Run) -> bool:
    """Whether a run is no candidate for an answer: denied, the number of a step, or a number of digits."""
    before = text[max(0, run.start - 30) : run.start]
    return bool(_DENIED.search(before) or _REFERENCE.search(before) or _PRECISION.match(text, run.end))


def _read_number(rest: str) -> _Reading | None:
    """Read the text of an answer; see the module's docstring for the three outcomes."""
    if not _DIGIT.search(rest) and "\\" not in rest and len(rest) > 9:
        return None
    if (bracket := _BRACKET.match(rest)) and _runs(bracket[1]) and "=" not in _ASIDE.sub("", rest[bracket.end() :]):
        rest = bracket[1]
    # The answer is in the first sentence that has a number, outside of remarks in brackets.
    for clause in (*_SENTENCE_END.split(_ASIDE.sub(" ", rest)), rest):
        runs = [run for run in _runs(clause) if not _is_aside(clause, run)]
        if runs:
            return _read_clause(clause, runs)
    if "\\" in rest or re.fullmatch(r"\W*[a-z]\W*", rest):
        return _Reading(None, rest)
    return None


def _read_clause(clause: str, runs: list[_Run]) -> _Reading:
    if re.search("[≤≥≠]|\\s[<>]\\s", clause):
        return _Reading(None, clause)
    if "=" in clause or "≈" in clause or "⇒" in clause:
        return _read_sides(clause, runs)
    first = runs[0]
    before = clause[: first.start]
    if len(runs) > 1 and not _LEAD.fullmatch(before):
        # A sentence: its number is the one behind its last verb.
        spoken = [run for run in runs if _VERB.search(clause[max(0, run.start - 40) : run.start])]
        first = spoken[-1] if spoken else first
    following = runs[runs.index(first) + 1 :]
    results = [run for run in following if _RESULT.search(clause[max(0, run.start - 40) : run.start])]
    if first.value is None:
        return _value(results[-1]) if results and not first.symbols else _Reading(None, clause)
    if not following:
        return _value(first)
    between, rest = clause[first.end : following[0].start], clause[following[0].end :]
    if _OPERAND.fullmatch(between) and results[bool(results) and results[0] is following[0] :]:
        return _value(results[-1])
    if _several(clause, first, following[0], between, rest):
        return _Reading(None, clause)
    return _value(first)


def _several(clause: str, first: _Run, second: _Run, between: str, rest: str) -> bool:
    """Whether two numbers of a clause are two answers, a range, a product or the parts of one quantity."""
    if _same(first, second, rest):
        return False
    if re.search(r"\b(?:between|from)\s*$", clause[: first.start]) or all(
        pattern.match(part) for pattern, part in zip(_COMPOUND, (between, rest), strict=True)
    ):
        return True
    if re.fullmatch(r"(?:\s+[^\W\d]+){0,2}\s*(?:plus|minus|times|divided by|multiplied by)\s*", between):
        return True
    return _ALTERNATIVE.fullmatch(between) is not None and _END.match(rest) is not None


def _same(first: _Run, second: _Run, rest: str) -> bool:
    """Whether two numbers are one value, perhaps in percent."""
    one, other = first.value, second.value
    return one is None or other is None or one in (other, 100 * other, other / 100) and (one == other or "%" in rest or True)


def _read_sides(clause: str, runs: list[_Run]) -> _Reading:
    """Read a chain of equalities: the last side that is a value, before an approximation of it."""
    assigned = {
        match[1]: value
        for match in re.finditer(r"(?<![^\W\d_])([A-Za-z])\s?=\s?(-?\d[\d,./]*\d|-?\d)", clause)
        if (value := parse_number(match[2])) is not None
    }
    if len(set(assigned.values())) > 1 or len(re.findall(r"(?<![^\W\d_])[A-Za-z]\s?=", clause)) > 1 and re.search(r"\b(?:or|and)\b|,", clause) and len(runs) > 1 and len({run.value for run in runs}) > 1:
        return _Reading(None, clause)
    best: _Run | None = None
    start, exact = 0, True
    for relation in [*re.finditer("=|≈|⇒", clause), None]:
        end = relation.start() if relation else len(clause)
        side = [run for run in runs if start <= run.start < end]
        if side and side[0].value is not None and (exact or best is None):
            if len(side) == 1 or not _several(clause, side[0], side[1], clause[side[0].end : side[1].start], clause[side[1].end :]):
                best = side[0]
            else:
                return _Reading(None, clause)
        if relation:
            start, exact = relation.end(), relation[0] != "≈"
    return _value(best) if best is not None else _Reading(None, clause)


def _value(run: _Run) -> _Reading:
    literal = run.numbers[0][0]
    return _Reading(run.value, literal)


def _read_letter(rest: str, letters: str, options: list[str]) -> _Reading | None:
    """Read the text of an answer as the letter of an option."""
    clause = rest.strip()
    alone = re.fullmatch(r"[\W_]*([A-Za-z])[\W_]*", clause)
    if alone and alone[1].upper() in letters:
        return _Reading(alone[1].upper(), clause)
    spelled = [letter for letter, option in zip(letters, options, strict=False) if option == _spelled(clause)]
    if len(spelled) == 1:
        return _Reading(spelled[0], "option")
    mentions = [match for match in _MENTION.finditer(clause) if _is_letter(clause, match, letters, options)]
    if not mentions:
        found = _contained(_SENTENCE_END.split(clause)[0], letters, options)
        return _Reading(found, clause) if found else None
    first = mentions[0]
    named = [match for match in mentions if match["open"].strip() or _NAMED.search(clause[: match.start()])]
    if _LETTER_LEAD.fullmatch(clause[: first.start()]) is None and named:
        first = named[-1] if len({match["letter"].upper() for match in named}) > 1 else named[0]
    letter = first["letter"].upper()
    after = clause[first.end("letter") :]
    if _LETTER_LEAD.fullmatch(clause[: first.start()]) and options and letter in letters and options[letters.index(letter)] == _spelled(after):
        return _Reading(letter, "option")
    joined = _JOINED.match(after)
    if joined and joined["letter"] in letters and joined["letter"] != letter and not _DENIED.search(after[: joined.start("letter")]):
        return _Reading(None, clause)
    return _Reading(letter, clause)


def _is_letter(clause: str, match: re.Match[str], letters: str, options: list[str]) -> bool:
    """Whether a single letter of an answer's text names an option, and is no word, unit or denied option."""
    letter, before, after = match["letter"], clause[: match.start()], clause[match.end("letter") :]
    if letter.upper() not in letters or _DENIED.search(before):
        return False
    enclosed = bool(match["open"].strip()) and after.strip()[:1] in set(")]}\"”’'>.")
    leads = _LETTER_LEAD.fullmatch(before) is not None
    if letter.islower():
        return enclosed or (leads and re.match(r"[).:]|$", after) is not None)
    if options and leads and options[letters.index(letter)] == _spelled(_SENTENCE_END.split(after.lstrip(" .,:)"))[0]):
        return True
    # `A dog` and `I think` begin with a word, `B dog` with a letter.
    return letter not in "AI" or enclosed or not re.match(r"\s+\w", after) or _NO_NOUN.match(after) is not None


def _contained(text: str, letters: str, options: list[str]) -> str | None:
    """The letter of the one option whose text is part of a text; options within others do not count beside them."""
    text = text.casefold()
    found = [
        (letter, option)
        for letter, option in zip(letters, options, strict=False)
        if option and re.search(rf"(?<!\w)(?<!\bnot ){re.escape(option)}(?![\w.]?\w)", text)
    ]
    found = [(letter, option) for letter, option in found if not any(option != other and option in other for _, other in found)]
    return found[0][0] if len(found) == 1 else None


def _spelled(text: str) -> str:
    """The words of an option, without what may surround them."""
    return _ARTICLE.sub("", text.strip(" \t\n.,:;!?\"'“”‘’()[]{}$").casefold())
