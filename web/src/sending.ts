// From a picture to its mesh: the cut-out first, where somebody wants to see it, then what is made of it.

import * as api from "./api";
import { begin, follow, hush, refresh } from "./following";
import { all, forget, idle, item, over, put, recall, recallAll, update, type Item } from "./items";
import { keepPicture, pictureOf } from "./kept";
import { kindOf, whileWaiting, type Trouble } from "./problems";

/** The engine that makes cut-outs, and the priority it is asked with: somebody looks at the page and waits. */
export const CUTOUT = "cutout";
const AT_ONCE = "50";

/** Seconds after which a picture is sent again to a server that fails without a word of its own: a proxy may be at fault. */
const AGAIN = [1, 2, 4, 8, 16];
/** How often that was done, by item. */
const failures = new Map<string, number>();

const posts = new Map<string, AbortController>();
/** Of items that were refused for now: the timer after which they are asked for again. */
const waits = new Map<string, number>();

const nameless = (): string =>
  [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** How an item begins, beside its picture, its name and its query. */
export interface Beginning {
  /** What is made first; after a cut-out somebody is asked. */
  wants: Item["wants"];
  /** Items that were given as one picture. */
  picture?: string;
  repaired?: boolean;
}

/** Put a picture into the queue. Returns the item's id. */
export async function add(picture: Blob, name: string, query: Record<string, string>, how: Beginning): Promise<string> {
  const id = nameless();
  const last = Math.max(0, ...all().map((item) => item.added));
  const made: Item = {
    id,
    name,
    added: Math.max(Date.now(), last + 1),
    picture: how.picture ?? id,
    query,
    wants: how.wants,
    state: "sending",
    generation: null,
    document: null,
    problem: null,
    answered: null,
    repaired: how.repaired ?? false,
    replaced: false,
    cutout: null,
    cut: [],
    kept: false,
    live: idle(),
  };
  // Its bytes now: a file may be gone or another one when they are sent, which would look like a server that is away.
  const bytes = await picture.arrayBuffer().catch(() => null);
  if (!bytes?.byteLength) {
    const problem = bytes ? { kind: "empty", title: "The file is empty", detail: "it has no bytes" } : { kind: "unreadable", title: "The file cannot be read", detail: "is it a folder, or gone?" };
    put({ ...made, state: "failed", problem });
    return id;
  }
  await keepPicture(id, new Blob([bytes], { type: picture.type }));
  put(made);
  void dispatch(id);
  return id;
}

/** Post an item's picture again, whatever became of it. query : what it is asked for with from now on */
export async function send(id: string, query?: Record<string, string>): Promise<void> {
  failures.delete(id);
  update(id, { ...(query && { query }), state: "sending", replaced: false, problem: null, document: null, generation: null, live: idle() });
  await dispatch(id);
}

/** Make meshes of the cut-out that is shown of an item, and of the other items of its picture. */
export function keep(id: string): void {
  const shown = item(id);
  for (const one of all()) {
    if (!shown || one.wants !== "cutout" || over(one) || (one.id !== id && one.picture !== shown.picture)) continue;
    update(one.id, { kept: true });
    if (one.state === "held") goOn(one.id);
  }
}

/** Have what nobody has agreed to yet made as the options are now. queries : for a picture with so many variations, one for each */
export function remake(queries: (variations: number) => Record<string, string>[]): void {
  const open = all().filter((one) => one.wants === "cutout" && !one.kept && !over(one)).sort((a, b) => a.added - b.added);
  for (const picture of new Set(open.map((one) => one.picture))) {
    const same = open.filter((one) => one.picture === picture);
    const asked = queries(same.length);
    same.forEach((one, i) => update(one.id, { query: asked[i % asked.length]! }));
  }
}

function goOn(id: string): void {
  update(id, { wants: "mesh" });
  void send(id);
}

/** Post an item's picture unless that is done. Of several tabs one does; a page that was reloaded waits for its former self to be gone. */
async function dispatch(id: string): Promise<void> {
  // Plain HTTP elsewhere than on loopback has no locks: there a picture may be posted twice, and is made once.
  if (navigator.locks) await navigator.locks.request(`meshkiln.send.${id}`, () => post(id));
  else await post(id);
}

function stopWaiting(id: string): void {
  clearTimeout(waits.get(id));
  waits.delete(id);
}

/** Ask at once for what would be asked for later. */
export function askNow(id: string): void {
  stopWaiting(id);
  void dispatch(id);
}

/** Ask again in a while for what was refused for now. seconds : until then */
function wait(id: string, trouble: Trouble, seconds: number): void {
  update(id, { problem: whileWaiting(trouble), live: { ...idle(), again: Date.now() + seconds * 1000 } });
  stopWaiting(id);
  waits.set(id, setTimeout(() => askNow(id), seconds * 1000));
}

async function post(id: string): Promise<void> {
  const sent = recall(id);
  if (!sent || sent.state !== "sending") return follow(); // another page has sent it
  const picture = await pictureOf(id);
  if (!picture) {
    return update(id, { state: "failed", problem: { kind: "lost", title: "The picture is gone", detail: "this browser has it no more" } });
  }
  const { matte } = sent.query;
  const query = sent.wants === "mesh" ? sent.query : { engine: CUTOUT, priority: AT_ONCE, ...(matte ? { matte } : {}) };
  const begun = performance.now();
  const abort = new AbortController();
  posts.set(id, abort);
  if (sent.problem) update(id, { live: idle() });
  try {
    const document = await api.generate(picture, query, abort.signal);
    if (item(id)?.state !== "sending") return void cancelOnServer(document.id);
    const answered = document.state === "succeeded" ? performance.now() - begun : null;
    failures.delete(id);
    update(id, { generation: document.id, answered });
    took(id, document);
    follow();
    // What is let in again is let in for all.
    for (const other of [...waits.keys()]) if (item(other)?.problem?.kind === "intake-paused") askNow(other);
  } catch (error) {
    if (abort.signal.aborted || error instanceof api.Away) return; // sent when the server is back
    const problem = error as api.Problem;
    const wordless = problem.status >= 500 && !problem.told;
    const failed = failures.get(id) ?? 0;
    const seconds = problem.status === 503 ? Math.max(1, problem.retryAfter) : wordless ? AGAIN[failed] : undefined;
    if (seconds !== undefined) {
      if (wordless) failures.set(id, failed + 1);
      return wait(id, { kind: problem.kind, title: problem.title, detail: problem.detail }, seconds);
    }
    failures.delete(id);
    const detail = wordless ? `it did so ${AGAIN.length + 1} times, without a word of its own: something between you and it may be out of order` : problem.detail ?? problem.message;
    update(id, { state: "failed", problem: { kind: problem.kind ?? "", title: problem.title ?? "Not sent", detail } });
  }
}

/** What the server says of an item's generation. */
function took(id: string, document: api.Generation): void {
  const known = item(id);
  if (!known) return;
  if (known.wants === "cutout" && document.state === "succeeded") {
    const cut = (document.stages ?? []).filter((stage) => stage.stage !== "cutout");
    update(id, { state: "held", cutout: document.links.artifact ?? null, cut, generation: null, document: null, problem: null, live: idle() });
    if (known.kept) goOn(id);
  } else {
    const cutout = document.links.previews?.matte ?? known.cutout;
    const problem = document.error ? { kind: kindOf(document.error.type), title: document.error.title, detail: document.error.detail ?? "" } : null;
    update(id, { document, cutout, state: document.state, problem });
  }
  follow();
}

async function cancelOnServer(generation: string): Promise<api.Generation | null> {
  try {
    return await api.read<api.Generation>(`/v1/generations/${generation}`, { method: "DELETE" });
  } catch {
    return null; // away or gone; what the server makes of it is seen when it is back
  }
}

export async function cancel(id: string): Promise<void> {
  const given = item(id);
  if (!given || over(given)) return;
  if (!given.generation) {
    stopWaiting(id);
    update(id, { state: "cancelled", problem: null });
    posts.get(id)?.abort();
    return;
  }
  const document = await cancelOnServer(given.generation);
  if (document) took(id, document);
}

/** Make meshes of a repaired cut-out in place of what was to be made of the picture. Returns the first new item's id. */
export async function repair(id: string, png: Blob, alpha: Record<string, string>): Promise<string | null> {
  const shown = item(id);
  if (!shown) return null;
  const same = all().filter((one) => one.id === id || (one.picture === shown.picture && one.wants === "cutout" && !over(one)));
  let first: string | null = null;
  for (const one of same) {
    if (!over(one)) update(one.id, { replaced: true });
    await cancel(one.id);
    const added = await add(png, one.name, { ...one.query, ...alpha }, { wants: "mesh", repaired: true, picture: first ?? undefined });
    first ??= added;
  }
  return first;
}

/** Make other meshes of an item's picture: one for each query. Returns the first new item's id, null when the picture is gone. */
export async function again(id: string, queries: Record<string, string>[]): Promise<string | null> {
  const made = item(id);
  const picture = await pictureOf(id);
  if (!made || !picture) return null;
  let first: string | null = null;
  for (const query of queries) {
    const added = await add(picture, made.name, query, { wants: "mesh", picture: made.picture || undefined, repaired: made.repaired });
    first ??= added;
  }
  return first;
}

/** Take an item off the list. What the server made of it stays in the store. */
export function remove(id: string): void {
  const given = item(id);
  if (given && !over(given)) void cancel(id);
  hush(id);
  forget(id);
  follow();
}

/** Begin: what was kept, what other tabs do, and the server's coming and going. */
export function start(): void {
  // The server forgot it (its data are gone): the picture is in hand, so ask again.
  begin({ took, lost: (id) => void send(id) });
  recallAll(follow);
  api.onPresence((here) => here && resume());
  resume();
}

function resume(): void {
  for (const one of all()) {
    if (over(one)) continue;
    if (one.generation) {
      hush(one.id);
      void refresh(one.id).then(follow);
    } else void dispatch(one.id);
  }
}
