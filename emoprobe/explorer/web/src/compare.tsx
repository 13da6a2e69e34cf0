// Side by side: one question under two to four variants.

import { useEffect, useLayoutEffect, useMemo, useState } from "preact/hooks";
import { compareAddress, type ComparePlace, sampleName, splitSample } from "./address";
import { ConversationColumn, Draws, LeftOut, Opening, scrolls } from "./conversation";
import { type Conversation, type Experiment, loadPage, type Outcome, pageThere } from "./data";
import { type Different, differences, type Range } from "./diff";
import { InsideControls, InsidePanel, useInside } from "./inside";
import { OUTCOMES } from "./reason";
import { visible } from "./text";

const MOST = 4;

interface Props {
  experiment: Experiment;
  place: ComparePlace;
  /** Questions in the order of the grid. */
  order: number[];
  thoughts: boolean;
  diff: boolean;
}

export function Compare(props: Props) {
  const { experiment, place, order } = props;
  const { questions, variants, rows, pages } = experiment.index;
  const [id, draw] = splitSample(place.sample, (name) => experiment.ids.has(name));
  const question = experiment.ids.get(id);
  const unknown = place.variants.filter((name) => !experiment.names.has(name));
  const columns = useMemo(
    () => (question === undefined || unknown.length ? [] : columnsOf(experiment, question, place.variants)),
    [experiment, question, place.variants.join("+")],
  );
  const page = question === undefined ? -1 : pages[question];
  const [there, setThere] = useState<Map<number, Conversation> | string | undefined>(pageThere(`c${page}`));
  const inside = useInside(experiment, question ?? -1, place.params);

  useEffect(() => {
    let current = true;
    if (page < 0) return;
    setThere(pageThere(`c${page}`));
    loadPage(`c${page}`).then(
      (found) => current && setThere(found),
      (error: Error) => current && setThere(error.message),
    );
    return () => {
      current = false;
    };
  }, [page]);

  const at = question === undefined ? -1 : order.indexOf(question);
  const [before, after] = [order[at - 1], at < 0 ? order[0] : order[at + 1]];
  const go = (next: number | undefined) => {
    if (next !== undefined) location.hash = compareAddress(place.variants, questions[next][0], place.params);
  };
  const draws = question === undefined ? [] : [...new Set(columns.flatMap((variant) => experiment.rowsOf(question, variant)).map((row) => rows.d[row]))];

  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (target.closest("input, select, textarea") || event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.key === "j" || event.key === "ArrowRight") go(after);
      else if (event.key === "k" || event.key === "ArrowLeft") go(before);
      else if (event.key === "r" && draws.length > 1) {
        const next = draws[(draws.indexOf(draw) + 1) % draws.length];
        location.hash = compareAddress(place.variants, sampleName(id, next), place.params);
      } else if (event.key === "v" || event.key === "V") {
        const last = columns[columns.length - 1] ?? 0;
        const step = event.key === "v" ? 1 : variants.length - 1;
        let next = (last + step) % variants.length;
        while (columns.slice(0, -1).includes(next)) next = (next + step) % variants.length;
        const shown = [...columns.slice(0, -1), next].map((variant) => variants[variant][0]);
        location.hash = compareAddress(shown, place.sample, place.params);
      } else if (event.key === "i") inside.toggle();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  });

  if (question === undefined || unknown.length) {
    const name = `${place.variants.join("+")}/${place.sample}`;
    return (
      <main class="compare">
        <p class="nothing">
          This experiment has no conversation {visible(name)}. <a href="#">Show all questions</a>
        </p>
      </main>
    );
  }

  const [, text, gold, group] = questions[question];
  const shown = columns.map((variant) => {
    const row = experiment.rowOf(question, variant, draw) ?? experiment.rowsOf(question, variant)[0];
    return { variant, row, conversation: row === undefined || !(there instanceof Map) ? undefined : there.get(row) };
  });
  const conversations = shown.map((column) => column.conversation).filter((each) => each !== undefined);
  const common = commonMessages(conversations);
  const marks = props.diff ? differencesOf(conversations) : new Map();
  const flips = experiment.flips(null);
  const toggle = (variant: number) => {
    const next = columns.includes(variant)
      ? columns.filter((each) => each !== variant)
      : [...(columns.length < MOST ? columns : columns.slice(0, MOST - 1)), variant];
    if (next.length) {
      location.hash = compareAddress(next.map((each) => variants[each][0]), place.sample, place.params);
    }
  };
  const right = Math.round(experiment.share[question] * 100);

  return (
    <main class="compare">
      <div class="question-bar">
        <div class="steps">
          <button disabled={before === undefined} onClick={() => go(before)} title="question before (k)" aria-label="question before">
            ‹
          </button>
          <h2>{visible(id)}</h2>
          <button disabled={after === undefined} onClick={() => go(after)} title="next question (j)" aria-label="next question">
            ›
          </button>
        </div>
        <p class="asked" dir="auto" tabIndex={scrolls(text) ? 0 : undefined}>
          {visible(text)}
        </p>
        <p class="about">
          gold answer <b>{visible(gold ?? "unknown")}</b>
          {group !== null && <> · {visible(group)}</>}
          {!Number.isNaN(right) && <> · {right} % right</>}
          {draws.length > 1 && (
            <Draws draws={draws} chosen={draw} addressOf={(each) => compareAddress(place.variants, sampleName(id, each), place.params)} />
          )}
        </p>
      </div>
      <div class="chips" role="group" aria-label="variants, at most four">
        {variants.map(([name], variant) => {
          const row = experiment.rowOf(question, variant, draw);
          const outcome = row === undefined ? null : (rows.o[row] as Outcome);
          return (
            <button
              class={`chip ${outcome ? `o-${outcome}` : "none"}`}
              aria-pressed={columns.includes(variant)}
              disabled={row === undefined}
              title={outcome ? OUTCOMES[outcome] : "no conversation"}
              onClick={() => toggle(variant)}
            >
              {visible(name)}
            </button>
          );
        })}
        {inside.there && (
          <button class="chip plain" aria-pressed={inside.open} onClick={inside.toggle} title="activations (i)">
            Inside
          </button>
        )}
      </div>
      {inside.open && <InsideControls inside={inside} />}
      {page < 0 && <LeftOut />}
      {typeof there === "string" && <p class="nothing">{there}</p>}
      <Opening messages={conversations[0]?.messages.slice(0, common) ?? []} />
      <div class="columns" style={{ "--columns": shown.length, "--parts": partsOf(conversations, common) + Number(inside.open) }}>
        {shown.map(({ variant, row, conversation }, place) => {
          const [name, valence] = variants[variant];
          if (row === undefined || !conversation) {
            return <article class="column waiting" key={variant} aria-busy={page >= 0 && typeof there !== "string"} />;
          }
          const flip = flips.rows[row];
          const base = variants[columns[0]][0];
          return (
            <ConversationColumn
              key={variant}
              conversation={conversation}
              outcome={rows.o[row] as Outcome}
              truncated={rows.t[row] === "1"}
              gold={gold}
              draw={rows.d[row]}
              draws={experiment.rowsOf(question, variant).length}
              folder={`${name}/${sampleName(id, rows.d[row])}`}
              common={common}
              different={marks.get(conversation) ?? []}
              base={place ? base : null}
              thoughts={props.thoughts}
              head={
                <h3>
                  {visible(name)} {valence && <small class={`v-${valence}`}>{valence}</small>}
                  {variant === experiment.reference && <small>reference</small>}
                  {flip !== 0 && <small class={flip > 0 ? "is-gained" : "is-lost"}>{flip > 0 ? "gained" : "lost"}</small>}
                </h3>
              }
            >
              {inside.open && <InsidePanel inside={inside} row={row} />}
            </ConversationColumn>
          );
        })}
      </div>
    </main>
  );
}

