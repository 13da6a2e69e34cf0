// The grid: a line for each question, a cell for each variant, coloured by outcome.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { compareAddress, sampleName } from "./address";
import type { Experiment, Outcome } from "./data";
import { flips, flipsOf, insideOf, LEVELS, NOTHING, type Selection, type Settings, SORTS, variantsOf } from "./filters";
import { OUTCOMES } from "./reason";
import { visible } from "./text";

const LINE = 25;
const SIGNS: Record<Outcome, string> = { r: "✓", l: "≈", w: "×", n: "–", f: "!", u: "·" };

interface Props {
  experiment: Experiment;
  settings: Settings;
  selection: Selection;
  searching: string;
  change(settings: Partial<Settings>): void;
}

export function Grid(props: Props) {
  const { experiment, settings, selection } = props;
  const { questions, variants, rows } = experiment.index;
  const frame = useRef<HTMLDivElement>(null);
  const flipped = flipsOf(experiment, settings);
  const opens = (name: string, sample: string) =>
    compareAddress(settings.against && settings.against !== name ? [settings.against, name] : [name], sample, insideOf(settings));
  const chosen = variantsOf(experiment, settings.variant);
  const [size, setSize] = useState<[number, number]>([1200, 800]);
  const [top, setTop] = useState(0);
  const [cursor, setCursor] = useState<[number, number]>([0, 0]);

  useLayoutEffect(() => {
    const element = frame.current!;
    const measure = () => setSize([element.clientWidth, element.clientHeight]);
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    frame.current!.scrollTop = 0;
    setCursor([0, 0]);
  }, [settings]);
  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (target.closest("input, select, textarea") || event.metaKey || event.ctrlKey || event.altKey) return;
      const step = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
      const page = { j: [1, 0], k: [-1, 0], PageDown: [20, 0], PageUp: [-20, 0] }[event.key] ?? step;
      if (page) {
        event.preventDefault();
        const line = Math.min(Math.max(cursor[0] + page[0], 0), selection.questions.length - 1);
        const column = Math.min(Math.max(cursor[1] + page[1], 0), variants.length - 1);
        setCursor([Math.max(line, 0), column]);
        const element = frame.current!;
        const [above, below] = [line * LINE, (line + 1) * LINE + headHeight(element)];
        if (above < element.scrollTop) element.scrollTop = above;
        if (below > element.scrollTop + element.clientHeight) element.scrollTop = below - element.clientHeight;
      } else if (event.key === "Enter" && !target.closest("a, button, summary")) {
        const question = selection.questions[cursor[0]];
        if (question !== undefined) location.hash = opens(variants[cursor[1]][0], questions[question][0]);
      }
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [cursor, selection, settings]);

  const [width, height] = size;
  const narrow = width < 700;
  const common = useMemo(() => commonStart(questions.map(([, text]) => text)), [experiment]);
  const longest = useMemo(() => Math.max(0, ...questions.map(([, text]) => Math.min(text.length - common, 200))), [common]);
  // Cells take what the text of a question leaves; the text takes what cells leave that are as wide as they get.
  const wanted = Math.min(longest * 7 + 24, Math.max(160, width * 0.3));
  const room = width - (narrow ? 92 : 226 + wanted);
  const cell = Math.min(Math.max(Math.floor(room / variants.length), narrow ? 16 : 20), 88);
  const text = Math.min(longest * 7 + 24, Math.max(100, width - 226 - variants.length * cell));
  const first = Math.max(0, Math.floor(top / LINE) - 5);
  const last = Math.min(selection.questions.length, Math.ceil((top + height) / LINE) + 5);
  const accuracies = useMemo(() => variants.map((_, variant) => accuracy(experiment, variant)), [experiment]);
  const style = { "--cell": `${cell}px`, "--text-width": `${text}px` };

  return (
    <main class="grid-view">
      <Toolbar {...props} />
      <div
        class={`grid${narrow ? " narrow" : ""}`}
        style={style}
        ref={frame}
        tabIndex={0}
        aria-label="conversations"
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      >
        <div class="head">
          <span class="id">question</span>
          {!narrow && <span class="text" />}
          {!narrow && <span class="gold">gold</span>}
          {!narrow && (
            <span class="share" title="share of the question's conversations that are right">
              right
            </span>
          )}
          {variants.map(([name, valence], variant) => (
            <button
              class={`variant${chosen.includes(variant) ? " chosen" : ""}`}
              title={`${name}${valence ? `, ${valence}` : ""}: ${percent(accuracies[variant])} right; click to filter by it`}
              onClick={() => props.change({ variant: settings.variant === name ? "" : name })}
            >
              <span class={`name v-${valence ?? "none"}`}>
                {visible(name)}
                {variant === experiment.reference && " (reference)"}
              </span>
              <span class="accuracy">{cell >= 28 ? percent(accuracies[variant]) : ""}</span>
            </button>
          ))}
        </div>
        <div class="lines" style={{ height: `${selection.questions.length * LINE}px` }}>
          {selection.questions.slice(first, last).map((question, place) => {
            const [id, text, gold, group] = questions[question];
            const line = first + place;
            return (
              <div class="line" key={question} style={{ top: `${line * LINE}px` }}>
                <span class="id" title={group === null ? id : `${id}, ${group}`}>
                  {visible(id)}
                </span>
                {!narrow && (
                  <span class="text" title={text.slice(0, 500)}>
                    <bdi>{visible(own(text, common))}</bdi>
                  </span>
                )}
                {!narrow && <span class="gold">{visible(gold ?? "")}</span>}
                {!narrow && (
                  <span class="share" title={`${percent(experiment.share[question])} right`}>
                    <i style={{ width: `${(experiment.share[question] || 0) * 100}%` }} />
                  </span>
                )}
                {variants.map(([name], variant) => {
                  const draws = experiment.rowsOf(question, variant);
                  const at = cursor[0] === line && cursor[1] === variant;
                  if (!draws.length) return <span class={`cell none${at ? " cursor" : ""}`} />;
                  const row = draws[0];
                  const outcome = rows.o[row] as Outcome;
                  const flip = flipped.rows[row];
                  const answer = rows.answers[rows.x[row]];
                  const right = draws.filter((each) => rows.o[each] === "r").length;
                  const many = draws.length > 1;
                  const against = againstOf(experiment, settings);
                  const label = many ? `${right}/${draws.length}` : cell >= 36 ? answer || SIGNS[outcome] : cell >= 20 ? SIGNS[outcome] : "";
                  const kind = many ? `share${Math.round((4 * right) / draws.length)}` : `o-${outcome}`;
                  const dim = draws.some((each) => selection.rows[each]) ? "" : " dim";
                  const cut = draws.some((each) => rows.t[each] === "1") ? " is-cut" : "";
                  const change = flip > 0 ? " gained" : flip < 0 ? " lost" : "";
                  return (
                    <a
                      class={`cell ${kind}${cut}${change}${dim}${at ? " cursor" : ""}`}
                      href={opens(name, sampleName(id, rows.d[row]))}
                      title={`${name}, ${id}: ${many ? `${right} of ${draws.length} draws right` : `${OUTCOMES[outcome]}${answer ? `, ${answer}` : ""}`}${flip ? ` (${flip > 0 ? "gained" : "lost"} against ${against})` : ""}${cut ? ", cut off" : ""}`}
                      tabIndex={-1}
                    >
                      {!dim && visible(label)}
                    </a>
                  );
                })}
              </div>
            );
          })}
        </div>
        {!selection.questions.length && (
          <p class="nothing">
            No question meets these conditions. <button onClick={() => props.change(NOTHING)}>Clear them</button>
          </p>
        )}
      </div>
      <Legend {...props} />
    </main>
  );
}

