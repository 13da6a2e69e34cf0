// The page: a bar with the views, and the view that the address names.

import { render } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { gridAddress, parse } from "./address";
import { Compare } from "./compare";
import { Experiment, type Index, loaded } from "./data";
import { paramsOf, select, type Settings, settingsOf } from "./filters";
import { Grid } from "./grid";
import { search } from "./search";
import { Steering } from "./steering";
import { visible } from "./text";

const THEMES = ["light dark", "light", "dark"];
const THEME_NAMES = ["as the system", "light", "dark"];

const KEYS: [string, string][] = [
  ["?", "this help"],
  ["/", "search"],
  ["g, Escape", "back to the grid"],
  ["arrows, j, k", "grid: move; side by side: next question, question before"],
  ["Enter", "open the chosen cell"],
  ["v, V", "side by side: next variant, variant before, in the last column"],
  ["r", "next draw"],
  ["d", "mark differences or not"],
  ["t", "unfold or fold thoughts"],
  ["i", "show or hide activations"],
  ["l", "light, dark, as the system"],
];

function App({ experiment }: { experiment: Experiment }) {
  const [place, setPlace] = useState(() => parse(location.hash));
  const [settings, setSettings] = useState<Settings>(() => settingsOf(place.view === "grid" ? place.params : new URLSearchParams()));
  const [hits, setHits] = useState<Uint8Array | null>(null);
  /** What stands in place of the counts; empty: the counts. */
  const [searching, setSearching] = useState("");
  const [help, setHelp] = useState(false);
  const [thoughts, setThoughts] = useState(false);
  const [diff, setDiff] = useState(true);
  const [theme, setTheme] = useState(() => Number(remembered("theme") ?? 0));
  const latest = useRef(0);

  useEffect(() => {
    const onChange = () => {
      const next = parse(location.hash);
      setPlace(next);
      if (next.view === "grid") setSettings(settingsOf(next.params));
    };
    addEventListener("hashchange", onChange);
    return () => removeEventListener("hashchange", onChange);
  }, []);
  useEffect(() => {
    document.documentElement.style.colorScheme = THEMES[theme] ?? THEMES[0];
    remember("theme", String(theme));
  }, [theme]);
  useEffect(() => {
    const turn = ++latest.current;
    if (!settings.q.trim()) {
      setHits(null);
      setSearching("");
      return;
    }
    setSearching("searching …");
    search(experiment, settings.q).then(
      (found) => {
        if (turn !== latest.current) return;
        setHits(found);
        setSearching("");
      },
      (error: Error) => {
        if (turn !== latest.current) return;
        setHits(new Uint8Array(experiment.index.rows.q.length));
        setSearching(error.message);
      },
    );
  }, [settings.q]);
  const title = place.view === "grid" ? "" : place.view === "compare" ? `${place.variants.join(", ")}, ${place.sample} · ` : "steering · ";
  useEffect(() => {
    document.title = `${title}${experiment.index.experiment} · Explorer`;
    if (place.view !== "grid") scrollTo(0, 0);
  }, [title]);

  const selection = useMemo(() => select(experiment, settings, settings.q.trim() ? hits : null), [settings, hits]);
  const grid = gridAddress(paramsOf(settings));
  const change = (changes: Partial<Settings>) => {
    const next = { ...settings, ...changes };
    setSettings(next);
    history.replaceState(null, "", gridAddress(paramsOf(next)));
  };

  // Before the next event: a key acts on what is shown.
  useLayoutEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.metaKey || event.ctrlKey || event.altKey) return;
      const typing = (event.target as HTMLElement).closest("input:not([type=range]):not([type=checkbox]), select, textarea") as HTMLElement | null;
      if (event.key === "Escape") {
        if (help) setHelp(false);
        else if (typing) typing.blur();
        else if (place.view !== "grid") location.hash = grid;
        return;
      }
      if (typing) return;
      if (event.key === "?") setHelp(!help);
      else if (event.key === "g") location.hash = grid;
      else if (event.key === "d") setDiff(!diff);
      else if (event.key === "t") setThoughts(!thoughts);
      else if (event.key === "l") setTheme((theme + 1) % THEMES.length);
      else if (event.key === "/") {
        const focus = () => document.getElementById("search")?.focus();
        if (place.view === "grid") focus();
        else {
          location.hash = grid;
          // The grid has its field once it has been rendered.
          setTimeout(() => requestAnimationFrame(() => setTimeout(focus)));
        }
      } else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  });

  const { index } = experiment;
  return (
    <>
      <nav class="bar">
        <h1>{visible(index.experiment)}</h1>
        {index.model && <span class="model">{visible(index.model)}</span>}
        <a href={grid} aria-current={place.view === "grid" ? "page" : undefined}>
          Questions
        </a>
        {index.steering && (
          <a href="#steering" aria-current={place.view === "steering" ? "page" : undefined}>
            Steering
          </a>
        )}
        <a href="../report.html">Report</a>
        <span class="space" />
        {place.view !== "grid" && (
          <>
            <button aria-pressed={diff} onClick={() => setDiff(!diff)} title="mark differences between the answers (d)">
              differences
            </button>
            <button aria-pressed={thoughts} onClick={() => setThoughts(!thoughts)} title="unfold thoughts (t)">
              thoughts
            </button>
          </>
        )}
        <button onClick={() => setTheme((theme + 1) % THEMES.length)} title={`colours: ${THEME_NAMES[theme]} (l)`} aria-label="colours">
          ◐
        </button>
        <button onClick={() => setHelp(true)} title="keys (?)" aria-label="help">
          ?
        </button>
      </nav>
      {place.view === "grid" ? (
        <Grid experiment={experiment} settings={settings} selection={selection} searching={searching} change={change} />
      ) : place.view === "steering" && index.steering ? (
        <Steering experiment={experiment} steering={index.steering} place={place} thoughts={thoughts} diff={diff} />
      ) : place.view === "compare" ? (
        <Compare experiment={experiment} place={place} order={selection.questions} thoughts={thoughts} diff={diff} />
      ) : (
        <main class="compare">
          <p class="nothing">
            Nothing was steered in this experiment. <a href={grid}>Show all questions</a>
          </p>
        </main>
      )}
      {help && <Help close={() => setHelp(false)} />}
    </>
  );
}

function Help({ close }: { close(): void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current!.showModal(), []);
  return (
    <dialog ref={dialog} onClose={close} onClick={(event) => event.target === dialog.current && close()} aria-label="help">
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([key, text]) => (
          <>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{text}</dd>
          </>
        ))}
      </dl>
      <p>
        A cell is one conversation, coloured by its outcome. A bar at its left says that the outcome differs from that of
        the reference on the same question. The address of the page names what is shown: copy it to share it.
      </p>
      <p>
        Search finds conversations whose question, text of the variant or answer have words that begin with each of the
        words that you type.
      </p>
      <button onClick={close}>Close</button>
    </dialog>
  );
}

function remembered(key: string): string | null {
  try {
    return localStorage.getItem(`emoprobe-explorer-${key}`);
  } catch {
    return null; // some browsers keep nothing for pages from a file system
  }
}

function remember(key: string, value: string): void {
  try {
    localStorage.setItem(`emoprobe-explorer-${key}`, value);
  } catch {
    // see above
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const root = document.getElementById("app")!;
  root.textContent = "";
  const index = loaded<Index>("index");
  if (index) render(<App experiment={new Experiment(index)} />, root);
  else root.textContent = "data/index.js is missing or damaged; make the explorer again.";
});
