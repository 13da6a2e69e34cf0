// Inside: projections of activations on directions, by position and layer.

import { useEffect, useMemo, useState } from "preact/hooks";
import { type Experiment, type Inside, load, type Tokens } from "./data";
import { visible } from "./text";

type Entry = [row: number, values: string, spans: ([number, number, number] | null)[]];

interface Scale {
  means: number[];
  deviations: number[];
}

type TokenEntry = [row: number, values: string, texts: string[]];

interface TokenProjection {
  values: Int8Array;
  texts: string[];
}

interface Projection {
  values: Int8Array;
  spans: Entry[2];
}

export interface InsideState {
  there: boolean;
  open: boolean;
  toggle(): void;
  index: Inside;
  /** Numbers of the direction, the hook point and the layer that are shown. */
  direction: number;
  hook: number;
  layer: number;
  change(what: "direction" | "hook" | "layer" | "token", value: number): void;
  rows: Map<number, Projection> | string | undefined;
  scale: Scale | undefined;
  tokens: Tokens | null;
  /** Number of the direction that tokens are coloured by. */
  token: number;
  tokenRows: Map<number, TokenProjection> | undefined;
}

/** Settings and data of the panels; the settings are part of the address. */
export function useInside(experiment: Experiment, question: number, params: URLSearchParams): InsideState {
  const index = experiment.index.inside;
  const pages = useMemo(() => new Map(index?.pages ?? []), [index]);
  const page = pages.get(question) ?? -1;
  const tokens = experiment.index.tokens;
  const tokenPage = useMemo(() => new Map(tokens?.pages ?? []), [tokens]).get(question) ?? -1;
  const there = index !== null || tokens !== null;
  const open = params.has("inside") && there;
  const [tokenRows, setTokenRows] = useState<Map<number, TokenProjection> | undefined>();
  const [rows, setRows] = useState<Map<number, Projection> | string | undefined>();
  const [scale, setScale] = useState<Scale | undefined>();

  useEffect(() => {
    let current = true;
    setRows(undefined);
    if (!open || page < 0) return;
    Promise.all([load<Entry[]>(`a${page}`), load<Scale>("scale")]).then(
      ([entries, found]) => {
        if (!current) return;
        setRows(new Map(entries.map(([row, values, spans]) => [row, { values: numbers(values), spans }])));
        setScale(found);
      },
      (error: Error) => current && setRows(error.message),
    );
    return () => {
      current = false;
    };
  }, [open, page]);

  useEffect(() => {
    let current = true;
    setTokenRows(undefined);
    if (!open || tokenPage < 0) return;
    load<TokenEntry[]>(`k${tokenPage}`).then(
      (entries) => {
        if (current) setTokenRows(new Map(entries.map(([row, values, texts]) => [row, { values: numbers(values), texts }])));
      },
      (error: Error) => current && setRows(error.message),
    );
    return () => {
      current = false;
    };
  }, [open, tokenPage]);

  const set = (changes: Record<string, string | null>) => {
    const next = new URLSearchParams(params);
    for (const [key, value] of Object.entries(changes)) {
      if (value === null) next.delete(key);
      else next.set(key, value);
    }
    const search = next.toString().replace(/inside=(?=&|$)/, "inside");
    const path = location.hash.replace(/\?.*/, "");
    // Moving the slider makes no entry in the history.
    const address = search ? `${path}?${search}` : path;
    history.replaceState(null, "", address);
    dispatchEvent(new HashChangeEvent("hashchange"));
  };
  const known = index ?? EMPTY;
  const layer = known.layers.indexOf(Number(params.get("layer") ?? NaN));
  return {
    there,
    open,
    toggle: () => set(open ? { inside: null, layer: null, direction: null, hook: null, token: null } : { inside: "" }),
    index: known,
    direction: Math.max(0, known.directions.findIndex(([name]) => name === params.get("direction"))),
    hook: Math.max(0, known.hooks.indexOf(params.get("hook") ?? "")),
    layer: layer < 0 ? Math.floor(known.layers.length / 2) : layer,
    change: (what, value) =>
      set({
        [what]: {
          direction: known.directions[value]?.[0],
          hook: known.hooks[value],
          layer: String(known.layers[value]),
          token: tokens?.directions[value]?.[0],
        }[what]!,
      }),
    rows: page < 0 ? new Map() : rows,
    scale,
    tokens,
    token: Math.max(0, tokens?.directions.findIndex(([name]) => name === params.get("token")) ?? 0),
    tokenRows,
  };
}

const EMPTY: Inside = { rows: "", directions: [], hooks: [], layers: [], positions: [], n: 0, step: 1, pages: [] };

export function InsideControls({ inside }: { inside: InsideState }) {
  const { index, tokens } = inside;
  return (
    <div class="inside-controls">
      {index.positions.length > 0 && <PositionControls inside={inside} />}
      {tokens && (
        <label title={`${tokens.hook}, layer ${tokens.layer}`}>
          tokens by{" "}
          <select value={inside.token} onChange={(event) => inside.change("token", Number(event.currentTarget.value))}>
            {tokens.directions.map(([name], place) => (
              <option value={place}>{visible(name)}</option>
            ))}
          </select>
        </label>
      )}
      <span class="ramp" aria-hidden="true">
        −3 <i /> +3 sd
      </span>
      {index.positions.length > 0 && (
        <p class="quiet">
          {visible(index.directions[inside.direction]?.[1] ?? "")}, fitted at each position. Colours show the projection as
          its distance from the mean of all {index.n} captured conversations at the same position and layer, in standard
          deviations. The direction was fitted on conversations of this experiment: this describes, and tests nothing.
        </p>
      )}
      {tokens && (
        <p class="quiet">
          Tokens at layer {tokens.layer}: {visible(tokens.directions[inside.token][1])}; distance from the mean of all tokens, in
          standard deviations.
        </p>
      )}
    </div>
  );
}

