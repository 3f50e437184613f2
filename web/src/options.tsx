// Parameters behind one fold: what the engines say they have, with their defaults.

import { useEffect, useState } from "preact/hooks";
import type { Engine, Parameter } from "./api";
import { keepSetting, setting } from "./kept";

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
const FIRST = ["seed", "octree_resolution", "faces"];
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

/** The options of last time, as far as they still exist. */
export function useOptions(engines: Engine[]): [Options, (changes: Partial<Options>) => void] {
  const [options, set] = useState<Options>(() => ({
    ...{ engine: "", recipe: "", variations: 1, format: "glb", asks: true, values: {} },
    ...setting<Partial<Options>>("options", {}),
  }));
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
    if (parameter.name !== "format" && value !== undefined && value !== "" && value !== String(parameter.default)) {
      query[parameter.name] = value;
    }
  }
  const seed = engine.parameters.find((parameter) => parameter.name === "seed");
  if (!seed || options.variations < 2) return [query];
  const first = Number(query.seed ?? seed.default);
  return Array.from({ length: options.variations }, (_, i) => ({ ...query, seed: String(first + i) }));
}

export function Fold(props: { engines: Engine[]; options: Options; change: (changes: Partial<Options>) => void }) {
  const { engines, options, change } = props;
  const engine = engineOf(engines, options);
  if (!engine) return null;
  const rank = (p: Parameter) => (FIRST.includes(p.name) ? FIRST.indexOf(p.name) : FIRST.length);
  const shown = engine.parameters.filter((p) => p.name !== "format" && p.name !== "matte").sort((a, b) => rank(a) - rank(b));
  const recipes = Object.keys(engine.recipes);
  const changedBy = shown.filter((p) => (options.values[p.name] ?? "") !== "" && options.values[p.name] !== String(p.default)).length;
  return (
    <details class="fold">
      <summary>
        Options <span class="quiet">{engine.name}{options.recipe && `, ${options.recipe}`}{changedBy > 0 && `, ${changedBy} changed`}</span>
      </summary>
      <div class="fields">
        <label>
          Engine
          <select value={engine.name} onChange={(e) => change({ engine: e.currentTarget.value })}>
            {engines.map((e) => <option key={e.name} value={e.name}>{e.name}</option>)}
          </select>
          <small>{engine.help}</small>
        </label>
        {recipes.length > 0 && (
          <label>
            Recipe
            <select value={options.recipe} onChange={(e) => change({ recipe: e.currentTarget.value })}>
              <option value="">the engine's defaults</option>
              {recipes.map((name) => <option key={name} value={name}>{name}</option>)}
            </select>
            <small>a name for a setting of parameters</small>
          </label>
        )}
        {shown.map((p) => (
          <Field key={`${engine.name} ${p.name}`} parameter={p} value={options.values[p.name] ?? ""} recipe={engine.recipes[options.recipe]}
            change={(value) => change({ values: { ...options.values, [p.name]: value } })} />
        ))}
        {engine.parameters.some((p) => p.name === "seed") && (
          <label>
            Variations
            <input type="number" min={1} max={8} step={1} value={options.variations}
              onChange={(e) => change({ variations: Math.min(8, Math.max(1, Math.round(e.currentTarget.valueAsNumber || 1))) })} />
            <small>meshes of one picture, each with the next seed</small>
          </label>
        )}
        {engine.stages.includes("matte") && (
          <label>
            Cut-out
            <select value={options.asks ? "asks" : "goes on"} onChange={(e) => change({ asks: e.currentTarget.value === "asks" })}>
              <option value="asks">show it first</option>
              <option value="goes on">go on by itself</option>
            </select>
            <small>whether you see what is left of the picture before a mesh is made of it</small>
          </label>
        )}
        <label>
          Format
          <select value={options.format} onChange={(e) => change({ format: e.currentTarget.value })}>
            {Object.keys(engine.formats).map((name) => <option key={name} value={name}>{name.toUpperCase()}</option>)}
          </select>
          <small>the download that stands first; all can be had</small>
        </label>
      </div>
      <button type="button" class="plain" onClick={() => change({ recipe: "", variations: 1, format: "glb", asks: true, values: {} })}>
        Back to the defaults
      </button>
    </details>
  );
}

function Field(props: { parameter: Parameter; value: string; recipe: Record<string, unknown> | undefined; change: (value: string) => void }) {
  const { parameter: p, value, recipe, change } = props;
  const usual = String(recipe?.[p.name] ?? p.default);
  const choices = p.choices ?? [];
  const numeric = typeof p.default === "number";
  return (
    <label title={p.allowed}>
      {label(p.name)}
      {choices.length > 0 ? (
        <select value={value || usual} onChange={(e) => change(e.currentTarget.value)}>
          {choices.map((choice) => <option key={choice} value={choice}>{choice}</option>)}
        </select>
      ) : (
        <input type={numeric ? "number" : "text"} placeholder={usual} value={value} min={p.low ?? undefined} max={p.high ?? undefined}
          step={numeric && Number.isInteger(p.default) && !/^a number/.test(p.allowed) ? 1 : "any"} onChange={(e) => change(e.currentTarget.value)} />
      )}
      <small>{p.help}</small>
    </label>
  );
}
