// One picture and what becomes of it.

import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { Cutout } from "./cutout";
import { Verdict } from "./feedback";
import { add, cancel, over, remove, send, type Item } from "./items";
import { pictureOf } from "./kept";
import { Model } from "./model";
import { bytes, computed, DOING, provenance, seconds } from "./words";

/** What a finished mesh needs to be told of its picture. id : where the picture is kept in this browser, or "" */
export type Subject = Pick<Item, "id" | "name" | "query" | "answered">;

const STATES: Record<Item["state"], string> = {
  sending: "Sending",
  queued: "Waiting",
  running: "Working",
  succeeded: "Ready",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** A picture of this browser's, as something an <img> can show. */
function usePicture(id: string): string | null {
  const [url, set] = useState<string | null>(null);
  useEffect(() => {
    let made: string | null = null;
    let gone = false;
    void pictureOf(id).then((picture) => {
      if (picture && !gone) set((made = URL.createObjectURL(picture)));
    });
    return () => {
      gone = true;
      if (made) URL.revokeObjectURL(made);
    };
  }, [id]);
  return url;
}

export function ItemView(props: {
  item: Item; engine: api.Engine | undefined; open: boolean; format: string; toggle: () => void; select: (id: string) => void; say: (what: string) => void;
}) {
  const { item, engine, open } = props;
  const picture = usePicture(item.id);
  const [repairing, setRepairing] = useState(false);
  const [kept, setKept] = useState(false);
  const [broken, setBroken] = useState(false);
  const cutout = broken ? null : item.cutout;
  const body = `body-${item.id}`;
  useEffect(() => setBroken(false), [item.cutout]);

  const repaired = async (png: Blob) => {
    setRepairing(false);
    if (!over(item)) await cancel(item.id);
    const id = await add(png, item.name, { ...item.query, ...(takesAlpha(engine) ? { matte: "alpha" } : { remove_background: "false" }) }, true);
    props.select(id);
    props.say("The repaired cut-out is sent");
  };

  return (
    <li class={`item ${item.state}${open ? " open" : ""}`} data-item={item.id} data-state={item.state}>
      <div class="head">
        <button type="button" class="title" aria-expanded={open} aria-controls={body} onClick={props.toggle}>
          {picture ? <img class="thumb" src={cutout ?? picture} alt="" onError={() => setBroken(true)} /> : <span class="thumb" />}
          <span class="name">{item.name}{item.repaired && <span class="quiet"> (repaired)</span>}</span>
          <span class={`state ${item.state}`}>{STATES[item.state]}</span>
        </button>
        {!over(item) && <button type="button" onClick={() => void cancel(item.id)} aria-label={`Cancel ${item.name}`}>Cancel</button>}
        {over(item) && item.state !== "succeeded" && (
          <button type="button" onClick={() => void send(item.id)} aria-label={`Try ${item.name} again`}>Try again</button>
        )}
        {over(item) && <button type="button" class="plain" onClick={() => remove(item.id)} aria-label={`Take ${item.name} off the list`} title="Take off the list">✕</button>}
      </div>
      {(open || !over(item)) && <Progress item={item} engine={engine} />}
      {item.problem && (
        <p class="problem" role="alert">
          <strong>{item.problem.title}.</strong> {item.problem.detail}
        </p>
      )}
      <div id={body} hidden={!open}>
        {open && (
          <div class="pair">
            <figure class="input">
              {picture && <img class={cutout ? "checker" : ""} src={cutout ?? picture} alt={cutout ? `The subject cut out of ${item.name}` : item.name} onError={() => setBroken(true)} />}
              <figcaption>
                <span>{cutout ? (item.repaired ? "Your cut-out" : "The cut-out: what becomes a mesh") : "The picture"}</span>
                {picture && (
                  <span class="row">
                    {cutout && !kept && !item.repaired && <button type="button" onClick={() => { setKept(true); props.say("The cut-out is kept"); }}>Keep it</button>}
                    <button type="button" onClick={() => setRepairing(true)}>Repair it</button>
                  </span>
                )}
              </figcaption>
            </figure>
            {item.document && item.state === "succeeded" ? (
              <Ready item={item} document={item.document} engine={engine} format={props.format} say={props.say} />
            ) : (
              <div class="model waiting"><p class="quiet">{over(item) ? "No mesh was made." : "The mesh appears here."}</p></div>
            )}
          </div>
        )}
      </div>
      {repairing && <Cutout id={item.id} cutout={cutout} close={() => setRepairing(false)} done={(png) => void repaired(png)} />}
    </li>
  );
}

function Progress(props: { item: Item; engine: api.Engine | undefined }) {
  const { item, engine } = props;
  const { live, document } = item;
  const reports = new Map((document?.stages ?? []).map((stage) => [stage.stage, stage]));
  const names = document?.stages?.map((stage) => stage.stage) ?? engine?.stages ?? [];
  const at = live.stage ? names.indexOf(live.stage) : -1;
  const chips = names.map((name, i) => {
    const report = reports.get(name);
    const done = live.done[name];
    if (report) {
      if (computed(report)) return { name, kind: "computed", told: seconds(report.seconds), fill: 1 };
      if (report.joined) return { name, kind: "found", told: "shared", fill: 1 };
      if (report.source) return { name, kind: "found", told: `in ${report.source}`, fill: 1 };
      return { name, kind: "found", told: "not needed", fill: 1 };
    }
    if (done) {
      const found = done.source !== "computed";
      return { name, kind: found ? "found" : "computed", told: !found ? seconds(done.seconds) : done.source === "joined" ? "shared" : `in ${done.source}`, fill: 1 };
    }
    if (i === at && !over(item)) return { name, kind: "active", told: live.steps ? `${live.step} of ${live.steps}` : "", fill: live.steps ? live.step / live.steps : 0.5 };
    if (i < at) return { name, kind: "computed", told: "", fill: 1 };
    return { name, kind: "", told: "", fill: 0 };
  });
  return (
    <div class="progress">
      <ol class="chips" aria-label="Stages">
        {chips.map((chip) => (
          <li key={chip.name} class={`chip ${chip.kind}`} data-stage={chip.name} title={DOING[chip.name] ?? chip.name} aria-current={chip.kind === "active" ? "step" : undefined}>
            <span class="fill" style={{ transform: `scaleX(${chip.fill})` }} />
            <span class="text">{chip.name}{chip.told && <b> {chip.told}</b>}</span>
          </li>
        ))}
      </ol>
      {!over(item) && <p class="quiet now" role="status">{nowDoing(item)}</p>}
    </div>
  );
}

function nowDoing(item: Item): string {
  const { live, document } = item;
  if (item.state === "sending") return "Sending the picture";
  const left = document?.estimated_seconds;
  const wait = left && left >= 1 ? `, about ${seconds(left)} left` : "";
  const place = live.position ?? document?.position;
  if (item.state === "queued") return place ? `Number ${place} in the queue${wait}` : `Its turn comes next${wait}`;
  const shared = live.joined ? " (somebody asked for the same: you share the work)" : "";
  const doing = live.stage ? DOING[live.stage] ?? live.stage : "starting";
  const step = live.steps ? `, step ${live.step} of ${live.steps}` : "";
  return `${doing[0]!.toUpperCase()}${doing.slice(1)}${step}${shared}`;
}

const takesAlpha = (engine: api.Engine | undefined): boolean => engine?.parameters.some((p) => p.name === "matte") ?? true;

/** A finished mesh: to be looked at, told about, downloaded and judged. */
export function Ready(props: { item: Subject; document: api.Generation; engine: api.Engine | undefined; format: string; say: (what: string) => void }) {
  const { item, document } = props;
  const millimetres = Number(item.query.size ?? props.engine?.parameters.find((p) => p.name === "size")?.default ?? 100);
  return (
    <div class="model">
      <Model url={document.links.artifact!} name={item.name} millimetres={millimetres} />
      <p class="provenance">{provenance(document, props.engine, item.answered)}. <span class="quiet">{bytes(document.bytes ?? 0)}</span></p>
      <Downloads {...props} />
      <Verdict generation={document.id} />
    </div>
  );
}

const EXTENSIONS: Record<string, string> = { obj: "zip" };

function Downloads(props: { item: Subject; document: api.Generation; format: string; say: (what: string) => void }) {
  const { item, document, say } = props;
  const [busy, setBusy] = useState<string | null>(null);
  const [problem, setProblem] = useState("");
  const anchor = useRef<HTMLAnchorElement>(null);
  const links = document.links.formats ?? {};
  const names = Object.keys(links).sort((a, b) => Number(b === props.format) - Number(a === props.format));

  const bytesOf = async (format: string): Promise<Response> => {
    try {
      return await api.ask(links[format]!);
    } catch (error) {
      // A stored answer without a job cannot be converted by its name alone; the picture is here, so ask with it.
      const picture = error instanceof api.Problem && [404, 409, 410].includes(error.status) ? await pictureOf(item.id) : null;
      if (!picture) throw error;
      const made = await api.generate(picture, { ...item.query, format, wait: "60" });
      if (!made.links.artifact) throw error;
      return api.ask(made.links.artifact);
    }
  };
  const download = async (format: string) => {
    setBusy(format);
    setProblem("");
    try {
      const file = await (await bytesOf(format)).blob();
      const url = URL.createObjectURL(file);
      const link = anchor.current!;
      link.href = url;
      link.download = `${item.name.replace(/\.\w+$/, "") || "mesh"}.${EXTENSIONS[format] ? `${format}.${EXTENSIONS[format]}` : format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      say(`${format.toUpperCase()} downloaded, ${bytes(file.size)}`);
    } catch (error) {
      setProblem((error as Error).message);
    }
    setBusy(null);
  };
  return (
    <div class="downloads" role="group" aria-label="Download">
      {names.map((format, i) => (
        <button key={format} type="button" class={i ? "" : "main"} data-format={format} disabled={busy !== null} onClick={() => void download(format)}>
          {busy === format ? "…" : ""}{i ? "" : "Download "}{format.toUpperCase()}
        </button>
      ))}
      <a ref={anchor} hidden>file</a>
      {problem && <p class="problem" role="alert">{problem}</p>}
    </div>
  );
}
