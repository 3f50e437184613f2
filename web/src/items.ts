// The queue of this browser: one item for each picture (and variation), and what the server says of it.

import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { dropItem, keepItem, keepPicture, keptItem, keptItems, onOtherTab, pictureOf } from "./kept";

export type ItemState = "sending" | api.State;

export interface Item {
  id: string;
  name: string;
  added: number;
  query: Record<string, string>;
  state: ItemState;
  generation: string | null;
  document: api.Generation | null;
  problem: { title: string; detail: string } | null;
  /** Milliseconds from asking to a stored answer, as this page saw it. */
  answered: number | null;
  /** Whether the picture is a cut-out that somebody repaired. */
  repaired: boolean;
  /** Where the cut-out can be seen. */
  cutout: string | null;
  live: Live;
}

/** What the event stream told last. */
export interface Live {
  stage: string | null;
  step: number;
  steps: number;
  position: number | null;
  joined: boolean;
  done: Record<string, { source: string | null; seconds: number }>;
}

/** Event streams one tab holds open: browsers allow six connections to a server, and there may be other tabs. */
const STREAMS = 2;
/** Milliseconds between looks at the generations that no stream is open for. */
const POLL = 1500;

const items = new Map<string, Item>();
const views = new Set<() => void>();
const streams = new Map<string, EventSource>();
const posts = new Map<string, AbortController>();
let waking = 0;

const idle = (): Live => ({ stage: null, step: 0, steps: 0, position: null, joined: false, done: {} });

export const over = (item: Item): boolean => ["succeeded", "failed", "cancelled"].includes(item.state);

export function useItems(): Item[] {
  const [, again] = useState(0);
  useEffect(() => {
    const view = () => again((n) => n + 1);
    views.add(view);
    return () => void views.delete(view);
  }, []);
  return [...items.values()].sort((a, b) => b.added - a.added);
}

function changed(item: Item, keep = true): void {
  items.set(item.id, item);
  if (keep) keepItem(item.id, JSON.stringify({ ...item, live: idle() }));
  for (const view of views) view();
}

function update(id: string, changes: Partial<Item>, keep = true): void {
  const item = items.get(id);
  if (item) changed({ ...item, ...changes }, keep);
}

