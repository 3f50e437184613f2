// Figures in tables: outcomes, stages, workers, what was let go, what went wrong, what is dearest.

import type { ComponentChildren } from "preact";
import type { Artifact, Operations, Summary, Worker } from "./counts";
import { OUTCOMES, STORED, total } from "./counts";
import { ago, bytes, count, seconds } from "./words";

const time = (value: number | null): string => (value === null ? "–" : seconds(value));
const share = (part: number, whole: number): string => (whole ? `${Math.round((part / whole) * 100)} %` : "–");

/** Columns of words, which stand at the left. */
const WORDS = new Set(["state", "what", "why", "tier", "share"]);

function Table(props: { title: string; head: string[]; empty: string; rows: ComponentChildren[]; note?: string; wide?: boolean }) {
  const id = props.title.toLowerCase().replace(/\W+/g, "-");
  return (
    <section class={props.wide ? "panel wide" : "panel"} aria-labelledby={id}>
      <h3 id={id}>{props.title}</h3>
      {props.note && <small>{props.note}</small>}
      {props.rows.length ? (
        <div class="scroll" tabindex={0} role="group" aria-labelledby={id}>
          <table>
            <thead><tr>{props.head.map((name) => <th key={name} scope="col" class={WORDS.has(name) ? "word" : name === "action" ? "act" : ""}>{name}</th>)}</tr></thead>
            <tbody>{props.rows}</tbody>
          </table>
        </div>
      ) : <p class="quiet">{props.empty}</p>}
    </section>
  );
}

export function Outcomes(props: { summary: Summary }) {
  const { outcomes, saved } = props.summary;
  const rows = Object.keys(OUTCOMES).filter((name) => outcomes[name]).map((name) => {
    const row = outcomes[name]!;
    return (
      <tr key={name} data-outcome={name}>
        <th scope="row"><span class={`dot ${name}`} />{OUTCOMES[name]}</th>
        <td>{count(row.count)}</td><td>{row.per_second.toPrecision(2)}</td>
        <td>{time(row.p50)}</td><td>{time(row.p95)}</td><td>{time(row.p99)}</td>
        <td>{saved[name] ? seconds(saved[name]!) : "–"}</td>
      </tr>
    );
  });
  return <Table wide title="Requests by outcome" head={["outcome", "count", "per s", "p50", "p95", "p99", "saved"]} rows={rows} empty="No generation was asked for." />;
}

export function Stages(props: { summary: Summary }) {
  const stages = Object.entries(props.summary.stages).sort(([, a], [, b]) => b.seconds - a.seconds);
  const all = stages.reduce((sum, [, stage]) => sum + stage.seconds, 0);
  const rows = stages.map(([name, stage]) => {
    const found = total(stage.hits);
    return (
      <tr key={name}>
        <th scope="row">{name}</th>
        <td>{count(stage.count)}</td><td>{stage.count ? seconds(stage.seconds / stage.count) : "–"}</td><td>{time(stage.p95)}</td>
        <td>{share(stage.seconds, all)}</td>
        <td>{STORED.filter((tier) => stage.hits[tier]).map((tier) => `${count(stage.hits[tier]!)} ${tier}`).join(", ") || "–"}</td>
        <td>{share(found, found + stage.count)}</td>
      </tr>
    );
  });
  return <Table wide title="What stages cost" note="Dearest first. Compute seconds: a stage's share of its batch, without waiting. A preview counts as one, and so does a conversion."
    head={["stage", "computed", "mean", "p95", "of all work", "found", "hit rate"]} rows={rows} empty="No stage has run." />;
}