function PositionControls({ inside }: { inside: InsideState }) {
  const { index } = inside;
  return (
    <>
      <label>
        direction{" "}
        <select value={inside.direction} onChange={(event) => inside.change("direction", Number(event.currentTarget.value))}>
          {index.directions.map(([name], place) => (
            <option value={place}>{visible(name)}</option>
          ))}
        </select>
      </label>
      <label>
        hook point{" "}
        <select value={inside.hook} onChange={(event) => inside.change("hook", Number(event.currentTarget.value))}>
          {index.hooks.map((name, place) => (
            <option value={place}>{visible(name)}</option>
          ))}
        </select>
      </label>
      <label class="layer">
        layer{" "}
        <input
          type="range"
          min={0}
          max={index.layers.length - 1}
          value={inside.layer}
          onInput={(event) => inside.change("layer", Number(event.currentTarget.value))}
        />
        <output>{index.layers[inside.layer]}</output>
      </label>
    </>
  );
}

export function InsidePanel({ inside, row }: { inside: InsideState; row: number }) {
  const tokens = inside.tokenRows?.get(row);
  return (
    <section class="inside">
      {inside.index.positions.length > 0 && <Positions inside={inside} row={row} />}
      {tokens && <TokenStrip inside={inside} projection={tokens} />}
      {inside.tokens && inside.tokenRows && !tokens && <p class="quiet">Its tokens were not captured, or are not here.</p>}
    </section>
  );
}

function TokenStrip({ inside, projection }: { inside: InsideState; projection: TokenProjection }) {
  const { step, directions } = inside.tokens!;
  const count = projection.texts.length;
  return (
    <div class="tokens" dir="auto" tabIndex={0} role="group" aria-label={`tokens, ${directions[inside.token][0]}`}>
      {projection.texts.map((text, place) => {
        const value = projection.values[inside.token * count + place] / step;
        return (
          <span style={colour(value)} title={`token ${place}: ${signed(value)} sd`}>
            {visible(text).replaceAll("\n", "⏎\n")}
          </span>
        );
      })}
    </div>
  );
}

function Positions({ inside, row }: { inside: InsideState; row: number }) {
  const { index, rows, direction, hook } = inside;
  if (typeof rows === "string") return <p class="quiet">{rows}</p>;
  const projection = rows?.get(row);
  if (!projection) return <p class="quiet">{rows ? "Its activations were not captured, or are not here." : "…"}</p>;
  const [layers, positions] = [index.layers.length, index.positions.length];
  const at = (layer: number, position: number) => ((direction * index.hooks.length + hook) * layers + layer) * positions + position;
  const value = (layer: number, position: number) => projection.values[at(layer, position)] / index.step;
  const empty = (position: number) => projection.spans[position]?.[2] === 1;
  const raw = (layer: number, position: number) => {
    const place = at(layer, position);
    const { means, deviations } = inside.scale!;
    return (means[place] + value(layer, position) * deviations[place]).toPrecision(3);
  };
  return (
    <div style={{ "--positions": positions }}>
      <h4>inside, layer {index.layers[inside.layer]}</h4>
      <div class="positions">
        {index.positions.map((name, position) => {
          const span = projection.spans[position];
          const tokens = !span ? "" : span[1] - span[0] === 1 ? `token ${span[0]}` : `tokens ${span[0]}–${span[1] - 1}`;
          return (
            <span
              class="position"
              style={empty(position) ? undefined : colour(value(inside.layer, position))}
              title={empty(position) ? `${name}: this part of the conversation is empty` : `${name}, ${tokens}: projection ${raw(inside.layer, position)}`}
            >
              <b>{empty(position) ? "–" : signed(value(inside.layer, position))}</b>
              <small>{visible(name.replaceAll("_", " "))}</small>
            </span>
          );
        })}
      </div>
      <div class="layers" role="img" aria-label="projection by layer and position, the last layer on top">
        {index.layers.map((_, place) => {
          const layer = layers - 1 - place;
          return (
            <div
              class={`layer-line${layer === inside.layer ? " chosen" : ""}`}
              title={`layer ${index.layers[layer]}`}
              onClick={() => inside.change("layer", layer)}
            >
              {index.positions.map((name, position) => (
                <i style={empty(position) ? undefined : colour(value(layer, position))} title={`layer ${index.layers[layer]}, ${name}: ${signed(value(layer, position))} sd`} />
              ))}
            </div>
          );
        })}
      </div>
    </div>
  );
}

/** A colour for a value in standard deviations: blue below 0, orange above. */
function colour(value: number): { background: string } {
  const share = Math.min(1, Math.abs(value) / 3);
  const side = value < 0 ? "--below" : "--above";
  return { background: `color-mix(in oklab, var(${side}) ${Math.round(share * 85)}%, var(--neutral))` };
}

function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
}

function numbers(encoded: string): Int8Array {
  return Int8Array.from(atob(encoded), (character) => (character.charCodeAt(0) << 24) >> 24);
}
