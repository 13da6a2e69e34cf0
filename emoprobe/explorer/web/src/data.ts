// The data of the experiment: scripts in data/ that call `emoprobe(name, value)`, loaded when they are needed.

export type Outcome = "r" | "l" | "w" | "n" | "f" | "u";

export interface Columns {
  v: number[];
  q: number[];
  d: number[];
  o: string;
  t: string;
}

export interface Steering extends Columns {
  /** Family, direction, operation, phase, layers and dose of each condition. */
  conditions: [family: string, direction: string, operation: string | null, phase: string | null, layers: string | null, dose: number, folder: string][];
  variants: string[];
  c: number[];
  pages: [number, number][];
}

export interface Inside {
  /** Numbers of the trajectories that are projected, as the index of words has them. */
  rows: string;
  directions: [name: string, about: string][];
  hooks: string[];
  layers: number[];
  positions: string[];
  n: number;
  step: number;
  pages: [number, number][];
}

export interface Tokens {
  rows: string;
  hook: string;
  layer: number;
  step: number;
  directions: [name: string, about: string][];
  pages: [number, number][];
}

export interface Index {
  experiment: string;
  model: string | null;
  variants: [name: string, valence: string | null][];
  references: number[];
  formats: number[];
  questions: [id: string, text: string, gold: string | null, group: string | null, choices?: string[]][];
  rows: Columns & { k: (number | null)[]; x: number[]; answers: string[] };
  pages: number[];
  shards: string[];
  steering: Steering | null;
  inside: Inside | null;
  tokens: Tokens | null;
  notes: string[];
}

type Place = [message: number, start: number, end: number];

export interface Message {
  role: string;
  text: string;
  leftOut: number;
  thought: number;
  reasoning: string;
  calls: [string, string][];
}

export interface Conversation {
  messages: Message[];
  response: number | null;
  tone: Place | null;
  question: Place | null;
  answer: Place | null;
  facts: Record<string, string | number | boolean>;
  judgements: Judgement[];
}

/** The value is empty where there is none; then the reason says why. */
export type Judgement = [label: string, model: string, value: string, reason: string];

interface PlainPage {
  texts: string[];
  rows: {
    n: number;
    m: [string, number, { x?: number; h?: number; g?: string; c?: [string, string][] }?][];
    r?: number;
    p?: Place;
    q?: Place;
    a?: Place;
    f: Record<string, string | number | boolean>;
    j?: Judgement[];
  }[];
}

declare global {
  interface Window {
    emoprobe(name: string, value: unknown): void;
  }
}

const MOST_KEPT = 60;
const given = new Map<string, unknown>();
const loading = new Map<string, Promise<unknown>>();

window.emoprobe = (name, value) => {
  given.set(name, value);
};

/** Return what a script gave, if it has been loaded. */
export function loaded<T>(name: string): T | undefined {
  return given.get(name) as T | undefined;
}

/** Load a script of data/ once. */
export function load<T>(name: string): Promise<T> {
  const known = loading.get(name);
  if (known) return known as Promise<T>;
  const promise = new Promise<T>((resolve, reject) => {
    const script = document.createElement("script");
    script.charset = "utf-8";
    script.src = `data/${name}.js`;
    script.onload = () => {
      script.remove();
      if (given.has(name)) resolve(given.get(name) as T);
      else reject(new Error(`data/${name}.js is damaged; make the explorer again`));
    };
    script.onerror = () => reject(new Error(`data/${name}.js is missing; make the explorer again`));
    document.head.append(script);
  });
  loading.set(name, promise);
  if (loading.size > MOST_KEPT) {
    const [oldest] = loading.keys();
    loading.delete(oldest);
    given.delete(oldest);
    conversations.delete(oldest);
  }
  return promise;
}

const conversations = new Map<string, Map<number, Conversation>>();

/** Load the conversations of a page, by their numbers. */
export async function loadPage(name: string): Promise<Map<number, Conversation>> {
  const page = await load<PlainPage>(name);
  let found = conversations.get(name);
  if (!found) {
    found = new Map(page.rows.map((row) => [row.n, unpacked(row, page.texts)]));
    conversations.set(name, found);
  }
  return found;
}

/** The conversations of a page that is loaded already. */
export function pageThere(name: string): Map<number, Conversation> | undefined {
  return conversations.get(name);
}

function unpacked(row: PlainPage["rows"][number], texts: string[]): Conversation {
  const messages = row.m.map(([role, number, extra]) => {
    const text = texts[number];
    return {
      role,
      text,
      leftOut: extra?.x ?? 0,
      thought: offset(text, extra?.h ?? 0),
      reasoning: extra?.g ?? "",
      calls: extra?.c ?? [],
    };
  });
  const place = (found?: Place): Place | null => {
    if (!found) return null;
    const text = messages[found[0]].text;
    return [found[0], offset(text, found[1]), offset(text, found[2])];
  };
  return {
    messages,
    response: row.r ?? null,
    tone: place(row.p),
    question: place(row.q),
    answer: place(row.a),
    facts: row.f,
    judgements: row.j ?? [],
  };
}

