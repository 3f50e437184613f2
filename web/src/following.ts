// Following what is being made: the oldest by event stream, the others by asking now and then.

import * as api from "./api";
import { all, item, over, update, type Item, type Live } from "./items";

/** Event streams one tab holds open: browsers allow six connections to a server, and there may be other tabs. */
const STREAMS = 2;
/** Milliseconds between looks at the generations that no stream is open for. */
const POLL = 1500;
/** Milliseconds without a stream after one was refused, doubled with each refusal up to the second figure. */
const REFUSED = [POLL, 60_000] as const;

/** Who is told what the server says of an item, and that it knows nothing of it any more. */
interface Told {
  took(id: string, document: api.Generation): void;
  lost(id: string): void;
}

const streams = new Map<string, EventSource>();
/** Of items whose stream was refused: how long no other is opened, and until when. */
const refused = new Map<string, { wait: number; until: number }>();
let told: Told = { took: () => undefined, lost: () => undefined };
let waking = 0;

export function begin(those: Told): void {
  told = those;
  document.addEventListener("visibilitychange", follow);
}

/** Keep an eye on whatever is unfinished. Called whenever that may have changed. */
export function follow(): void {
  const open = all().filter((item) => item.generation && !over(item)).sort((a, b) => a.added - b.added);
  const wanted = new Set(open.map((item) => item.id));
  // A tab nobody looks at gives its connections to those that somebody does.
  for (const id of [...streams.keys()]) if (document.hidden || !wanted.has(id)) hush(id);
  for (const id of [...refused.keys()]) if (!wanted.has(id)) refused.delete(id);
  if (!document.hidden) for (const item of open) if (streams.size < STREAMS && !streams.has(item.id) && !((refused.get(item.id)?.until ?? 0) > Date.now())) listen(item);
  clearTimeout(waking);
  const others = open.filter((item) => !streams.has(item.id));
  if (others.length) {
    waking = setTimeout(async () => {
      if (api.isHere()) await Promise.all(others.slice(0, 20).map((item) => refresh(item.id)));
      follow();
    }, POLL);
  }
}

export function hush(id: string): void {
  streams.get(id)?.close();
  streams.delete(id);
  refused.delete(id);
}

/** Ask how an item's generation stands. */
export async function refresh(id: string): Promise<void> {
  const known = item(id);
  if (!known?.generation || over(known)) return;
  try {
    const document = await api.read<api.Generation>(`/v1/generations/${known.generation}`);
    if (item(id)?.generation === known.generation) told.took(id, document);
  } catch (error) {
    if (error instanceof api.Problem && error.status === 404) told.lost(id);
  }
}

function listen(followed: Item): void {
  const { id } = followed;
  const source = new EventSource(`/v1/generations/${followed.generation}/events`);
  streams.set(id, source);
  const live = (changes: Partial<Live>) => {
    const now = item(id);
    if (now) update(id, { live: { ...now.live, ...changes } }, false);
  };
  source.onopen = () => refused.delete(id);
  const data = (event: Event) => JSON.parse((event as MessageEvent<string>).data);
  source.addEventListener("queue", (event) => live({ position: data(event).position }));
  source.addEventListener("stage", (event) => {
    const said = data(event);
    const now = item(id);
    if (!now) return;
    // The engine of cut-outs brings the picture itself, a moment later.
    if (said.preview && said.stage === "matte" && now.wants === "mesh") update(id, { cutout: said.preview });
    if (said.state === "done") {
      const source = said.joined ? "joined" : said.source;
      live({ done: { ...now.live.done, [said.stage]: { source, seconds: said.seconds ?? 0 } } });
      return;
    }
    live({ stage: said.stage, step: 0, steps: 0, position: null });
  });
  source.addEventListener("step", (event) => {
    const said = data(event);
    live({ stage: said.stage, step: said.step, steps: said.steps, position: null });
  });
  source.addEventListener("state", (event) => {
    const said = data(event);
    if (said.joined) live({ joined: true });
    if (["succeeded", "failed", "cancelled"].includes(said.state)) {
      source.close();
      streams.delete(id);
      void refresh(id).then(follow);
    } else update(id, { state: said.state });
  });
  source.onerror = () => {
    // The browser opens it again by itself and says what it saw last. Here it only matters whether anybody is there.
    if (source.readyState === EventSource.CLOSED) {
      streams.delete(id);
      const wait = Math.min(REFUSED[1], 2 * (refused.get(id)?.wait ?? REFUSED[0] / 2));
      refused.set(id, { wait, until: Date.now() + wait });
      follow(); // which asks now and then what has no stream
    } else void api.doubt();
  };
}
