// Addresses: the part behind # says what is shown, so that it can be shared.
//
//   #?sort=hard&flip=any            the grid with its settings
//   #?variant=joy&flip=any&against=control
//   #?variant=joy&inside=1&layer=12 those with activations, which open with these at layer 12
//   #filler+joy/sum_0003-d2         variants side by side, here of the second draw
//   #steering/joy/add-all/L12/d0.4/control/sum_0003-d2

export interface GridPlace {
  view: "grid";
  params: URLSearchParams;
}

export interface ComparePlace {
  view: "compare";
  variants: string[];
  sample: string;
  params: URLSearchParams;
}

export interface SteeringPlace {
  view: "steering";
  direction: string;
  edit: string;
  layers: string;
  dose: string;
  variant: string;
  sample: string;
}

export type Place = GridPlace | ComparePlace | SteeringPlace;

export function parse(hash: string): Place {
  const text = hash.replace(/^#/, "");
  const mark = text.indexOf("?");
  const path = mark < 0 ? text : text.slice(0, mark);
  const params = new URLSearchParams(mark < 0 ? "" : text.slice(mark + 1));
  const parts = path.split("/").filter(Boolean);
  if (parts[0] === "steering") {
    const [, direction = "", edit = "", layers = "", dose = "", variant = "", sample = ""] = parts.map(decoded);
    return { view: "steering", direction, edit, layers, dose, variant, sample };
  }
  if (parts.length >= 2) {
    return { view: "compare", variants: namesOf(parts[0]), sample: decoded(parts[1]), params };
  }
  return { view: "grid", params };
}

/** Names of variants, joined in an address. */
export function namesOf(joined: string): string[] {
  return joined.split("+").map(decoded);
}

export function compareAddress(variants: string[], sample: string, params?: URLSearchParams): string {
  const search = params?.toString();
  return `#${variants.map(encodeURIComponent).join("+")}/${encodeURIComponent(sample)}${search ? `?${search}` : ""}`;
}

export function gridAddress(params: URLSearchParams): string {
  const search = params.toString();
  return search ? `#?${search}` : "#";
}

export function steeringAddress(place: Omit<SteeringPlace, "view">): string {
  const { direction, edit, layers, dose, variant, sample } = place;
  return `#steering/${[direction, edit, layers, dose, variant, sample].map(encodeURIComponent).join("/")}`;
}

export function sampleName(id: string, draw: number): string {
  return draw === 1 ? id : `${id}-d${draw}`;
}

/** The question's id and the draw of a sample's folder. */
export function splitSample(name: string, known: (id: string) => boolean): [string, number] {
  const match = /^(.+)-d(\d+)$/.exec(name);
  return known(name) || !match ? [name, 1] : [match[1], Number(match[2])];
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
