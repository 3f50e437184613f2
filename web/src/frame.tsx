// What every page has: the head with the ways to the other pages, a word when the server is away, and a line that tells what was done.

import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useState } from "preact/hooks";
import * as api from "./api";

const PAGES: [string, string][] = [
  ["/", "Studio"],
  ["/operations", "Operations"],
  ["/docs", "API"],
];

/** Says what was done. seen : false where who looks sees it anyway, so that it is for those who listen */
export type Say = (what: string, seen?: boolean) => void;

let tell: Say = () => undefined;

/** Milliseconds for which what was said is shown. */
const SHOWN = 8000;

/** What was said last, until it is old, and how to say something. */
export function useSaid(): [{ what: string; seen: boolean }, Say] {
  const [said, set] = useState({ what: "", seen: false });
  useEffect(() => {
    const timer = setTimeout(() => set({ what: "", seen: false }), SHOWN);
    return () => clearTimeout(timer);
  }, [said]);
  const say = useCallback<Say>((what, seen = true) => set({ what, seen }), []);
  return [said, say];
}

/** Tell it to who looks and to who listens. An open dialog has its own: what is outside of it is neither seen nor heard. */
export function Said(props: { what: string; seen: boolean; id?: string }) {
  return <p class={props.seen && props.what ? "said" : "hidden"} role="status" id={props.id}>{props.what}</p>;
}

/** Say what was done, at the foot of the window. */
export const say: Say = (what, seen) => tell(what, seen);

/** Whether the server answers. */
export function usePresence(): boolean {
  const [here, set] = useState(api.isHere());
  useEffect(() => api.onPresence(set), []);
  return here;
}

/** A page. path : its own, one of those in the head; away : what is true while the server does not answer */
export function Frame(props: { path: string; away: string; children: ComponentChildren }) {
  const here = usePresence();
  const [said, say] = useSaid();
  tell = say;
  return (
    <>
      <a class="skip" href="#main">Skip to the content</a>
      <header>
        <a class="brand" href="/"><img src="/studio/icon.svg" alt="" width="28" height="28" />Meshkiln</a>
        <nav aria-label="Pages">
          {PAGES.map(([path, name]) => (
            <a key={path} href={path} aria-current={path === props.path ? "page" : undefined}>{name}</a>
          ))}
        </nav>
      </header>
      {!here && (
        <p class="away" role="alert"><span class="spinner" aria-hidden="true" /><span><strong>The server does not answer.</strong> {props.away}</span></p>
      )}
      <main id="main">{props.children}</main>
      <Said {...said} id="said" />
    </>
  );
}
