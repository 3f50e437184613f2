// What the server says, and how it is asked. Paths, names and shapes are those of docs/api.md.

import { kindOf } from "./problems";

export type State = "queued" | "running" | "succeeded" | "failed" | "cancelled";

export interface Stage {
  stage: string;
  key: string | null;
  source: string | null;
  seconds: number;
  bytes: number;
  joined: boolean;
  /** When what was found had been computed, in seconds since 1970. */
  made?: number | null;
}

export interface Feedback {
  rating: "up" | "down";
  reason: string;
}

export interface Generation {
  id: string;
  state: State;
  engine: string;
  recipe: string | null;
  parameters: Record<string, unknown>;
  created: number;
  started: number | null;
  finished: number | null;
  position: number | null;
  estimated_seconds: number | null;
  error: { type?: string; title: string; detail?: string } | null;
  links: { self: string; events: string; artifact?: string; formats?: Record<string, string>; previews?: Record<string, string> };
  key?: string;
  bytes?: number;
  media_type?: string;
  stages?: Stage[];
  cost_seconds?: number;
  saved_seconds?: number;
}

export interface Parameter {
  name: string;
  default: string | number | boolean;
  allowed: string;
  help: string;
  low: number | null;
  high: number | null;
  choices: string[];
}

export interface Engine {
  name: string;
  /** Whether the server takes it for requests that name none. */
  default: boolean;
  help: string;
  stages: string[];
  formats: Record<string, string>;
  recipes: Record<string, Record<string, unknown>>;
  /** The one that the server takes for requests that name none. */
  recipe: string | null;
  parameters: Parameter[];
}

/** The server refused, and says why (RFC 9457). */
export class Problem extends Error {
  /** kind : the end of its type; told : whether the server says so in its own words, and not something between it and here */
  constructor(
    readonly status: number,
    readonly kind: string,
    readonly title: string,
    readonly detail: string,
    readonly retryAfter: number,
    readonly told: boolean,
  ) {
    super(detail ? `${title}: ${detail}` : title);
  }

  /** Whether what was asked for is not there, or not any more. */
  get gone(): boolean {
    return [404, 410].includes(this.status);
  }
}

/** Nobody answered. */
export class Away extends Error {}

type Listener = (here: boolean) => void;
const listeners = new Set<Listener>();
let here = true;
let looking = 0;

/** Call `listener` whenever the server goes or comes back. Returns how to stop. */
export function onPresence(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const isHere = (): boolean => here;

function told(now: boolean): void {
  if (now === here) return;
  here = now;
  for (const listener of listeners) listener(now);
  if (!now) look();
}

const regrets = new Set<() => void>();

/** Call `listener` whenever a mesh turns out to be kept no more. Returns how to stop. */
export function onGone(listener: () => void): () => void {
  regrets.add(listener);
  return () => regrets.delete(listener);
}

/** Ask every second whether the server is back. */
function look(): void {
  clearTimeout(looking);
  looking = setTimeout(async () => {
    try {
      const answer = await fetch("/healthz", { cache: "no-store" });
      if (answer.ok) return told(true);
    } catch {
      // still away
    }
    look();
  }, 1000);
}

/** What it means that no answer came, or none to its end: the page may be going, which is no word of the server's. */
function broken(error: unknown, init?: RequestInit): unknown {
  if (init?.signal?.aborted) return error;
  told(false);
  return new Away("The server does not answer");
}

/** Ask the server. Throws Away when nobody answers, Problem when it refuses. */
export async function ask(path: string, init?: RequestInit): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, init);
  } catch (error) {
    throw broken(error, init);
  }
  // The server's own refusals are problem documents; else a proxy says that nobody is behind it.
  const own = answer.headers.get("content-type")?.includes("json") ?? false;
  if ([502, 503, 504].includes(answer.status) && !own) throw broken(new Error(answer.statusText), init);
  told(true);
  if (answer.ok) return answer;
  const wait = Number(answer.headers.get("retry-after")) || 0;
  let title = `The server answered ${answer.status}`;
  let [kind, detail] = ["", ""];
  try {
    const said = await answer.json();
    title = said.title ?? title;
    detail = said.detail ?? "";
    kind = kindOf(said.type);
  } catch {
    // not a problem document: its status has to do
  }
  // A picture of it may be missing for other reasons.
  const problem = new Problem(answer.status, kind, title, detail, wait, own);
  if (problem.gone && /^\/v1\/(artifacts\/|generations\/k)[^?]+$/.test(path)) for (const listener of regrets) listener();
  throw problem;
}

export async function read<T>(path: string, init?: RequestInit): Promise<T> {
  const answer = await ask(path, init);
  try {
    return (await answer.json()) as T;
  } catch (error) {
    throw error instanceof SyntaxError ? error : broken(error, init);
  }
}

export function generate(picture: Blob, query: Record<string, string>, signal: AbortSignal | null = null): Promise<Generation> {
  const type = picture.type.startsWith("image/") ? picture.type : "application/octet-stream";
  return read(`/v1/generations?${new URLSearchParams(query)}`, {
    method: "POST",
    headers: { "Content-Type": type },
    body: picture,
    signal,
  });
}

/** The server was noticed to be away by something else than `ask`: an event stream that broke. */
export async function doubt(): Promise<void> {
  try {
    await ask("/healthz", { cache: "no-store" });
  } catch {
    // `ask` has told everybody
  }
}
