// Search in the index of words. `emoprobe/explorer/search.py` makes it, with the same words and the same encoding.

import { each, type Experiment, load } from "./data";

const UNSPACED = "\\u0e00-\\u0eff\\u1000-\\u109f\\u1780-\\u17ff\\u3040-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff";
const WORD = new RegExp(`[${UNSPACED}]|(?:(?![${UNSPACED}])[\\p{L}\\p{N}])+`, "gu");
const MAX_WORD = 32;

type Entry = [word: string, rows: string, questions: string];

export function wordsOf(query: string): string[] {
  return [...(query.toLowerCase().match(WORD) ?? [])].map((word) => [...word].slice(0, MAX_WORD).join(""));
}

/** Return for each trajectory whether it, or its question, has a word that begins with each word of a query. */
export async function search(experiment: Experiment, query: string): Promise<Uint8Array> {
  const { rows, shards } = experiment.index;
  const found = new Uint8Array(rows.q.length).fill(1);
  for (const word of wordsOf(query)) {
    const name = word.charCodeAt(0) < 128 ? word[0] : "other";
    const entries = shards.includes(name) ? await load<Entry[]>(`s${name}`) : [];
    const hits = new Uint8Array(rows.q.length);
    for (let place = firstAtLeast(entries, word); place < entries.length && entries[place][0].startsWith(word); place++) {
      each(entries[place][1], (row) => {
        hits[row] = 1;
      });
      each(entries[place][2], (question) => {
        hits.fill(1, experiment.first[question], experiment.first[question + 1]);
      });
    }
    for (let row = 0; row < found.length; row++) found[row] &= hits[row];
  }
  return found;
}

function firstAtLeast(entries: Entry[], word: string): number {
  let low = 0;
  let high = entries.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compare(entries[middle][0], word) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Order by code points, as Python sorts: beyond the first plane that is not the order of a string's units. */
function compare(one: string, other: string): number {
  for (let place = 0; place < one.length && place < other.length; place++) {
    const [a, b] = [one.codePointAt(place)!, other.codePointAt(place)!];
    if (a !== b) return a - b;
  }
  return one.length - other.length;
}
