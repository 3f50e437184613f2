// Numbers and provenance in plain words.

import type { Engine, Generation, Stage } from "./api";

export function seconds(value: number): string {
  if (value === 0) return "0 s";
  if (value < 0.0995) return `${Number((value * 1000).toPrecision(2))} ms`;
  if (value < 90) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${(value / 3600).toFixed(1)} h`;
  return `${(value / 86400).toFixed(1)} days`;
}

export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  let rest = value;
  while (rest >= 999.5 && at < units.length - 1) {
    rest /= 1000;
    at += 1;
  }
  return `${at && rest < 9.95 ? rest.toFixed(1) : Math.round(rest)} ${units[at]}`;
}

export const count = (value: number): string => Math.round(value).toLocaleString("en").replaceAll(",", " ");

/** What a stage is doing, for people. */
export const DOING: Record<string, string> = {
  read: "reading the picture",
  matte: "cutting out the subject",
  cutout: "showing what is left of the picture",
  inflate: "blowing up the silhouette",
  encode: "looking at it",
  sample: "imagining the shape",
  decode: "carving the surface",
  finish: "cleaning the mesh",
  export: "painting and packing",
  call: "asking an upstream server",
};

/** A stage in a word or two, for who does not know its name. */
const STEP: Record<string, string> = {
  read: "Picture",
  matte: "Cut-out",
  cutout: "Preview",
  inflate: "Shape",
  encode: "Understanding",
  sample: "Shape",
  decode: "Surface",
  finish: "Clean-up",
  export: "Colours and file",
  call: "Other server",
};

export const stepOf = (stage: string): string => STEP[stage] ?? stage.replaceAll("_", " ");

/** What a stage's artifact is. */
const THING: Record<string, string> = {
  read: "the picture",
  matte: "the cut-out",
  inflate: "the shape",
  encode: "the picture's tokens",
  sample: "the latents",
  decode: "the surface",
  finish: "the mesh",
  export: "the file",
};

const AGAIN: Record<string, string> = { decode: "decoded again", export: "packed again", finish: "cleaned again", sample: "sampled again" };

export const computed = (stage: Stage): boolean => stage.source === "computed" && !stage.joined;

/** An answer with the cut-out's own making in it: what was computed to be looked at first was no gift of the store. */
export function withCut(document: Generation, cut: Stage[]): Generation {
  const stages = document.stages ?? [];
  const before = new Map(cut.filter(computed).map((stage) => [stage.stage, stage]));
  if (!before.size || !stages.some(computed)) return document;
  const spent = [...before.values()].reduce((sum, stage) => sum + stage.seconds, 0);
  return { ...document, stages: stages.map((stage) => before.get(stage.stage) ?? stage), saved_seconds: Math.max(0, (document.saved_seconds ?? 0) - spent) };
}

/** Where the store had it. */
export const where = (source: string | null): string => (source === "disk" ? "on disk" : source ? `in ${source}` : "");

/** Where an answer came from and what that was worth. answered : milliseconds until it was here, when it was stored */
export function provenance(document: Generation, engine: Engine | undefined, answered: number | null): string {
  const stages = document.stages ?? [];
  const saved = document.saved_seconds ?? 0;
  const worth = saved >= 0.0005 ? `; saved ${seconds(saved)}` : "";
  const ran = stages.filter(computed);
  const joined = stages.some((stage) => stage.joined);
  const found = stages.filter((stage) => stage.source && stage.source !== "computed");
  const last = found.at(-1);
  const took = ran.reduce((sum, stage) => sum + stage.seconds, 0);
  if (!ran.length && joined) return `Somebody was making the same at that moment: you shared the work${worth}`;
  if (!ran.length && last) {
    const quick = answered === null ? "" : ` in ${seconds(answered / 1000)}`;
    return `Served from ${last.source}${quick}${worth}`;
  }
  if (last && ran.length) {
    const first = ran.find((stage) => stages.indexOf(stage) > stages.indexOf(last)) ?? ran[0]!;
    const resolution = first.stage === "decode" ? used(document, engine, "octree_resolution") : null;
    const again = AGAIN[first.stage] ?? "the rest computed";
    const when = last.made ? ` of ${day(last.made)}` : "";
    return `Reused ${THING[last.stage] ?? last.stage}${when} from ${last.source}, ${again}${resolution ? ` at ${resolution}` : ""} in ${seconds(took)}${worth}`;
  }
  return `Made from nothing in ${seconds(took)} of computing${worth}`;
}

/** What a parameter was of a generation: what was asked, else what its recipe says, else the engine. */
export const used = (document: Generation, engine: Engine | undefined, name: string): unknown =>
  document.parameters[name] ?? engine?.recipes[document.recipe ?? ""]?.[name] ?? engine?.parameters.find((p) => p.name === name)?.default;

/** A day near enough to be called by its name. at : seconds since 1970 */
function day(at: number): string {
  const made = new Date(at * 1000);
  if (made.toDateString() === new Date().toDateString()) return "today";
  const near = Date.now() / 1000 - at < 6 * 86400;
  return made.toLocaleDateString("en", near ? { weekday: "long" } : { day: "numeric", month: "long", year: "numeric" });
}

/** How long ago, roughly. at : seconds since 1970 */
export function ago(at: number): string {
  const passed = Math.max(0, Date.now() / 1000 - at);
  if (passed < 60) return "just now";
  if (passed < 86400) return `${seconds(passed)} ago`;
  return new Date(at * 1000).toLocaleDateString("en", { weekday: "long", day: "numeric", month: "short" });
}
