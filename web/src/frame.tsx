// What every page has: the head with the ways to the other pages, a word when the server is away, and a live region.

import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as api from "./api";

const PAGES: [string, string][] = [
  ["/", "Studio"],
  ["/operations", "Operations"],
  ["/docs", "API"],
];

let tell: (what: string) => void = () => undefined;

/** Say something to those who listen to the page instead of looking at it. */
export function say(what: string): void {
  tell(what);
}

/** Whether the server answers. */
export function usePresence(): boolean {
  const [here, set] = useState(api.isHere());
  useEffect(() => api.onPresence(set), []);
  return here;
}

/** A page. path : its own, one of those in the head; away : what is true while the server does not answer */
export function Frame(props: { path: string; away: string; children: ComponentChildren }) {
  const here = usePresence();
  const [said, set] = useState("");
  tell = set;
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
      <p class="hidden" role="status" id="said">{said}</p>
    </>
  );
}