/** A single variant is shown beside the reference; the reference beside the other reference or the next variant. */
function columnsOf(experiment: Experiment, question: number, names: string[]): number[] {
  const chosen = [...new Set(names.map((name) => experiment.names.get(name)!))].slice(0, MOST);
  if (chosen.length > 1) return chosen;
  const others = [...experiment.index.references].reverse();
  others.push(...experiment.index.variants.keys());
  const other = others.find((variant) => variant !== chosen[0] && experiment.rowsOf(question, variant).length);
  return other === undefined ? chosen : [other, chosen[0]];
}

/** The most parts that a column has: its head, messages, judgements and facts. */
export function partsOf(conversations: Conversation[], common: number): number {
  const judged = Number(conversations.some((conversation) => conversation.judgements.length));
  return 2 + judged + Math.max(1, ...conversations.map((conversation) => conversation.messages.length - common));
}

export function commonMessages(conversations: Conversation[]): number {
  if (conversations.length < 2) return 0;
  const [first, ...others] = conversations;
  let count = 0;
  while (count < first.messages.length - 1 && count !== first.response) {
    const message = first.messages[count];
    if (first.tone?.[0] === count) break;
    const same = others.every((other) => {
      const theirs = other.messages[count];
      return theirs && count !== other.response && theirs.role === message.role && theirs.text === message.text && !theirs.calls.length;
    });
    if (!same || message.calls.length) break;
    count += 1;
  }
  return count;
}

/** Of each conversation, how its answer differs: from the first one; of the first, from any other. */
export function differencesOf(conversations: Conversation[]): Map<Conversation, Different> {
  const texts = conversations.map(answerOf);
  const first: Range[] = [];
  const found: Different[] = texts.map(() => first);
  for (let place = 1; place < texts.length; place++) {
    const pair = differences(texts[0].text, texts[place].text);
    const shift = (ranges: Range[], by: number) => ranges.map(([start, end]): Range => [start + by, end + by]);
    if (typeof pair !== "string") first.push(...shift(pair[0], texts[0].start));
    found[place] = typeof pair === "string" ? pair : shift(pair[1], texts[place].start);
  }
  return new Map(conversations.map((conversation, place) => [conversation, found[place]]));
}

function answerOf(conversation: Conversation): { text: string; start: number } {
  const message = conversation.response === null ? undefined : conversation.messages[conversation.response];
  const start = message?.thought ?? 0;
  return { text: message?.text.slice(start) ?? "", start };
}