export function Workers(props: { workers: Worker[]; summary: Summary; ask: (worker: Worker) => void }) {
  const rows = props.workers.map((worker) => {
    const resting = worker.state === "drained" || worker.state === "draining";
    const busy = props.summary.busy[worker.number] ?? 0;
    return (
      <tr key={worker.number} data-worker={worker.number}>
        <th scope="row">{worker.number}</th>
        <td class="word"><span class={`state-${worker.state}`}>{worker.state}</span>{worker.stage ? `: ${worker.stage}` : ""}</td>
        <td>{Math.round(busy * 100)} %</td><td>{count(worker.batches)}</td><td>{bytes(worker.memory_bytes)}</td>
        <td class="act"><button type="button" onClick={() => props.ask(worker)} aria-label={`${resting ? "Resume" : "Drain"} worker ${worker.number}`}>{resting ? "Resume" : "Drain"}</button></td>
      </tr>
    );
  });
  return <Table title="Workers" head={["worker", "state", "busy", "batches", "memory", "action"]} rows={rows} empty="There are none." />;
}

const WHY: Record<string, string> = {
  size: "the bytes were needed for something dearer",
  entries: "too many artifacts",
  expired: "past its time",
  resized: "the bound was lowered",
};

export function Evictions(props: { summary: Summary }) {
  const all = Object.entries(props.summary.evicted).flatMap(([tier, reasons]) =>
    Object.entries(reasons).flatMap(([reason, stages]) => Object.entries(stages).map(([stage, number]) => ({ tier, reason, stage, number }))));
  const rows = all.sort((a, b) => b.number - a.number).map(({ tier, reason, stage, number }) => (
    <tr key={`${tier} ${reason} ${stage}`} data-evicted={stage}>
      <th scope="row">{stage}</th><td class="word">{tier}</td><td class="word">{WHY[reason] ?? reason}</td><td>{count(number)}</td>
    </tr>
  ));
  return <Table title="Let go, and why" head={["stage", "tier", "why", "artifacts"]} rows={rows} empty="Nothing had to go: everything fits." />;
}

export function Errors(props: { summary: Summary }) {
  const { errors, restarts, faults } = props.summary;
  const all: [string, number][] = [
    ...Object.entries(errors),
    ...Object.entries(restarts).map(([reason, number]): [string, number] => [`worker replaced: ${reason}`, number]),
    ...Object.entries(faults).flatMap(([tier, reasons]) => Object.entries(reasons).map(([reason, number]): [string, number] => [`${tier}: ${reason}`, number])),
  ];
  const rows = all.sort(([, a], [, b]) => b - a).map(([name, number]) => <tr key={name}><th scope="row">{name}</th><td>{count(number)}</td></tr>);
  return <Table title="Errors by type" head={["type", "count"]} rows={rows} empty="Nothing went wrong." />;
}

export function Batches(props: { summary: Summary }) {
  const sizes = Object.entries(props.summary.batches).map(([size, number]): [number, number] => [Number(size), number]).sort(([a], [b]) => a - b);
  const most = Math.max(1, ...sizes.map(([, number]) => number));
  const rows = sizes.map(([size, number]) => (
    <tr key={size}>
      <th scope="row">{size}</th><td>{count(number)}</td>
      <td class="word"><meter min={0} max={most} value={number} aria-label={`batches of ${size}`} /></td>
    </tr>
  ));
  return <Table title="Batch sizes" head={["items", "batches", "share"]} rows={rows} empty="No batch has run." />;
}

export function Dearest(props: { artifacts: Artifact[]; ask: (artifact: Artifact) => void }) {
  const rows = props.artifacts.map((artifact) => (
    <tr key={artifact.key}>
      <th scope="row"><code>{artifact.key.slice(0, 12)}</code></th>
      <td class="word">{artifact.engine} · {artifact.stage}</td><td>{bytes(artifact.bytes)}</td><td>{seconds(artifact.cost_seconds)}</td>
      <td>{seconds(artifact.seconds_per_megabyte / 1000)}</td><td>{count(artifact.hits)}</td><td>{ago(artifact.created)}</td>
      <td class="act"><button type="button" onClick={() => props.ask(artifact)} aria-label={`Purge ${artifact.key.slice(0, 12)}`}>Purge</button></td>
    </tr>
  ));
  return <Table wide title="Dearest artifacts per byte" note="What the store keeps longest: losing them costs most for the room they take."
    head={["key", "what", "size", "cost", "per kB", "hits", "made", "action"]} rows={rows} empty="Nothing is stored." />;
}

