// Where the keyboard is when what it was on goes: by itself the focus falls to the body, and Tab begins at the top again.

import { useLayoutEffect, useRef } from "preact/hooks";

/** What had the focus last, the entry it is in, and the entries that may take its place, nearest first. */
interface Had {
  target: Element;
  places: Element[];
}

/**
 * Handlers for a part of the page. When the element goes that had the focus in it, the first button of the same entry
 * takes it, else that of the entry after it, else of the one before; and where no entry is left, what `otherwise` names.
 * entries : a selector of them; otherwise : selectors, the first that is there counts
 */
export function useFocusKept(entries: string, ...otherwise: string[]): { onFocusIn: (event: FocusEvent) => void; onFocusOut: (event: FocusEvent) => void } {
  const had = useRef<Had | null>(null);
  useLayoutEffect(() => {
    if (!had.current || had.current.target.isConnected || document.activeElement !== document.body) return;
    const entry = had.current.places.find((place) => place.isConnected);
    had.current = null;
    const next = entry?.querySelector<HTMLElement>("button") ?? otherwise.map((name) => document.querySelector<HTMLElement>(name)).find((found) => found);
    next?.focus();
  });
  return {
    onFocusIn(event) {
      const target = event.target as Element;
      const entry = target.closest(entries);
      const all = [...(entry?.parentElement?.children ?? [])];
      const at = all.indexOf(entry!);
      had.current = { target, places: entry ? [entry, ...all.slice(at + 1), ...all.slice(0, at).reverse()] : [] };
    },
    onFocusOut(event) {
      // Some browsers tell this of what is being removed as well, which only shows a moment later.
      const target = event.target as Element;
      setTimeout(() => {
        if (had.current?.target === target && target.isConnected && document.activeElement !== target) had.current = null;
      });
    },
  };
}