function Toolbar(props: Props) {
  const { experiment, settings, selection, change } = props;
  const { questions, variants, rows } = experiment.index;
  const outcomes = (Object.keys(OUTCOMES) as Outcome[]).filter((outcome) => rows.o.includes(outcome));
  const filtered = Object.entries(settings).some(([key, value]) => key !== "sort" && value);
  const against = againstOf(experiment, settings);
  const primary = variants[experiment.reference]?.[0];
  // The primary reference has no name in the address, unless that names it.
  const keyOf = (name: string) => (name === primary && settings.against !== primary ? "" : name);
  const references = Object.fromEntries(variants.map(([name]) => [keyOf(name), `against ${name}`]));
  const many = variantsOf(experiment, settings.variant);
  const several = many.length > 1 ? { [settings.variant]: `in ${many.length} variants` } : {};
  return (
    <div class="toolbar" role="search">
      <input
        id="search"
        type="search"
        placeholder="Search texts and answers  /"
        aria-label="Search texts and answers"
        value={settings.q}
        onInput={(event) => change({ q: event.currentTarget.value })}
      />
      <Choice label="order" name="sort" options={SORTS} {...props} />
      {experiment.groups.length > 1 && (
        <Choice label="group" name="group" options={{ "": "any group", ...same(experiment.groups) }} {...props} />
      )}
      <Choice label="difficulty" name="level" options={LEVELS} {...props} />
      <Choice
        label="outcome"
        name="outcome"
        options={{ "": "any outcome", ...Object.fromEntries(outcomes.map((each) => [each, OUTCOMES[each]])) }}
        {...props}
      />
      {against && (
        <>
          <Choice label="flipped" name="flip" options={flips(against)} {...props} />
          {settings.flip && <Choice label="flipped against" name="against" options={references} {...props} />}
        </>
      )}
      <Choice
        label="variant"
        name="variant"
        options={{ "": "in any variant", ...several, ...same(variants.map(([name]) => name)) }}
        {...props}
      />
      {(experiment.index.inside || experiment.index.tokens) && (
        <Tick label="with activations" name="inside" {...props} />
      )}
      {rows.t.includes("1") && <Tick label="cut off" name="cut" {...props} />}
      <output>
        {props.searching ||
          `${count(selection.questions.length)} of ${count(questions.length)} questions, ${count(selection.count)} conversations`}
      </output>
      {filtered && <button onClick={() => change({ ...NOTHING, sort: settings.sort })}>clear</button>}
    </div>
  );
}