const nameless = (): string =>
  [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Put a picture into the queue. Returns the item's id. */
export async function add(picture: Blob, name: string, query: Record<string, string>, repaired = false): Promise<string> {
  const id = nameless();
  const last = Math.max(0, ...[...items.values()].map((item) => item.added));
  const item: Item = {
    id,
    name,
    added: Math.max(Date.now(), last + 1),
    query,
    state: "sending",
    generation: null,
    document: null,
    problem: null,
    answered: null,
    repaired,
    cutout: null,
    live: idle(),
  };
  await keepPicture(id, picture);
  changed(item);
  void dispatch(id);
  return id;
}

/** Post an item's picture again, whatever became of it. */
export async function send(id: string): Promise<void> {
  update(id, { state: "sending", problem: null, document: null, generation: null, live: idle() });
  await dispatch(id);
}

/** Post an item's picture unless that is done. Of several tabs one does; a page that was reloaded waits for its former self to be gone. */
async function dispatch(id: string): Promise<void> {
  // Plain HTTP elsewhere than on loopback has no locks: there a picture may be posted twice, and is made once.
  if (navigator.locks) await navigator.locks.request(`meshkiln.send.${id}`, () => post(id));
  else await post(id);
}

async function post(id: string): Promise<void> {
  const kept = keptItem(id);
  if (kept !== null) takeIn(kept);
  const item = items.get(id);
  if (!item || item.state !== "sending") return;
  const picture = await pictureOf(id);
  if (!picture) {
    return update(id, { state: "failed", problem: { title: "The picture is gone", detail: "add it again" } });
  }
  const begun = performance.now();
  const abort = new AbortController();
  posts.set(id, abort);
  try {
    const document = await api.generate(picture, item.query, abort.signal);
    if (items.get(id)?.state !== "sending") return void cancelOnServer(document.id);
    const answered = document.state === "succeeded" ? performance.now() - begun : null;
    update(id, { generation: document.id, answered });
    took(id, document);
    follow();
  } catch (error) {
    if (abort.signal.aborted || error instanceof api.Away) return; // sent when the server is back
    const problem = error as api.Problem;
    if (problem.status === 503) {
      const seconds = Math.max(1, problem.retryAfter);
      update(id, { problem: { title: problem.title, detail: `${problem.detail}; asking again in ${Math.ceil(seconds)} s` } });
      setTimeout(() => items.get(id)?.state === "sending" && void dispatch(id), seconds * 1000);
      return;
    }
    update(id, { state: "failed", problem: { title: problem.title ?? "Not sent", detail: problem.detail ?? problem.message } });
  }
}

async function cancelOnServer(generation: string): Promise<api.Generation | null> {
  try {
    return await api.read<api.Generation>(`/v1/generations/${generation}`, { method: "DELETE" });
  } catch {
    return null; // away or gone; what the server makes of it is seen when it is back
  }
}

export async function cancel(id: string): Promise<void> {
  const item = items.get(id);
  if (!item || over(item)) return;
  if (!item.generation) {
    update(id, { state: "cancelled" });
    posts.get(id)?.abort();
    return;
  }
  const document = await cancelOnServer(item.generation);
  if (document) took(id, document);
}

/** Take an item off the list. What the server made of it stays in the store. */
export function remove(id: string): void {
  const item = items.get(id);
  if (item && !over(item)) void cancel(id);
  streams.get(id)?.close();
  streams.delete(id);
  items.delete(id);
  dropItem(id);
  for (const view of views) view();
  follow();
}

/** What the server says of an item's generation. */
export function took(id: string, document: api.Generation): void {
  const cutout = document.links.previews?.matte ?? items.get(id)?.cutout ?? null;
  update(id, { document, cutout, state: document.state, problem: document.error ? { title: document.error.title, detail: document.error.detail ?? "" } : null });
  if (["succeeded", "failed", "cancelled"].includes(document.state)) {
    streams.get(id)?.close();
    streams.delete(id);
    follow();
  }
}

async function refresh(id: string): Promise<void> {
  const item = items.get(id);
  if (!item?.generation || over(item)) return;
  try {
    took(id, await api.read<api.Generation>(`/v1/generations/${item.generation}`));
  } catch (error) {
    // The server forgot it (its data are gone): the picture is in hand, so ask again.
    if (error instanceof api.Problem && error.status === 404) void send(id);
  }
}

/** Keep an eye on what is unfinished: the oldest by event stream, the others by asking now and then. */
function follow(): void {
  const open = [...items.values()].filter((item) => item.generation && !over(item)).sort((a, b) => a.added - b.added);
  // A tab nobody looks at gives its connections to those that somebody does.
  if (document.hidden) for (const id of [...streams.keys()]) hush(id);
  else for (const item of open) if (streams.size < STREAMS && !streams.has(item.id)) listen(item);
  clearTimeout(waking);
  const others = open.filter((item) => !streams.has(item.id));
  if (others.length) {
    waking = setTimeout(async () => {
      if (api.isHere()) await Promise.all(others.slice(0, 20).map((item) => refresh(item.id)));
      follow();
    }, POLL);
  }
}

function hush(id: string): void {
  streams.get(id)?.close();
  streams.delete(id);
}

function listen(item: Item): void {
  const { id } = item;
  const source = new EventSource(`/v1/generations/${item.generation}/events`);
  streams.set(id, source);
  const live = (changes: Partial<Live>) => {
    const now = items.get(id);
    if (now) update(id, { live: { ...now.live, ...changes } }, false);
  };
  const data = (event: Event) => JSON.parse((event as MessageEvent<string>).data);
  source.addEventListener("queue", (event) => live({ position: data(event).position }));
  source.addEventListener("stage", (event) => {
    const told = data(event);
    const now = items.get(id);
    if (!now) return;
    if (told.preview && told.stage === "matte") update(id, { cutout: told.preview });
    if (told.state === "done") {
      const source = told.joined ? "joined" : told.source;
      live({ done: { ...now.live.done, [told.stage]: { source, seconds: told.seconds ?? 0 } } });
      return;
    }
    live({ stage: told.stage, step: 0, steps: 0, position: null });
  });
  source.addEventListener("step", (event) => {
    const told = data(event);
    live({ stage: told.stage, step: told.step, steps: told.steps, position: null });
  });
  source.addEventListener("state", (event) => {
    const told = data(event);
    if (told.joined) live({ joined: true });
    if (["succeeded", "failed", "cancelled"].includes(told.state)) {
      source.close();
      streams.delete(id);
      void refresh(id).then(follow);
    } else update(id, { state: told.state });
  });
  source.onerror = () => {
    // The browser opens it again by itself and says what it saw last. Here it only matters whether anybody is there.
    if (source.readyState === EventSource.CLOSED) {
      streams.delete(id);
      void refresh(id).then(follow);
    } else void api.doubt();
  };
}

/** Begin: what was kept, what other tabs do, and the server's coming and going. */
export function start(): void {
  for (const text of keptItems()) takeIn(text);
  onOtherTab((id, text) => {
    if (text !== null) takeIn(text);
    else {
      items.delete(id);
      streams.get(id)?.close();
      streams.delete(id);
    }
    for (const view of views) view();
    follow();
  });
  document.addEventListener("visibilitychange", follow);
  api.onPresence((here) => here && resume());
  resume();
}

function takeIn(text: string): void {
  try {
    const item = JSON.parse(text) as Item;
    const known = items.get(item.id);
    items.set(item.id, { ...item, live: known?.live ?? idle() });
    if (over(item)) {
      streams.get(item.id)?.close();
      streams.delete(item.id);
    }
  } catch {
    // written by a version of the page that is not this one
  }
}

function resume(): void {
  for (const item of items.values()) {
    if (over(item)) continue;
    if (item.generation) {
      streams.get(item.id)?.close();
      streams.delete(item.id);
      void refresh(item.id).then(follow);
    } else void dispatch(item.id);
  }
}
