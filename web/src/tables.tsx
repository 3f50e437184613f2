// Figures in tables: outcomes, stages, workers, what was let go, what went wrong, what is dearest.

import type { ComponentChildren } from "preact";
import type { Artifact, Operations, Summary, Worker } from "./counts";
import { OUTCOMES, STORED, total } from "./counts";
import { ago, bytes, count, seconds } from "./words";

const time = (value: number | null): string => (value === null ? "–" : seconds(value));
const share = (part: number, whole: number): string => (whole ? `${Math.round((part / whole) * 100)} %` : "–");

/** Columns of words, which stand at the left. */
const WORDS = new Set(["state", "what", "why"]);

function Table(props: { title: string; head: string[]; empty: string; rows: ComponentChildren[]; note?: string; wide?: boolean }) {
  const id = props.title.toLowerCase().replace(/\W+/g, "-");
  return (
    <section class={props.wide ? "panel wide" : "panel"} aria-labelledby={id}>
      <h3 id={id}>{props.title}</h3>
      {props.note && <small>{props.note}</small>}
      {props.rows.length ? (
        <div class="scroll" tabindex={0} role="group" aria-labelledby={id}>
          <table>
            <thead><tr>{props.head.map((name) => <th key={name} scope="col" class={WORDS.has(name) ? "word" : ""}>{name}</th>)}</tr></thead>
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
  return <Table wide title="What stages cost" note="Dearest first. Compute seconds: a stage's share of its batch, without waiting."
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
        <td><button type="button" onClick={() => props.ask(worker)} aria-label={`${resting ? "Resume" : "Drain"} worker ${worker.number}`}>{resting ? "Resume" : "Drain"}</button></td>
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
  purged: "an operator let it go",
};

export function Evictions(props: { summary: Summary }) {
  const { evictions } = props.summary;
  const rows = Object.entries(evictions).flatMap(([tier, reasons]) =>
    Object.entries(reasons).map(([reason, number]) => (
      <tr key={`${tier} ${reason}`}>
        <th scope="row">{tier}</th><td class="word">{WHY[reason] ?? reason}</td><td>{count(number)}</td>
      </tr>
    )),
  );
  return <Table title="Let go, and why" head={["tier", "why", "artifacts"]} rows={rows} empty="Nothing had to go: everything fits." />;
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
      <td class="bar"><meter min={0} max={most} value={number} aria-label={`batches of ${size}`} /></td>
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
      <td><button type="button" onClick={() => props.ask(artifact)} aria-label={`Purge ${artifact.key.slice(0, 12)}`}>Purge</button></td>
    </tr>
  ));
  return <Table wide title="Dearest artifacts per byte" note="What the store keeps longest: losing them costs most for the room they take."
    head={["key", "what", "size", "cost", "per kB", "hits", "made", "action"]} rows={rows} empty="Nothing is stored." />;
}

/** The questions an operator comes with, answered in one line each. */
export function Answers(props: { told: Operations; summary: Summary; span: string }) {
  const { told, summary } = props;
  const saved = total(summary.saved);
  const worth = (saved / 3600) * told.price.gpu_hour;
  const answered = Object.entries(summary.outcomes).filter(([name]) => name !== "failed" && name !== "cancelled");
  const asked = answered.reduce((sum, [, row]) => sum + row.count, 0);
  const stored = answered.filter(([name]) => STORED.includes(name) || name === "joined").reduce((sum, [, row]) => sum + row.count, 0);
  const slow = Object.entries(summary.stages).filter(([, stage]) => stage.count).sort(([, a], [, b]) => b.seconds - a.seconds)[0];
  const work = Object.values(summary.stages).reduce((sum, stage) => sum + stage.seconds, 0);
  const wrong = total(summary.errors);
  return (
    <dl class="answers">
      <div data-answer="saved"><dt>Saved in the {props.span}</dt><dd>{seconds(saved)}</dd><dd class="quiet">
        worth {told.price.currency}{worth.toFixed(2)} at {told.price.currency}{told.price.gpu_hour} an hour; {seconds(work)} were computed</dd></div>
      <div data-answer="stored"><dt>Answered without computing</dt><dd>{share(stored, asked)}</dd><dd class="quiet">{count(stored)} of {count(asked)} generations</dd></div>
      <div data-answer="slow"><dt>Most time goes to</dt><dd>{slow ? slow[0] : "–"}</dd><dd class="quiet">
        {slow ? `${share(slow[1].seconds, work)} of all work; ${seconds(slow[1].seconds / slow[1].count)} on average, p95 ${time(slow[1].p95)}` : "nothing was computed"}</dd></div>
      <div data-answer="wait"><dt>Wait for new work, now</dt><dd>{told.queue.wait_seconds ? seconds(told.queue.wait_seconds) : "none"}</dd><dd class="quiet">{count(told.queue.waiting)} waiting, {count(told.queue.active)} in the kiln</dd></div>
      <div data-answer="wrong"><dt>Errors</dt><dd>{count(wrong)}</dd><dd class="quiet">{told.poisoned ? `${told.poisoned} inputs are refused for good` : wrong ? "by type below" : "nothing went wrong"}</dd></div>
    </dl>
  );
}
