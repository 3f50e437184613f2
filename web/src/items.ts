// The queue of this browser: one item for each picture (and variation), and what is known of it. Kept over refreshes,
// and the same in all tabs.

import { useLayoutEffect, useState } from "preact/hooks";
import type { Generation, Stage, State } from "./api";
import { dropItem, isRecord, keepItem, keptItem, keptItems, onOtherTab } from "./kept";
import type { Trouble } from "./problems";

/** held : its cut-out is there, and somebody has to say whether it becomes a mesh */
export type ItemState = "sending" | "held" | State;

export interface Item {
  id: string;
  name: string;
  added: number;
  /** Items of one picture (variations) have one cut-out, and are asked about once. */
  picture: string;
  query: Record<string, string>;
  /** What is being made now. */
  wants: "cutout" | "mesh";
  state: ItemState;
  generation: string | null;
  document: Generation | null;
  problem: Trouble | null;
  /** Milliseconds from asking to a stored answer, as this page saw it. */
  answered: number | null;
  /** Whether the picture is a cut-out that somebody repaired. */
  repaired: boolean;
  /** Whether it was not made because its repaired cut-out was. */
  replaced: boolean;
  /** Where the cut-out can be seen. */
  cutout: string | null;
  /** How the cut-out came about, when it was asked about. */
  cut: Stage[];
  /** Whether somebody looked at the cut-out and kept it. */
  kept: boolean;
  live: Live;
}

/** What the event stream told last. */
export interface Live {
  stage: string | null;
  step: number;
  steps: number;
  position: number | null;
  joined: boolean;
  /** When it is asked for again, in milliseconds since 1970; null where this page does not wait for that. */
  again: number | null;
  done: Record<string, { source: string | null; seconds: number }>;
}

const KEPT: ItemState[] = ["sending", "held", "queued", "running", "succeeded", "failed", "cancelled"];

const items = new Map<string, Item>();
const views = new Set<() => void>();

export const idle = (): Live => ({ stage: null, step: 0, steps: 0, position: null, joined: false, again: null, done: {} });

/** What an item is called: variations of one picture differ by their seed. */
export const called = (item: Pick<Item, "name" | "query">): string => (item.query.seed ? `${item.name} (seed ${item.query.seed})` : item.name);

/** Whether another item has the same name, so that who looks needs to be told what it was asked for with. */
export const isTwin = (item: Item, among: Item[]): boolean =>
  among.some((other) => other.id !== item.id && called(other) === called(item) && other.repaired === item.repaired && JSON.stringify(other.query) !== JSON.stringify(item.query));

export const over = (item: Item): boolean => ["succeeded", "failed", "cancelled"].includes(item.state);

export const all = (): Item[] => [...items.values()];

export const item = (id: string): Item | undefined => items.get(id);

export function useItems(): Item[] {
  const [, again] = useState(0);
  // Before the first paint, and once at once: what changed in between would not be shown until something else did.
  useLayoutEffect(() => {
    const view = () => again((n) => n + 1);
    views.add(view);
    view();
    return () => void views.delete(view);
  }, []);
  return all().sort((a, b) => b.added - a.added);
}

function redraw(): void {
  for (const view of views) view();
}

export function put(item: Item, keep = true): void {
  items.set(item.id, item);
  if (keep) keepItem(item.id, JSON.stringify({ ...item, live: idle() }));
  redraw();
}

/** Change an item that is there. keep : false for what passes and need not survive a refresh */
export function update(id: string, changes: Partial<Item>, keep = true): void {
  const before = items.get(id);
  if (before) put({ ...before, ...changes }, keep);
}

export function forget(id: string): void {
  items.delete(id);
  dropItem(id);
  redraw();
}

/** An item as it was kept last, perhaps by another tab. */
export function recall(id: string): Item | undefined {
  const text = keptItem(id);
  if (text !== null) takeIn(text);
  return items.get(id);
}

/** Take in what was kept, and what other tabs keep from now on. changed : called with the ids that another tab changed */
export function recallAll(changed: (id: string) => void): void {
  for (const text of keptItems()) takeIn(text);
  onOtherTab((id, text) => {
    if (text !== null) takeIn(text);
    else items.delete(id);
    changed(id);
    redraw();
  });
}

function takeIn(text: string): void {
  try {
    const found: unknown = { cut: [], kept: false, replaced: false, wants: "mesh", picture: "", ...JSON.parse(text) };
    if (isItem(found)) items.set(found.id, { ...found, live: items.get(found.id)?.live ?? idle() });
  } catch {
    // no JSON
  }
}

/** Whether what was kept is an item. Another version of the page may have written it, or nobody knows what. */
function isItem(found: unknown): found is Item {
  if (!isRecord(found) || !isRecord(found.query)) return false;
  const { document } = found;
  return (
    [found.id, found.name, found.picture, found.wants, ...Object.values(found.query)].every((one) => typeof one === "string") &&
    [found.generation, found.cutout].every((one) => one === null || typeof one === "string") &&
    typeof found.added === "number" &&
    KEPT.includes(found.state as ItemState) &&
    Array.isArray(found.cut) &&
    found.cut.every(isRecord) &&
    (found.problem === null || isRecord(found.problem)) &&
    (document === null || (isRecord(document) && isRecord(document.links) && (document.stages === undefined || Array.isArray(document.stages))))
  );
}
