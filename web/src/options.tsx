// Parameters behind one fold: what the engines say they have, with their defaults.

import type { JSX } from "preact";
import { useEffect, useId, useState } from "preact/hooks";
import type { Engine, Parameter } from "./api";
import { isRecord, keepSetting, setting } from "./kept";

export interface Options {
  engine: string;
  recipe: string;
  variations: number;
  format: string;
  /** Whether the cut-out is shown before a mesh is made of it. */
  asks: boolean;
  values: Record<string, string>;
}

/** Parameters that are asked for first; the others follow. */
const FIRST = ["seed", "octree_resolution", "faces", "size"];
/** With more parameters than this, those that only somebody who knows the engine would change are behind a fold of their own. */
const PLAIN = 6;
const LABELS: Record<string, string> = {
  octree_resolution: "Resolution",
  faces: "Faces",
  seed: "Seed",
  guidance_scale: "Guidance scale",
  size: "Printed size (mm)",
};

const label = (name: string): string => LABELS[name] ?? name[0]!.toUpperCase() + name.slice(1).replaceAll("_", " ");

export const engineOf = (engines: Engine[], options: Options): Engine | undefined =>
  engines.find((engine) => engine.name === options.engine) ?? engines.find((engine) => engine.default) ?? engines[0];

/** What is known of last time. Whatever is not of its kind is as if it were not there. */
function lastTime(): Options {
  const found = setting("options");
  const or = <T,>(value: unknown, otherwise: T): T => (typeof value === typeof otherwise ? (value as T) : otherwise);
  const values = isRecord(found.values) ? Object.entries(found.values).filter(([, value]) => typeof value === "string") : [];
  return {
    engine: or(found.engine, ""),
    recipe: or(found.recipe, ""),
    variations: [1, 2, 3, 4, 5, 6, 7, 8].find((n) => n === found.variations) ?? 1,
    format: or(found.format, "glb"),
    asks: or(found.asks, true),
    values: Object.fromEntries(values) as Record<string, string>,
  };
}

/** The options of last time, as far as they still exist. */
export function useOptions(engines: Engine[]): [Options, (changes: Partial<Options>) => void] {
  const [options, set] = useState<Options>(lastTime);
  useEffect(() => keepSetting("options", options), [options]);
  const engine = engineOf(engines, options);
  const known = { ...options, recipe: engine && options.recipe in engine.recipes ? options.recipe : "" };
  return [known, (changes) => set((before) => ({ ...before, ...changes }))];
}

/** The queries one picture is posted with: one for each variation. */
export function queries(engines: Engine[], options: Options): Record<string, string>[] {
  const engine = engineOf(engines, options);
  if (!engine) return [{}];
  const query: Record<string, string> = { engine: engine.name };
  if (options.recipe) query.recipe = options.recipe;
  for (const parameter of engine.parameters) {
    const value = options.values[parameter.name];
    // Also what is the engine's default: a recipe, or the server's own setting of one, may say otherwise.
    if (parameter.name !== "format" && value) query[parameter.name] = value;
  }
  const seed = engine.parameters.find((parameter) => parameter.name === "seed");
  if (!seed || options.variations < 2) return [query];
  const first = Number(query.seed ?? seed.default);
  return Array.from({ length: options.variations }, (_, i) => ({ ...query, seed: String(first + i) }));
}

/** Bring up the options, at the field that `trouble` names, if it names one. */
export function showOption(engine: Engine | undefined, trouble: string): void {
  const fold = document.querySelector<HTMLDetailsElement>(".fold");
  if (!fold) return;
  fold.open = true;
  const wrong = engine?.parameters.find((parameter) => new RegExp(`\\b${parameter.name}\\b`).test(trouble));
  const field = wrong && fold.querySelector<HTMLElement>(`[data-parameter="${wrong.name}"]`);
  const further = field?.closest<HTMLDetailsElement>(".further");
  if (further) further.open = true;
  (field?.querySelector<HTMLElement>("input, select") ?? fold.querySelector("summary"))?.focus();
}

