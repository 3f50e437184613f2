// How far an item is: its stages, and what is being done now.

import type * as api from "./api";
import { called, over, type Item } from "./items";
import { computed, DOING, seconds, stepOf, where, withCut } from "./words";

/** An item's stages as chips that fill, each saying where it was found or how long it took. */
/** open : whether somebody looks at it, and so is told when another stage begins */
export function Progress(props: { item: Item; engine: api.Engine | undefined; open: boolean }) {
  const { item, engine } = props;
  const { live, document } = item;
  const told = document && item.state === "succeeded" ? withCut(document, item.cut).stages! : item.cut;
  const reports = new Map(told.map((stage) => [stage.stage, stage]));
  const names = document?.stages?.map((stage) => stage.stage) ?? engine?.stages ?? [];
  const at = live.stage ? names.indexOf(live.stage) : -1;
  const chips = names.map((name, i) => {
    const report = reports.get(name);
    const done = live.done[name];
    if (report) {
      if (computed(report)) return { name, kind: "computed", told: seconds(report.seconds), fill: 1 };
      if (report.joined) return { name, kind: "found", told: "shared", fill: 1 };
      if (report.source) return { name, kind: "found", told: where(report.source), fill: 1 };
      return { name, kind: "found", told: "not needed", fill: 1 };
    }
    if (done) {
      const found = done.source !== "computed";
      return { name, kind: found ? "found" : "computed", told: !found ? seconds(done.seconds) : done.source === "joined" ? "shared" : where(done.source), fill: 1 };
    }
    if (i === at && !over(item)) return { name, kind: "active", told: live.steps ? `${live.step} of ${live.steps}` : "", fill: live.steps ? live.step / live.steps : 0.5 };
    // Passed without a word: what comes after it was found.
    if (i < at) return { name, kind: "found", told: "", fill: 1 };
    return { name, kind: "", told: "", fill: 0 };
  });
  const [stage, rest] = nowDoing(item);
  const spoken = props.open && item.state !== "held";
  // Why it waits, and until when, is said below.
  const refused = item.state === "sending" && item.problem;
  return (
    <div class="progress">
      <ol class="chips" aria-label="Stages">
        {chips.map((chip) => (
          <li key={chip.name} class={`chip ${chip.kind}`} data-stage={chip.name} title={chip.name in DOING ? `${chip.name}: ${DOING[chip.name]}` : chip.name} aria-current={chip.kind === "active" ? "step" : undefined}>
            <span class="fill" style={{ transform: `scaleX(${chip.fill})` }} />
            <span class="text">{stepOf(chip.name)}{chip.told && <b> {chip.told}</b>}</span>
          </li>
        ))}
      </ol>
      {/* Steps and places change all the time: they can be read, but are not spoken at each change. That the cut-out
          is ready is said of every picture, open or not, and once. */}
      {!over(item) && !refused && <p class="quiet now"><span role={spoken ? "status" : undefined}>{spoken && <span class="hidden">{called(item)}: </span>}{stage}</span>{rest}</p>}
    </div>
  );
}

/** What is being done now, and how far it is. */
function nowDoing(item: Item): [stage: string, rest: string] {
  const { live, document } = item;
  if (item.state === "sending") return [item.wants === "mesh" && item.kept ? "Asking for the mesh" : "Sending the picture", ""];
  if (item.state === "held") return ["The cut-out is ready: it waits for you", ""];
  const left = document?.estimated_seconds;
  const wait = left && left >= 1 ? `, about ${seconds(left)} left` : "";
  const place = live.position ?? document?.position;
  if (item.state === "queued") return place ? ["Waiting", `: number ${place} in the queue${wait}`] : ["Its turn comes next", wait];
  const shared = live.joined ? " (somebody asked for the same: you share the work)" : "";
  const doing = live.stage ? DOING[live.stage] ?? live.stage : "starting";
  const step = live.steps ? `, step ${live.step} of ${live.steps}` : "";
  return [`${doing[0]!.toUpperCase()}${doing.slice(1)}`, `${step}${shared}`];
}
