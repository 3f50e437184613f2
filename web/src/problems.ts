// What went wrong, in the words of somebody who gave a picture, and what helps him.

/** kind : the end of the type URI of a server's problem document, or what this page calls it; "" where nobody says */
export interface Trouble {
  kind: string;
  title: string;
  detail: string;
}

/** again : the same may do next time; picture : only another picture does; options : only other parameters do */
export type Help = "again" | "picture" | "options";

const HELP: Record<string, Help> = {
  "bad-picture": "picture",
  poisoned: "picture",
  "too-large": "picture",
  "unsupported-media-type": "picture",
  "no-picture": "picture",
  // This page's own.
  empty: "picture",
  unreadable: "picture",
  lost: "picture",
  "bad-parameter": "options",
  "unknown-engine": "options",
};

/** What may help. No trouble, and one that is not known, may be over when the same is tried again. */
export const helpOf = (trouble: Pick<Trouble, "kind"> | null): Help => HELP[trouble?.kind ?? ""] ?? "again";

/** Refusals that pass by themselves, said to somebody who waits and not to who runs the server. */
const WAITS: Record<string, Pick<Trouble, "title" | "detail">> = {
  "intake-paused": { title: "The server takes no new work for now", detail: "your picture is kept here, and is sent as soon as it does" },
  "queue-full": { title: "Too many others wait already", detail: "your picture is kept here, and is sent when there is room" },
};

/** What the server's titles are to somebody who has never heard of its parameters. */
const TITLES: Record<string, string> = { "bad-parameter": "One of the options cannot be used" };

export const titleOf = (trouble: Trouble): string => TITLES[trouble.kind] ?? trouble.title;

/** A refusal after which the same is asked again. */
export const whileWaiting = (trouble: Trouble): Trouble => ({ ...trouble, ...WAITS[trouble.kind] });

/** The end of a problem's type URI. */
export const kindOf = (type: unknown): string => (typeof type === "string" ? type.slice(type.lastIndexOf(":") + 1) : "");
