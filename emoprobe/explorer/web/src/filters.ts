// Settings of the grid: which questions are shown, in which order.

import { namesOf } from "./address";
import type { Experiment, Flips, Outcome } from "./data";

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
  /** Variant that flips are against; empty: the primary reference. */
  against: string;
  /** Name of a variant, or encoded names of several, joined by +. */
  variant: string;
  /** 1: only conversations with activations, which open with them, as `layer`, `direction`, `hook` and `token` say. */
  inside: string;
  layer: string;
  direction: string;
  hook: string;
  token: string;
}

const INSIDE_KEYS = ["inside", "layer", "direction", "hook", "token"] as const;
const KEYS = ["q", "sort", "group", "level", "outcome", "cut", "flip", "against", "variant", ...INSIDE_KEYS] as const;
export const NOTHING = settingsOf(new URLSearchParams());

export function settingsOf(params: URLSearchParams): Settings {
  return Object.fromEntries(KEYS.map((key) => [key, params.get(key) ?? ""])) as unknown as Settings;
}

export function paramsOf(settings: Settings): URLSearchParams {
  return new URLSearchParams(KEYS.filter((key) => settings[key]).map((key) => [key, settings[key]]));
}

/** What the address of a conversation says of the activations that are shown beside it. */
export function insideOf(settings: Settings): URLSearchParams | undefined {
  return settings.inside ? new URLSearchParams(INSIDE_KEYS.filter((key) => settings[key]).map((key) => [key, settings[key]])) : undefined;
}

/** Numbers of the variants that a setting names. */
export function variantsOf(experiment: Experiment, setting: string): number[] {
  const names = experiment.names.has(setting) ? [setting] : namesOf(setting);
  return names.map((name) => experiment.names.get(name)).filter((variant) => variant !== undefined);
}

export function flipsOf(experiment: Experiment, settings: Settings): Flips {
  return experiment.flips(settings.against ? (experiment.names.get(settings.against) ?? -1) : null);
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
  const { rows, questions } = experiment.index;
  const met = new Uint8Array(rows.q.length);
  const variants = new Set(variantsOf(experiment, settings.variant));
  const flips = flipsOf(experiment, settings);
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
      const flip = flips.rows[row];
      if (settings.outcome && rows.o[row] !== (settings.outcome as Outcome)) continue;
      if (settings.cut && rows.t[row] !== "1") continue;
      if (settings.flip && !(settings.flip === "any" ? flip : settings.flip === "gained" ? flip > 0 : flip < 0)) continue;
      if (settings.variant && !variants.has(rows.v[row])) continue;
      if (settings.inside && !experiment.captured[row]) continue;
      if (hits && !hits[row]) continue;
      met[row] = 1;
      count += 1;
      any = true;
    }
    if (any) chosen.push(question);
  }
  const key = keyOf(experiment, settings.sort, flips);
  if (key) chosen.sort((a, b) => key(a) - key(b) || a - b);
  return { questions: chosen, rows: met, count };
}

function keyOf(experiment: Experiment, sort: string, flips: Flips): ((question: number) => number) | null {
  const { rows, questions } = experiment.index;
  const share = (question: number) => (Number.isNaN(experiment.share[question]) ? 2 : experiment.share[question]);
  switch (sort) {
    case "hard":
      return share;
    case "easy":
      return (question) => -share(question);
    case "flips":
      return (question) => -flips.questions[question];
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
