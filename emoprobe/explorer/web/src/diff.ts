// Differences between two texts, by words.

const TOKEN = /\s+|[\p{L}\p{N}]+|[^\s\p{L}\p{N}]/gu;
const MOST_CELLS = 4_000_000;

export type Range = [start: number, end: number];

/** Return the ranges of each text that the other lacks; null where the texts are too long to compare. */
export function differences(one: string, other: string): [Range[], Range[]] | null {
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
  if (n * m > MOST_CELLS) return null;
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
  return [ours, theirs];
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