/** Where most of the computing goes: the stage, what it takes and its share of all. */
function slowest(summary: Summary): { name: string; mean: number; p95: number | null; share: string } | null {
  const stages = Object.entries(summary.stages).filter(([, stage]) => stage.count).sort(([, a], [, b]) => b.seconds - a.seconds);
  const work = stages.reduce((sum, [, stage]) => sum + stage.seconds, 0);
  const [first] = stages;
  return first ? { name: first[0], mean: first[1].seconds / first[1].count, p95: first[1].p95, share: share(first[1].seconds, work) } : null;
}

/** For how long there have been figures in memory, which begin with the server; null once it is the whole quarter of an hour. */
export const lately = (live: Summary): string | null => (live.seconds < 14.5 * 60 ? seconds(live.seconds) : null);

/** The questions an operator comes with, answered in one line each: what was saved today, and what is slow now. */
export function Answers(props: { told: Operations }) {
  const { live, day, price, queue, poisoned } = props.told;
  const saved = total(day.saved);
  const worth = (saved / 3600) * price.gpu_hour;
  const work = Object.values(day.stages).reduce((sum, stage) => sum + stage.seconds, 0);
  const answered = Object.entries(day.outcomes).filter(([name]) => name !== "failed" && name !== "cancelled");
  const asked = answered.reduce((sum, [, row]) => sum + row.count, 0);
  const stored = answered.filter(([name]) => STORED.includes(name) || name === "joined").reduce((sum, [, row]) => sum + row.count, 0);
  const [now, today] = [slowest(live), slowest(day)];
  const usual = now && day.stages[now.name];
  const wrong = total(day.errors);
  const span = lately(live) ?? "15 minutes";
  const [most, next] = Object.entries(day.errors).sort(([, a], [, b]) => b - a);
  const which = !next ? `all ${most?.[0]}` : most![1] > next[1] ? `most often ${most![0]}` : `${most![0]} and others`;
  return (
    <dl class="answers">
      <div data-answer="saved"><dt>Saved today (24 hours)</dt><dd>{seconds(saved)}</dd><dd class="quiet">
        of computing, worth {price.currency}{worth.toFixed(2)} at {price.currency}{price.gpu_hour} an hour; {seconds(work)} were computed</dd></div>
      <div data-answer="stored"><dt>Answered without computing today</dt><dd>{share(stored, asked)}</dd><dd class="quiet">{count(stored)} of {count(asked)} generations</dd></div>
      <div data-answer="slow"><dt>Slow now ({span})</dt><dd>{now ? `${now.name}, ${seconds(now.mean)}` : "nothing"}</dd><dd class="quiet">
        {now ? <>{now.share} of all computing; p95 {time(now.p95)}{usual?.count ? `; today's mean ${seconds(usual.seconds / usual.count)}` : ""}.
          {live.outcomes.computed ? ` Requests that had to be computed: p95 ${time(live.outcomes.computed.p95)}` : ""}</>
          : `nothing was computed${today ? `; today most went to ${today.name}, ${seconds(today.mean)} each` : ""}`}</dd></div>
      <div data-answer="wait"><dt>Wait for new work, now</dt><dd>{queue.wait_seconds ? seconds(queue.wait_seconds) : "none"}</dd><dd class="quiet">{count(queue.waiting)} waiting, {count(queue.active)} in the kiln</dd></div>
      <div data-answer="wrong"><dt>Errors today</dt><dd>{count(wrong)}</dd><dd class="quiet">
        {wrong ? `${count(total(live.errors))} in the last ${span}; ${which}` : "nothing went wrong"}{poisoned ? `; ${poisoned} inputs are refused for good` : ""}</dd></div>
    </dl>
  );
}
