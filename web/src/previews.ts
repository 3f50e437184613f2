// Pictures of stored meshes, a few at a time: one that is not drawn yet waits for a worker, and a browser has six
// connections to a server, which a picture that is dropped meanwhile needs too.

import { useEffect, useState } from "preact/hooks";
import * as api from "./api";

const AT_ONCE = 2;
const waiting: (() => void)[] = [];
let running = 0;

async function turn(): Promise<void> {
  if (running >= AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  else running += 1;
}

function done(): void {
  const next = waiting.shift();
  if (next) next();
  else running -= 1;
}

const pause = (seconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

/** The preview under `path`; null when there is none. Who is busy is asked again, and who is away when it is back. */
async function preview(path: string, signal: AbortSignal): Promise<Blob | null> {
  for (;;) {
    await turn();
    let wait = 1;
    try {
      if (signal.aborted) return null;
      return await (await api.ask(path, { signal })).blob();
    } catch (error) {
      if (signal.aborted) return null;
      if (error instanceof api.Problem && error.status !== 503) return null;
      if (error instanceof api.Problem) wait = Math.max(1, error.retryAfter);
    } finally {
      done();
    }
    await pause(wait);
    if (!api.isHere()) await new Promise<void>((resolve) => { const stop = api.onPresence((here) => { if (here) { stop(); resolve(); } }); });
  }
}

/** The preview under `path`: its address in this page, null when there is none, undefined until that is known. path : null asks nobody yet */
export function usePreview(path: string | null): string | null | undefined {
  const [picture, setPicture] = useState<string | null>();
  useEffect(() => {
    if (path === null) return undefined;
    const abort = new AbortController();
    let url: string | null = null;
    void preview(path, abort.signal).then((found) => {
      if (!abort.signal.aborted) setPicture((url = found && URL.createObjectURL(found)));
    });
    return () => {
      abort.abort();
      setPicture(undefined);
      if (url) URL.revokeObjectURL(url);
    };
  }, [path]);
  return picture;
}