function Choice(props: Props & { label: string; name: keyof Settings; options: Record<string, string> }) {
  const value = props.settings[props.name];
  return (
    <select
      aria-label={props.label}
      class={value ? "set" : ""}
      value={value}
      onChange={(event) => props.change({ [props.name]: event.currentTarget.value })}
    >
      {Object.entries(props.options).map(([key, text]) => (
        <option value={key}>{visible(text)}</option>
      ))}
    </select>
  );
}

function Tick(props: Props & { label: string; name: "inside" | "cut" }) {
  return (
    <label>
      <input
        type="checkbox"
        checked={props.settings[props.name] !== ""}
        onChange={(event) => props.change({ [props.name]: event.currentTarget.checked ? "1" : "" })}
      />
      {props.label}
    </label>
  );
}

function Legend({ experiment, settings }: Props) {
  const { rows, notes } = experiment.index;
  const against = againstOf(experiment, settings);
  const outcomes = (Object.keys(OUTCOMES) as Outcome[]).filter((outcome) => rows.o.includes(outcome));
  return (
    <footer class="legend">
      {experiment.draws > 1 ? (
        <span>
          {[0, 1, 2, 3, 4].map((part) => (
            <i class={`cell share${part}`} />
          ))}{" "}
          share of draws that are right
        </span>
      ) : (
        outcomes.map((outcome) => (
          <span>
            <i class={`cell o-${outcome}`} /> {OUTCOMES[outcome]}
          </span>
        ))
      )}
      {against && (
        <span title={experiment.draws > 1 ? "a larger or smaller share of the question's draws is right" : "right where the reference is not, or the other way round"}>
          <i class="cell gained" /> gained, <i class="cell lost" /> lost against {visible(against)}
        </span>
      )}
      {rows.t.includes("1") && (
        <span>
          <i class="cell is-cut" /> cut off
        </span>
      )}
      {notes.map((note) => (
        <span class="note">{visible(note)}</span>
      ))}
    </footer>
  );
}

/** Length of what all questions begin with, up to a word; 0 where that is short. */
function commonStart(texts: string[]): number {
  let length = texts.length > 1 ? texts[0].length : 0;
  for (const text of texts) {
    while (!text.startsWith(texts[0].slice(0, length))) length -= 1;
  }
  length = texts.length ? texts[0].lastIndexOf(" ", length - 1) + 1 : 0;
  return length > 16 ? length : 0;
}

function own(text: string, common: number): string {
  return common ? `… ${text.slice(common, common + 200)}` : text.slice(0, 200);
}

/** The variant that flips are against; undefined where there is none. */
function againstOf(experiment: Experiment, settings: Settings): string | undefined {
  return experiment.names.has(settings.against) ? settings.against : experiment.index.variants[experiment.reference]?.[0];
}

function headHeight(frame: HTMLElement): number {
  return frame.querySelector<HTMLElement>(".head")?.offsetHeight ?? 0;
}

function accuracy(experiment: Experiment, variant: number): number {
  const { rows } = experiment.index;
  let [right, graded] = [0, 0];
  for (let row = 0; row < rows.v.length; row++) {
    if (rows.v[row] !== variant || rows.o[row] === "f" || rows.o[row] === "u") continue;
    graded += 1;
    if (rows.o[row] === "r") right += 1;
  }
  return right / graded;
}

function percent(share: number): string {
  return Number.isNaN(share) ? "–" : `${Math.round(share * 100)} %`;
}

function count(number: number): string {
  return number.toLocaleString("en");
}

function same(names: string[]): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, name]));
}