/** What the server says is wrong with a parameter, with the options called what they are called here. */
export function inWords(engine: Engine | undefined, trouble: string): string {
  for (const { name } of engine?.parameters ?? []) {
    const [found, value, allowed] = new RegExp(`^${name}=(.*?) is not (.*)$`).exec(trouble) ?? [];
    if (found) return `${label(name)} has to be ${allowed}, and is ${value}`;
    trouble = trouble.replace(new RegExp(`\\b${name}(=|(?= is ))`, "g"), (_, equals: string) => label(name) + (equals && " "));
  }
  return trouble;
}

/** What can still be made of a picture that `made` were asked of: what the options say now, else the next seeds, if any. */
export function anew(engines: Engine[], options: Options, made: Record<string, string>[]): Record<string, string>[] {
  const asked = queries(engines, options);
  const seed = engineOf(engines, options)?.parameters.find((parameter) => parameter.name === "seed");
  // How the subject was cut out is the picture's own affair.
  const same = ({ matte, remove_background, ...query }: Record<string, string>) =>
    JSON.stringify(Object.entries({ ...(seed ? { seed: String(seed.default) } : {}), ...query }).sort());
  const known = new Set(made.map(same));
  const fresh = asked.filter((query) => !known.has(same(query)));
  if (fresh.length || !seed) return fresh;
  const last = Math.max(...made.map((query) => Number(query.seed ?? seed.default)));
  return asked.map((query, i) => ({ ...query, seed: String(last + 1 + i) }));
}

/** How an engine is told that a picture is cut out already. */
export const cutAlready = (engine: Engine | undefined): Record<string, string> =>
  engine?.parameters.some((p) => p.name === "matte") ?? true ? { matte: "alpha" } : { remove_background: "false" };

export function Fold(props: { engines: Engine[]; options: Options; change: (changes: Partial<Options>) => void }) {
  const { engines, options, change } = props;
  const engine = engineOf(engines, options);
  if (!engine) return null;
  const rank = (p: Parameter) => (FIRST.includes(p.name) ? FIRST.indexOf(p.name) : FIRST.length);
  const shown = engine.parameters.filter((p) => p.name !== "format" && p.name !== "matte").sort((a, b) => rank(a) - rank(b));
  const recipes = Object.keys(engine.recipes);
  const recipe = engine.recipes[options.recipe || (engine.recipe ?? "")];
  const changedBy = (some: Parameter[]) => some.filter((p) => options.values[p.name] && options.values[p.name] !== usual(p, recipe)).length;
  const changed = (some: Parameter[]) => (changedBy(some) > 0 ? `, ${changedBy(some)} changed` : "");
  const plain = shown.filter((p) => shown.length <= PLAIN || FIRST.includes(p.name));
  const further = shown.filter((p) => !plain.includes(p));
  const field = (p: Parameter) => (
    <Field key={`${engine.name} ${p.name}`} parameter={p} value={options.values[p.name] ?? ""} recipe={recipe}
      change={(value) => change({ values: { ...options.values, [p.name]: value } })} />
  );
  return (
    <details class="fold">
      <summary>
        Options <span class="quiet">{engine.name}{options.recipe && `, ${options.recipe}`}{changed(shown)}</span>
      </summary>
      <div class="fields">
        <Labelled name="Engine" help={engine.help}>
          {(own) => (
            <select {...own} value={engine.name} onChange={(e) => change({ engine: e.currentTarget.value })}>
              {engines.map((e) => <option key={e.name} value={e.name}>{e.name}</option>)}
            </select>
          )}
        </Labelled>
        {recipes.length > 0 && (
          <Labelled name="Recipe" help="values for all parameters under one name: quicker or more careful">
            {(own) => (
              <select {...own} value={options.recipe} onChange={(e) => change({ recipe: e.currentTarget.value })}>
                <option value="">the server's own{engine.recipe && `: ${engine.recipe}`}</option>
                {recipes.map((name) => <option key={name} value={name}>{name}</option>)}
              </select>
            )}
          </Labelled>
        )}
        {plain.map(field)}
        {engine.parameters.some((p) => p.name === "seed") && (
          <Labelled name="Variations" help="meshes of one picture, each with the next seed">
            {(own) => (
              <input {...own} type="number" min={1} max={8} step={1} value={options.variations}
                onInput={(e) => e.currentTarget.validity.valid && e.currentTarget.value && change({ variations: e.currentTarget.valueAsNumber })} />
            )}
          </Labelled>
        )}
        {engine.stages.includes("matte") && (
          <Labelled name="Cut-out" help="whether you see what is left of the picture before a mesh is made of it">
            {(own) => (
              <select {...own} value={options.asks ? "asks" : "goes on"} onChange={(e) => change({ asks: e.currentTarget.value === "asks" })}>
                <option value="asks">show it first</option>
                <option value="goes on">go on by itself</option>
              </select>
            )}
          </Labelled>
        )}
        <Labelled name="Format" help="which file is offered first; the others stay beside it">
          {(own) => (
            <select {...own} value={options.format} onChange={(e) => change({ format: e.currentTarget.value })}>
              {Object.keys(engine.formats).map((name) => <option key={name} value={name}>{name.toUpperCase()}</option>)}
            </select>
          )}
        </Labelled>
      </div>
      {further.length > 0 && (
        <details class="further">
          <summary>{further.length} more parameters of {engine.name}<span class="quiet">{changed(further)}</span></summary>
          <div class="fields">{further.map(field)}</div>
        </details>
      )}
      <button type="button" class="plain" onClick={() => change({ engine: "", recipe: "", variations: 1, format: "glb", asks: true, values: {} })}>
        Back to the defaults
      </button>
    </details>
  );
}

