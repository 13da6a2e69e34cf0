// Steering: one question and variant under each dose of a direction, side by side.

import { useEffect, useLayoutEffect, useMemo, useState } from "preact/hooks";
import { sampleName, splitSample, steeringAddress, type SteeringPlace } from "./address";
import { commonMessages, differencesOf, partsOf } from "./compare";
import { ConversationColumn, Draws, LeftOut, Opening, scrolls } from "./conversation";
import { type Conversation, type Experiment, loadPage, type Outcome, type Steering as SteeringIndex } from "./data";
import { visible } from "./text";

const NONE = "none";

interface Props {
  experiment: Experiment;
  steering: SteeringIndex;
  place: SteeringPlace;
  thoughts: boolean;
  diff: boolean;
}

export function Steering({ experiment, steering, place, thoughts, diff }: Props) {
  const { questions } = experiment.index;
  const pages = useMemo(() => new Map(steering.pages), [steering]);
  const known = useMemo(() => [...new Set(steering.q)], [steering]);
  // What the address leaves open, or names wrongly, is what comes first.
  const pick = (options: string[], wanted: string) => (options.includes(wanted) ? wanted : (options[0] ?? ""));
  const conditions = steering.conditions.filter(([family]) => family !== NONE);
  const direction = pick(unique(conditions.map((each) => each[1])), place.direction);
  const ofDirection = conditions.filter((each) => each[1] === direction);
  const edit = pick(unique(ofDirection.map(editName)), place.edit);
  const ofEdit = ofDirection.filter((each) => editName(each) === edit);
  const layers = pick(unique(ofEdit.map((each) => `L${each[4]}`)), place.layers);
  const variant = pick(steering.variants, place.variant);
  const [wanted, draw] = splitSample(place.sample, (name) => experiment.ids.has(name));
  const question = known.find((each) => questions[each][0] === wanted) ?? known[0];
  const [there, setThere] = useState<Map<number, Conversation> | string | undefined>();
  const page = pages.get(question) ?? -1;

  useEffect(() => {
    let current = true;
    if (page < 0) return;
    loadPage(`t${page}`).then(
      (found) => current && setThere(found),
      (error: Error) => current && setThere(error.message),
    );
    return () => {
      current = false;
    };
  }, [page]);

  const rows: { row: number; dose: number; folder: string }[] = [];
  const draws = new Set<number>();
  for (let row = 0; row < steering.q.length; row++) {
    if (steering.q[row] !== question || steering.variants[steering.v[row]] !== variant) continue;
    draws.add(steering.d[row]);
    if (steering.d[row] !== draw) continue;
    const condition = steering.conditions[steering.c[row]];
    const none = condition[0] === NONE;
    if (!none && !(condition[1] === direction && editName(condition) === edit && `L${condition[4]}` === layers)) continue;
    rows.push({ row, dose: none ? 0 : condition[5], folder: `steering/${condition[6]}/${variant}/${sampleName(questions[question][0], draw)}` });
  }
  rows.sort((one, other) => one.dose - other.dose);

  const id = questions[question][0];
  const addressOf = (change: Partial<SteeringPlace>) =>
    steeringAddress({ direction, edit, layers, dose: place.dose || "d0", variant, sample: sampleName(id, draw), ...change });
  const go = (change: Partial<SteeringPlace>) => {
    location.hash = addressOf(change);
  };
  const at = known.indexOf(question);
  const step = (by: number) => known[at + by] !== undefined && go({ sample: questions[known[at + by]][0] });

  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (target.closest("input, select, textarea") || event.metaKey || event.ctrlKey || event.altKey) return;
      if (event.key === "j" || event.key === "ArrowRight") step(1);
      else if (event.key === "k" || event.key === "ArrowLeft") step(-1);
      else if (event.key === "r" && draws.size > 1) {
        const all = [...draws];
        go({ sample: sampleName(id, all[(all.indexOf(draw) + 1) % all.length]) });
      } else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  });

  const shown = rows.map((each) => ({ ...each, conversation: there instanceof Map ? there.get(each.row) : undefined }));
  // Differences are marked against the unsteered answer.
  const ordered = [...shown].sort((one, other) => Number(other.dose === 0) - Number(one.dose === 0));
  const conversations = ordered.map((each) => each.conversation).filter((each) => each !== undefined);
  const marks = diff ? differencesOf(conversations) : new Map();
  const common = commonMessages(conversations);

  return (
    <main class="compare">
      <div class="question-bar">
        <div class="steps">
          <button disabled={at <= 0} onClick={() => step(-1)} title="question before (k)" aria-label="question before">
            ‹
          </button>
          <h2>{visible(id)}</h2>
          <button disabled={at + 1 >= known.length} onClick={() => step(1)} title="next question (j)" aria-label="next question">
            ›
          </button>
        </div>
        <p class="asked" dir="auto" tabIndex={scrolls(questions[question][1]) ? 0 : undefined}>
          {visible(questions[question][1])}
        </p>
        <p class="about">
          gold answer <b>{visible(questions[question][2] ?? "unknown")}</b>
          {draws.size > 1 && <Draws draws={[...draws]} chosen={draw} addressOf={(each) => addressOf({ sample: sampleName(id, each) })} />}
        </p>
      </div>
      <div class="inside-controls">
        <Pick label="direction" value={direction} options={unique(conditions.map((each) => each[1]))} change={(value) => go({ direction: value })} />
        <Pick label="operation and phase" value={edit} options={unique(ofDirection.map(editName))} change={(value) => go({ edit: value })} />
        <Pick label="layers" value={layers} options={unique(ofEdit.map((each) => `L${each[4]}`))} change={(value) => go({ layers: value })} />
        <Pick label="variant" value={variant} options={steering.variants} change={(value) => go({ variant: value })} />
        <p class="quiet">
          Doses are in median norms of the residual stream at the layer; 0 is the unsteered model, which differences are
          marked against.
        </p>
      </div>
      {typeof there === "string" && <p class="nothing">{there}</p>}
      {page < 0 && <LeftOut />}
      <Opening messages={conversations[0]?.messages.slice(0, common) ?? []} />
      <div class="columns many" style={{ "--columns": shown.length, "--parts": partsOf(conversations, common) }}>
        {shown.map(({ row, dose, folder, conversation }) =>
          conversation ? (
            <ConversationColumn
              key={folder}
              conversation={conversation}
              outcome={steering.o[row] as Outcome}
              truncated={steering.t[row] === "1"}
              gold={questions[question][2]}
              draw={steering.d[row]}
              draws={draws.size}
              folder={folder}
              common={common}
              different={marks.get(conversation) ?? []}
              base={dose === 0 ? null : "the unsteered answer"}
              thoughts={thoughts}
              head={<h3 class={place.dose === `d${dose}` ? "chosen" : ""}>{dose === 0 ? "unsteered" : `dose ${dose}`}</h3>}
            />
          ) : (
            <article class="column waiting" key={folder} />
          ),
        )}
      </div>
    </main>
  );
}

interface PickProps {
  label: string;
  value: string;
  options: string[];
  change(value: string): void;
}

function Pick({ label, value, options, change }: PickProps) {
  return (
    <label>
      {label}{" "}
      <select value={value} onChange={(event) => change(event.currentTarget.value)}>
        {options.map((option) => (
          <option value={option}>{visible(option)}</option>
        ))}
      </select>
    </label>
  );
}

function editName(condition: SteeringIndex["conditions"][number]): string {
  return `${condition[2]}-${condition[3]}`;
}

function unique(names: string[]): string[] {
  return [...new Set(names)];
}