/** The place in a string of a place that counts characters: those beyond the first plane are two of a string. */
function offset(text: string, characters: number): number {
  if (!/[\ud800-\udbff]/.test(text)) return characters;
  let place = 0;
  for (let count = 0; count < characters && place < text.length; count++) {
    place += text.codePointAt(place)! > 0xffff ? 2 : 1;
  }
  return place;
}

/** What differs from a reference, by strict grades and over all draws of a question. */
export interface Flips {
  /** Of each trajectory: 1 where its variant has a larger share of right draws than the reference, -1 a smaller one, else 0. */
  rows: Int8Array;
  /** Of each question: variants whose share differs. */
  questions: Int32Array;
}

/** The trajectories of an experiment, to look things up in. */
export class Experiment {
  readonly reference: number;
  readonly first: Int32Array;
  readonly ids: Map<string, number>;
  readonly names: Map<string, number>;
  /** Of each question: share of its trajectories that are right. */
  readonly share: Float64Array;
  readonly groups: string[];
  readonly draws: number;
  /** Of each trajectory, whether its activations are there. */
  readonly captured: Uint8Array;
  private readonly known = new Map<number | null, Flips>();

  constructor(readonly index: Index) {
    const { rows, questions, variants, references } = index;
    this.reference = references.length ? references[references.length - 1] : -1;
    this.ids = new Map(questions.map((question, place) => [question[0], place]));
    this.names = new Map(variants.map((variant, place) => [variant[0], place]));
    this.first = new Int32Array(questions.length + 1).fill(rows.q.length);
    for (let row = rows.q.length - 1; row >= 0; row--) this.first[rows.q[row]] = row;
    for (let place = questions.length - 1; place >= 0; place--) {
      this.first[place] = Math.min(this.first[place], this.first[place + 1]);
    }
    this.share = new Float64Array(questions.length);
    this.draws = 1;
    for (let question = 0; question < questions.length; question++) {
      let count = 0;
      let graded = 0;
      for (let row = this.first[question]; row < this.first[question + 1]; row++) {
        this.draws = Math.max(this.draws, rows.d[row]);
        if (isGraded(rows.o[row])) {
          graded += 1;
          count += rows.o[row] === "r" ? 1 : 0;
        }
      }
      this.share[question] = graded ? count / graded : NaN;
    }
    this.captured = new Uint8Array(rows.q.length);
    for (const part of [index.inside, index.tokens]) {
      each(part?.rows ?? "", (row) => {
        this.captured[row] = 1;
      });
    }
    this.groups = [...new Set(questions.map((question) => question[3]).filter((group) => group !== null))].sort();
  }

  /** Return what flips against a variant; null: against the primary reference, other references and formats apart. */
  flips(against: number | null): Flips {
    let found = this.known.get(against);
    if (!found) this.known.set(against, (found = this.flipsAgainst(against)));
    return found;
  }

  private flipsAgainst(against: number | null): Flips {
    const { rows, questions, variants, references, formats } = this.index;
    const reference = against ?? this.reference;
    // One reference against another is no flip by a tone, nor is another format of the prompt.
    const plain = new Set(against === null ? [...references, ...formats] : [against]);
    const found = { rows: new Int8Array(rows.q.length), questions: new Int32Array(questions.length) };
    for (let question = 0; question < questions.length; question++) {
      const right = new Float64Array(variants.length);
      const graded = new Float64Array(variants.length);
      for (let row = this.first[question]; row < this.first[question + 1]; row++) {
        if (!isGraded(rows.o[row])) continue;
        graded[rows.v[row]] += 1;
        if (rows.o[row] === "r") right[rows.v[row]] += 1;
      }
      const sign = (variant: number) =>
        plain.has(variant) || !graded[variant] || !graded[reference]
          ? 0
          : Math.sign(right[variant] * graded[reference] - right[reference] * graded[variant]);
      for (let row = this.first[question]; row < this.first[question + 1]; row++) {
        if (isGraded(rows.o[row])) found.rows[row] = sign(rows.v[row]);
      }
      for (let variant = 0; variant < variants.length; variant++) found.questions[question] += Math.abs(sign(variant));
    }
    return found;
  }

  /** Numbers of the trajectories of a question under a variant, by draw. */
  rowsOf(question: number, variant: number): number[] {
    const { rows } = this.index;
    const found = [];
    for (let row = this.first[question]; row < this.first[question + 1]; row++) {
      if (rows.v[row] === variant) found.push(row);
    }
    return found;
  }

  /** The trajectory of a question, a variant and a draw. */
  rowOf(question: number, variant: number, draw: number): number | undefined {
    return this.rowsOf(question, variant).find((row) => this.index.rows.d[row] === draw);
  }
}

/** Call with each number of a list that `emoprobe/explorer/search.py` encoded. */
export function each(encoded: string, call: (number: number) => void): void {
  if (!encoded) return;
  let number = 0;
  for (const part of encoded.split(" ")) {
    const star = part.indexOf("*");
    const step = parseInt(star < 0 ? part : part.slice(0, star), 36);
    const count = star < 0 ? 1 : parseInt(part.slice(star + 1), 36);
    for (let turn = 0; turn < count; turn++) call((number += step));
  }
}

export function isGraded(outcome: string): boolean {
  return outcome !== "f" && outcome !== "u";
}