/** A field under its name, and what it is for, which is told after the name and not as a part of it. */
function Labelled(props: { name: string; help: string; title?: string; wrong?: boolean; parameter?: string; children: (own: { id: string; "aria-describedby": string }) => JSX.Element }) {
  const id = useId();
  return (
    <div class="field" title={props.title} data-parameter={props.parameter}>
      <label for={id}>{props.name}</label>
      {props.children({ id, "aria-describedby": `${id}-help` })}
      <small id={`${id}-help`} class={props.wrong ? "problem" : undefined}>{props.help}</small>
    </div>
  );
}

/** What a parameter is where nobody says. recipe : the one that is chosen, or the server's own */
const usual = (parameter: Parameter, recipe: Record<string, unknown> | undefined): string => String(recipe?.[parameter.name] ?? parameter.default);

/** Whether only whole numbers are allowed. */
const whole = (parameter: Parameter): boolean => Number.isInteger(parameter.default) && !/^a number/.test(parameter.allowed);

/** Whether the server would refuse what was typed. */
function refused(parameter: Parameter, value: string): boolean {
  if (!value || typeof parameter.default !== "number") return false;
  const number = Number(value);
  return !(number >= (parameter.low ?? -Infinity) && number <= (parameter.high ?? Infinity)) || (whole(parameter) && !Number.isInteger(number));
}

function Field(props: { parameter: Parameter; value: string; recipe: Record<string, unknown> | undefined; change: (value: string) => void }) {
  const { parameter: p, value, recipe, change } = props;
  const standard = usual(p, recipe);
  const choices = p.choices ?? [];
  const numeric = typeof p.default === "number";
  const wrong = refused(p, value);
  return (
    <Labelled name={label(p.name)} help={wrong ? `It has to be ${p.allowed}.` : p.help} title={p.allowed} wrong={wrong} parameter={p.name}>
      {(own) => choices.length > 0 ? (
        <select {...own} value={value || standard} onChange={(e) => change(e.currentTarget.value)}>
          {choices.map((choice) => <option key={choice} value={choice}>{choice}</option>)}
        </select>
      ) : (
        // At once: who drops a picture right after typing has not left the field.
        <input {...own} type={numeric ? "number" : "text"} placeholder={standard} value={value} min={p.low ?? undefined} max={p.high ?? undefined}
          step={numeric && whole(p) ? 1 : "any"} aria-invalid={wrong || undefined} onInput={(e) => change(e.currentTarget.value)} />
      )}
    </Labelled>
  );
}
