// Text of others, shown safely: always as text nodes, never as HTML.

import type { ComponentChildren } from "preact";

export interface Mark {
  start: number;
  end: number;
  kind: string;
  title?: string;
}

const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** Control characters, which could hide or reorder what follows, as signs. */
export function visible(text: string): string {
  return text.replace(/\r\n?/g, "\n").replace(INVISIBLE, (sign) => {
    const code = sign.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return code === 0x7f ? "\u2421" : `⟨U+${code.toString(16).toUpperCase()}⟩`;
  });
}

/** A text, from `start` to `end`, with its marked parts; marks may overlap. */
export function Marked(props: { text: string; marks: Mark[]; start?: number; end?: number }) {
  const { text, marks, start = 0, end = text.length } = props;
  const inside = marks.filter((mark) => mark.start < end && mark.end > start);
  if (!inside.length) return <>{visible(text.slice(start, end))}</>;
  const cuts = new Set([start, end]);
  for (const mark of inside) {
    cuts.add(Math.max(start, mark.start));
    cuts.add(Math.min(end, mark.end));
  }
  const places = [...cuts].sort((a, b) => a - b);
  const parts: ComponentChildren[] = [];
  for (let number = 0; number + 1 < places.length; number++) {
    const [from, to] = [places[number], places[number + 1]];
    const here = inside.filter((mark) => mark.start <= from && mark.end >= to);
    const content = visible(text.slice(from, to));
    const title = here.find((mark) => mark.title)?.title;
    parts.push(
      here.length ? (
        <mark class={here.map((mark) => mark.kind).join(" ")} title={title}>
          {content}
        </mark>
      ) : (
        content
      ),
    );
  }
  return <>{parts}</>;
}
