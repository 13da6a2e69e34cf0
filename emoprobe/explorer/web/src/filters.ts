// Settings of the grid: which questions are shown, in which order.

import type { Experiment, Outcome } from "./data";

export const SORTS: Record<string, string> = {
  "": "as asked",
  hard: "hardest first",
  easy: "easiest first",
  flips: "most flips first",
  long: "longest answers first",
  group: "by group",
};

export const LEVELS: Record<string, string> = {
  "": "any difficulty",
  all: "all variants right",
  some: "some variants right",
  none: "no variant right",
};

/** Options of what differs from the reference. */
export function flips(reference: string): Record<string, string> {
  return {
    "": "flipped or not",
    any: `flipped against ${reference}`,
    gained: `gained against ${reference}`,
    lost: `lost against ${reference}`,
  };
}

export interface Settings {
  q: string;
  sort: string;
  group: string;
  level: string;
  outcome: string;
  cut: string;
  flip: string;
  variant: string;
}

const KEYS = ["q", "sort", "group", "level", "outcome", "cut", "flip", "variant"] as const;

export function settingsOf(params: URLSearchParams): Settings {
  return Object.fromEntries(KEYS.map((key) => [key, params.get(key) ?? ""])) as unknown as Settings;
}

export function paramsOf(settings: Settings): URLSearchParams {
  return new URLSearchParams(KEYS.filter((key) => settings[key]).map((key) => [key, settings[key]]));
}

export interface Selection {
  /** Questions to show, in order. */
  questions: number[];
  /** Of each trajectory, whether it meets what is asked of a conversation. */
  rows: Uint8Array;
  count: number;
}

/** Select the questions of which a conversation meets everything that is asked. */
export function select(experiment: Experiment, settings: Settings, hits: Uint8Array | null): Selection {
  const { rows, questions, variants } = experiment.index;
  const met = new Uint8Array(rows.q.length);
  const variant = variants.findIndex(([name]) => name === settings.variant);
  const chosen: number[] = [];
  let count = 0;
  for (let question = 0; question < questions.length; question++) {
    if (settings.group && questions[question][3] !== settings.group) continue;
    const share = experiment.share[question];
    if (settings.level === "all" && share !== 1) continue;
    if (settings.level === "none" && share !== 0) continue;
    if (settings.level === "some" && !(share > 0 && share < 1)) continue;
    let any = false;
    for (let row = experiment.first[question]; row < experiment.first[question + 1]; row++) {
      const flip = experiment.flips[row];
      if (settings.outcome && rows.o[row] !== (settings.outcome as Outcome)) continue;
      if (settings.cut && rows.t[row] !== "1") continue;
      if (settings.flip && !(settings.flip === "any" ? flip : settings.flip === "gained" ? flip > 0 : flip < 0)) continue;
      if (settings.variant && rows.v[row] !== variant) continue;
      if (hits && !hits[row]) continue;
      met[row] = 1;
      count += 1;
      any = true;
    }
    if (any) chosen.push(question);
  }
  const key = keyOf(experiment, settings.sort);
  if (key) chosen.sort((a, b) => key(a) - key(b) || a - b);
  return { questions: chosen, rows: met, count };
}

function keyOf(experiment: Experiment, sort: string): ((question: number) => number) | null {
  const { rows, questions } = experiment.index;
  const share = (question: number) => (Number.isNaN(experiment.share[question]) ? 2 : experiment.share[question]);
  switch (sort) {
    case "hard":
      return share;
    case "easy":
      return (question) => -share(question);
    case "flips":
      return (question) => -experiment.flipped[question];
    case "long":
      return (question) => {
        let most = 0;
        for (let row = experiment.first[question]; row < experiment.first[question + 1]; row++) {
          most = Math.max(most, rows.k[row] ?? 0);
        }
        return -most;
      };
    case "group":
      return (question) => experiment.groups.indexOf(questions[question][3] ?? "");
    default:
      return null;
  }
}
