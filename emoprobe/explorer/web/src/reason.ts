// Why a completion counts as right or wrong, in a sentence.

import type { Conversation, Outcome } from "./data";

export const OUTCOMES: Record<Outcome, string> = {
  r: "right",
  l: "right, not marked as final",
  w: "wrong",
  n: "no answer",
  f: "failed",
  u: "not graded",
};

const FOUND: Record<string, string> = {
  marker: "is marked as the final answer",
  boxed: "is in a box",
  last_number: "is the last number, as none is marked as the answer",
  letter: "is the last letter, as none is marked as the answer",
};

export function reason(outcome: Outcome, gold: string | null, truncated: boolean, conversation: Conversation): string {
  const { extracted, extraction, failure } = conversation.facts;
  const found = FOUND[String(extraction)] ?? "was extracted";
  const answer = extracted === undefined ? "The answer" : `“${extracted}”`;
  if (outcome === "f") return `No answer: ${failure ?? "no server answered"}.`;
  if (outcome === "u") return "Not graded: the gold answer is not known.";
  if (gold === null) return `${outcome === "r" ? "Right" : "Wrong"}, as the folder says: the gold answer is not known.`;
  switch (outcome) {
    case "n":
      return `Wrong: no single answer could be read${truncated ? " before the completion was cut off" : ""}. Gold answer: ${gold}.`;
    case "r":
      return `Right: ${answer} ${found} and equals the gold answer.`;
    case "l": {
      const marked = extraction === "marker" || extraction === "boxed";
      const why = truncated ? "the completion was cut off" : marked ? "the thought is not finished" : `it ${found}`;
      return `Wrong by the strict grade: ${answer} equals the gold answer, but ${why}.`;
    }
    case "w":
      return `Wrong: ${answer} ${found}, and the gold answer is ${gold}.`;
  }
}
