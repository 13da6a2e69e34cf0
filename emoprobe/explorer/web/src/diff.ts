// Differences between two texts, by words.

const TOKEN = /\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu;
const MOST_CELLS = 4_000_000;
/** Texts of more words than this are marked only if they share this part of their words, in order. */
const SHORT = 50;
const LEAST_SHARED = 1 / 3;

export type Range = [start: number, end: number];
/** Ranges of a text that another lacks, or why they are not marked. */
export type Different = Range[] | "too long" | "too different";

/** Return the ranges of each text that the other lacks, or why they are not marked. */
export function differences(one: string, other: string): [Range[], Range[]] | "too long" | "too different" {
  const a = tokens(one);
  const b = tokens(other);
  let first = 0;
  while (first < a.length && first < b.length && a[first].text === b[first].text) first++;
  let last = 0;
  while (
    last < a.length - first &&
    last < b.length - first &&
    a[a.length - 1 - last].text === b[b.length - 1 - last].text
  ) {
    last++;
  }
  const n = a.length - first - last;
  const m = b.length - first - last;
  if (n * m > MOST_CELLS) return "too long";
  // Lengths of the longest common subsequences of the ends of both.
  const width = m + 1;
  const lengths = new Uint16Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      lengths[i * width + j] =
        a[first + i].text === b[first + j].text
          ? lengths[(i + 1) * width + j + 1] + 1
          : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const ours: Range[] = [];
  const theirs: Range[] = [];
  let i = 0;
  let j = 0;
  while (i < n || j < m) {
    if (i < n && j < m && a[first + i].text === b[first + j].text) {
      i++;
      j++;
    } else if (j >= m || (i < n && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
      push(ours, a[first + i++]);
    } else {
      push(theirs, b[first + j++]);
    }
  }
  const words = [wordsIn(a), wordsIn(b)];
  const shared = words[0] - wordsIn(ours.flatMap(([start, end]) => tokens(one.slice(start, end))));
  if (Math.max(...words) > SHORT && 2 * shared < LEAST_SHARED * (words[0] + words[1])) return "too different";
  return [ours, theirs];
}

function wordsIn(found: Token[]): number {
  return found.filter(({ text }) => text.trim()).length;
}

interface Token {
  text: string;
  start: number;
}

function tokens(text: string): Token[] {
  return [...text.matchAll(TOKEN)].map((match) => ({ text: match[0], start: match.index }));
}

function push(ranges: Range[], token: Token): void {
  const end = token.start + token.text.length;
  const last = ranges[ranges.length - 1];
  if (last && last[1] === token.start) last[1] = end;
  else ranges.push([token.start, end]);
}
