"""Locate parts of messages in the text that a chat template renders."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from emoprobe.results.trajectory import Message, Span

ABSENT = (-1, -1)  # the place of a part that a template leaves out
Render = Callable[[list[Message]], str | None]


def unused_signs(text: str, messages: list[Message]) -> tuple[str, str]:
    """Return two characters of private use that a prompt does not hold, and that templates leave as they are."""
    taken = text + "".join(str(message.get("content")) for message in messages)
    free = (chr(point) for point in range(0xE000, 0xF900) if chr(point) not in taken)
    return next(free), next(free)


def locate(
    text: str, messages: list[Message], marks: Mapping[str, Span], render: Render
) -> tuple[dict[str, tuple[int, int] | None], tuple[str, ...]]:
    """The characters of a rendered text at which some parts of its messages are, and which parts it leaves out.

    The messages are rendered once more with signs at both ends of each part. If the text is the same but for the signs,
    they stand where the parts do. A template may render otherwise because of the signs (it looks at how a content
    begins, or strips the white space beside one); then the parts are tried one by one, without the white space around
    them, and with one sign in place of the whole message. Of a part that a template repeats, the last copy counts.

    Args:
        text: what the messages were rendered to.
        messages: role and content of each.
        marks: part → (message, start, end) in characters of that message's content.
        render: renders other messages in the same way; None where the template refuses them.
    """
    places: dict[str, tuple[int, int] | None] = {}
    left_out = []
    together = _signed(text, messages, marks, render)
    for name, (number, start, end) in marks.items():
        part = messages[number]["content"][start:end]
        if not part:
            places[name] = None
            continue
        inner = (number, start + len(part) - len(part.lstrip()), end - len(part) + len(part.rstrip()))
        place = together.get(name)
        for mark in ((number, start, end), inner):
            if place is None and mark[1] < mark[2]:
                place = _signed(text, messages, {name: mark}, render).get(name)
        place = place or _replaced(text, messages, (number, start, end), render)
        if place == ABSENT or (place is None and part.strip() not in text):
            left_out.append(name)
        places[name] = None if place == ABSENT else place
    return places, tuple(left_out)


def _signed(
    text: str, messages: list[Message], marks: Mapping[str, Span], render: Render
) -> dict[str, tuple[int, int]]:
    """Places by rendering with signs at the ends of the parts; empty where this changes anything else."""
    begin, end = unused_signs(text, messages)
    inserted: dict[int, list[tuple[int, str]]] = {}
    for order, (number, *places) in enumerate(marks.values()):
        inserted.setdefault(number, []).extend(
            (place, f"{begin}{order}.{side}{end}") for side, place in enumerate(places)
        )
    changed = list(messages)
    for number, signs in inserted.items():
        content = messages[number]["content"]
        for place, sign in sorted(signs, reverse=True):
            content = content[:place] + sign + content[place:]
        changed[number] = messages[number] | {"content": content}
    signed = render(changed)
    if signed is None:
        return {}
    first, *rest = signed.split(begin)
    plain, length, at = [first], len(first), dict[str, int]()
    for part in rest:
        sign, _, after = part.partition(end)
        at[sign] = length
        plain.append(after)
        length += len(after)
    if "".join(plain) != text:
        return {}
    ends = {name: (at.get(f"{order}.0"), at.get(f"{order}.1")) for order, name in enumerate(marks)}
    known = {name: (low, high) for name, (low, high) in ends.items() if low is not None and high is not None}
    return known | {name: ABSENT for name, places in ends.items() if places == (None, None)}


def _replaced(text: str, messages: list[Message], mark: Span, render: Render) -> tuple[int, int] | None:
    """The place of a part by rendering with a sign in place of its whole message; None where this does not tell it."""
    number, start, end = mark
    content = messages[number]["content"]
    sign = "".join(unused_signs(text, messages))
    signed = render([*messages[:number], messages[number] | {"content": sign}, *messages[number + 1 :]])
    if signed is None:
        return None
    if sign not in signed:
        return ABSENT if signed == text else None
    before = len(content) - len(content.lstrip())
    for shown, cut in ((content, 0), (content.strip(), before), (content.lstrip(), before), (content.rstrip(), 0)):
        if signed.replace(sign, shown) == text:
            at = len(signed[: signed.rindex(sign)].replace(sign, shown)) - cut
            low, high = max(at + start, at + cut), min(at + end, at + cut + len(shown))
            return (low, high) if low < high else None
    return None
