// What /v1/operations tells, as docs/api.md has it.

export interface Timed {
  count: number;
  per_second: number;
  seconds: number;
  p50: number | null;
  p95: number | null;
  p99: number | null;
}

export interface Summary {
  seconds: number;
  outcomes: Record<string, Timed>;
  saved: Record<string, number>;
  stages: Record<string, Timed & { hits: Record<string, number> }>;
  routes: Record<string, Timed>;
  errors: Record<string, number>;
  batches: Record<string, number>;
  /** tier -> reason -> stage that made it -> artifacts */
  evicted: Record<string, Record<string, Record<string, number>>>;
  faults: Record<string, Record<string, number>>;
  restarts: Record<string, number>;
  busy: Record<string, number>;
}

export interface Worker {
  number: number;
  state: "starting" | "idle" | "busy" | "draining" | "drained";
  stage: string | null;
  batches: number;
  busy_seconds: number;
  memory_bytes: number;
}

export interface Operations {
  at: number;
  version: string;
  telemetry: boolean;
  price: { gpu_hour: number; currency: string };
  intake: { paused: boolean; accepting: boolean };
  queue: { waiting: number; active: number; work_seconds: number; wait_seconds: number };
  engines: string[];
  workers: Worker[];
  poisoned: number;
  live: Summary;
  day: Summary;
}

type Column = (number | null)[];

export interface Series {
  at: number[];
  seconds: number[];
  per_second: Record<string, Column>;
  latency: Record<string, Record<"p50" | "p95" | "p99", Column>>;
  saved_seconds: Column;
  errors: Column;
  waiting: Column;
  active: Column;
  wait_seconds: Column;
  busy: Record<string, Column>;
  bytes: Record<string, Column>;
}

export interface Artifact {
  key: string;
  engine: string | null;
  stage: string | null;
  bytes: number;
  cost_seconds: number;
  seconds_per_megabyte: number;
  hits: number;
  created: number;
}

/** Outcomes in the order in which they are shown, and what they are called. */
export const OUTCOMES: Record<string, string> = {
  memory: "from memory",
  disk: "from disk",
  joined: "joined another's",
  computed: "computed",
  failed: "failed",
  cancelled: "cancelled",
};

export const STORED = ["memory", "disk"];

export const total = (counts: Record<string, number>): number => Object.values(counts).reduce((sum, count) => sum + count, 0);
