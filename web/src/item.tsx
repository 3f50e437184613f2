// One picture and what becomes of it.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { Cutout } from "./cutout";
import { Verdict } from "./feedback";
import type { Say } from "./frame";
import { pick } from "./give";
import { called, over, type Item } from "./items";
import { pictureOf } from "./kept";
import { Model } from "./model";
import { cutAlready, inWords, showOption } from "./options";
import { usePreview } from "./previews";
import { helpOf, titleOf } from "./problems";
import { Progress } from "./progress";
import { again, askNow, cancel, keep, remove, repair, send } from "./sending";
import { bytes, provenance, used, withCut } from "./words";

/** What a finished mesh needs to be told of its picture. id : where the picture is kept in this browser, or "" */
export type Subject = Pick<Item, "id" | "name" | "query" | "answered" | "cut">;

const STATES: Record<Item["state"], string> = {
  sending: "Sending",
  held: "Your turn",
  queued: "Waiting",
  running: "Working",
  succeeded: "Ready",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** What the state of an item is called. */
function stateOf(item: Item): string {
  // The server does not take it for now: it is asked for again.
  if (item.state === "sending" && item.problem) return "Waiting";
  return item.state === "cancelled" && item.replaced ? "Repaired" : STATES[item.state];
}

const SAID: Partial<Record<Item["state"], string>> = {
  held: "the cut-out is ready, to be kept or repaired",
  succeeded: "the mesh is ready",
  failed: "it failed",
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
  item: Item; engine: api.Engine | undefined; anew: Record<string, string>[]; now: Record<string, string> | null; twin: boolean; open: boolean; format: string; asks: boolean; setAsks: (asks: boolean) => void; toggle: () => void; select: (id: string) => void; say: Say;
}) {
  const { item, engine, open } = props;
  const name = called(item);
  const given = usePicture(item.id);
  const [repairing, setRepairing] = useState(false);
  const [broken, setBroken] = useState(false);
  const [unseen, setUnseen] = useState(false);
  // A server that is busy draws it later: what an <img> could not have is asked for until there is an answer.
  const later = usePreview(broken ? item.cutout : null);
  const cutout = broken ? later ?? null : item.cutout;
  // A file that this browser cannot show is no picture, or one of a kind that only the server reads.
  const picture = cutout || !unseen ? given : null;
  const failed = () => (cutout ? setBroken(true) : setUnseen(true));
  const body = `body-${item.id}`;
  useEffect(() => setBroken(false), [item.cutout]);
  const title = useRef<HTMLButtonElement>(null);
  const before = useRef(item.state);
  useEffect(() => {
    // Said to who does not see it, once, and not again after a refresh.
    if (before.current !== item.state && SAID[item.state]) props.say(`${name}: ${SAID[item.state]}`, false);
    before.current = item.state;
  }, [item.state]);

  const repaired = async (png: Blob) => {
    setRepairing(false);
    const id = await repair(item.id, png, cutAlready(engine));
    if (id) props.select(id);
    props.say("The repaired cut-out is sent");
  };

  const more = async () => {
    const id = await again(item.id, props.anew);
    if (id) props.select(id);
    props.say(id ? `${item.name} is made again` : "The picture is gone: add it again");
  };

  return (
    <li class={`item ${item.state}${open ? " open" : ""}`} data-item={item.id} data-state={item.state}>
      <div class="head">
        <button ref={title} type="button" class="title" aria-expanded={open} aria-controls={body} onClick={props.toggle}>
          {picture ? <img class="thumb" src={cutout ?? picture} alt="" onError={failed} /> : <span class="thumb" />}
          <span class="name">{name}{item.repaired && <span class="quiet"> (repaired)</span>}{props.twin && <span class="quiet twin">{told([{ ...item.query, seed: "" }])}</span>}</span>
          <span class={`state ${item.state}`}>{stateOf(item)}</span>
        </button>
        {item.state === "held" && !open && <button type="button" class="main" onClick={() => keep(item.id)} aria-label={`Make the mesh of ${name}`}>Make the mesh</button>}
        {!over(item) && <button type="button" onClick={() => void cancel(item.id)} aria-label={`Cancel ${name}`}>Cancel</button>}
        {over(item) && item.state !== "succeeded" && <Helping item={item} name={name} engine={engine} now={props.now} />}
        {over(item) && <button type="button" class="plain" onClick={() => { remove(item.id); props.say(`${name} is off the list`, false); }} aria-label={`Take ${name} off the list`} title="Take off the list">✕</button>}
      </div>
      {(open || !over(item)) && <Progress item={item} engine={engine} open={open} />}
      {item.problem && (
        <p class={over(item) ? "problem" : "problem waits"} role="alert">
          <strong>{titleOf(item.problem)}{item.problem.detail ? ":" : "."}</strong> {helpOf(item.problem) === "options" ? inWords(engine, item.problem.detail) : item.problem.detail}
        </p>
      )}
      {item.problem && item.state === "sending" && <Asking item={item} name={name} />}
      <div id={body} hidden={!open}>
        {open && (
          <div class="pair">
            <figure class="input">
              {picture && <img class={cutout ? "checker" : ""} src={cutout ?? picture} alt={cutout ? `The subject cut out of ${name}` : name} onError={failed} />}
              <figcaption>
                <span>{!picture ? "There is nothing to be seen of it." : !cutout ? "The picture" : item.repaired ? "Your cut-out" : item.state === "held" ? "The cut-out" : "The cut-out: what becomes a mesh"}</span>
                {picture && item.state !== "held" && <button type="button" onClick={() => setRepairing(true)}>Repair it</button>}
              </figcaption>
              {picture && over(item) && (props.anew.length > 0 || helpOf(item.problem) !== "picture") && (
                <div class="row again">
                  <button type="button" disabled={!props.anew.length} onClick={() => void more()}>Make it again</button>
                  <small>{props.anew.length ? `now: ${told(props.anew)}` : "Change the options, and it can be made otherwise."}</small>
                </div>
              )}
            </figure>
            {item.document && item.state === "succeeded" ? (
              <Ready item={item} document={item.document} engine={engine} format={props.format} say={props.say} again={given ? () => void send(item.id) : undefined} />
            ) : item.state === "held" ? (
              <Asked keep={() => { keep(item.id); title.current?.focus(); }} repair={() => setRepairing(true)} asks={props.asks} setAsks={props.setAsks} />
            ) : (
              <div class="model waiting"><p class="quiet">{item.replaced && over(item) ? "The mesh was made of the repaired cut-out." : over(item) ? "No mesh was made." : "The mesh appears here."}</p></div>
            )}
          </div>
        )}
      </div>
      {repairing && <Cutout id={item.id} of={item.cutout ?? ""} cutout={cutout} say={props.say} close={() => setRepairing(false)} done={(png) => void repaired(png)} />}
    </li>
  );
}

/** What somebody can do about an item of which nothing came. now : what it would be asked for with as the options are, if that is something else */
function Helping(props: { item: Item; name: string; engine: api.Engine | undefined; now: Record<string, string> | null }) {
  const { item, name, engine, now } = props;
  const help = helpOf(item.problem);
  if (help === "picture") return <button type="button" onClick={pick} aria-label={`Choose another picture than ${name}`}>Choose another picture</button>;
  if (help === "options" && !now) return <button type="button" onClick={() => showOption(engine, item.problem?.detail ?? "")} aria-label={`Change the options of ${name}`}>Change the options</button>;
  if (help === "options" && now) return <button type="button" onClick={() => void send(item.id, now)} aria-label={`Make ${name} with the options as they are now`}>Make it as the options are now</button>;
  if (item.replaced) return <button type="button" onClick={() => void send(item.id)} aria-label={`Make ${name} unrepaired`}>Make it unrepaired</button>;
  return <button type="button" onClick={() => void send(item.id)} aria-label={`Try ${name} again`}>Try again</button>;
}

/** When it is asked for again: to be read, and not spoken each second. */
function Asking(props: { item: Item; name: string }) {
  const { again } = props.item.live;
  const [now, look] = useState(Date.now());
  useEffect(() => {
    look(Date.now());
    const timer = setInterval(() => look(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [again]);
  return (
    <p class="row asking">
      <span>{again === null ? "Asking again …" : `Asking again in ${Math.max(1, Math.ceil((again - now) / 1000))} s`}</span>
      <button type="button" aria-disabled={again === null} onClick={() => again !== null && askNow(props.item.id)} aria-label={`Ask now for ${props.name}`}>Ask now</button>
    </p>
  );
}

/** What the meshes of such queries will be. */
function told(queries: Record<string, string>[]): string {
  const [first, last] = [queries[0]!, queries.at(-1)!];
  const seed = first.seed && (first === last ? `seed ${first.seed}` : `seeds ${first.seed} to ${last.seed}`);
  const { engine, recipe, seed: _, matte, remove_background, ...others } = first;
  return [engine, recipe, seed, ...Object.entries(others).map(([name, value]) => `${name.replaceAll("_", " ")} ${value}`)].filter(Boolean).join(", ");
}

/** What is asked before a mesh is made: whether it should be of this cut-out. */
function Asked(props: { keep: () => void; repair: () => void; asks: boolean; setAsks: (asks: boolean) => void }) {
  return (
    <div class="model asked" role="group" aria-labelledby="asked">
      <h3 id="asked">Is only the object left?</h3>
      <p class="quiet">The mesh is made of what you see here, and of nothing else.</p>
      <div class="row">
        <button type="button" class="main" onClick={props.keep}>Keep it: make the mesh</button>
        <button type="button" onClick={props.repair}>Repair it with a brush</button>
      </div>
      <label class="inline quiet"><input type="checkbox" checked={!props.asks} onChange={(e) => props.setAsks(!e.currentTarget.checked)} />Go on by itself next time</label>
    </div>
  );
}

/** A finished mesh: to be looked at, told about, downloaded and judged. 
 *  again : has it made again when it is gone; instead : what is shown in place of the mesh itself */
export function Ready(props: { item: Subject; document: api.Generation; engine: api.Engine | undefined; format: string; say: Say; again?: () => void; instead?: ComponentChildren }) {
  const { item, document } = props;
  const millimetres = Number(item.query.size ?? used(document, props.engine, "size") ?? 100);
  return (
    <div class="model">
      <Downloads {...props} />
      {props.instead ?? <Model url={document.links.artifact!} name={called(item)} millimetres={millimetres} again={props.again} />}
      <p class="provenance">{provenance(withCut(document, item.cut), props.engine, item.answered)}. <span class="quiet">{[document.engine, document.recipe, bytes(document.bytes ?? 0)].filter(Boolean).join(", ")}</span></p>
      <Verdict key={document.id} generation={document.id} />
    </div>
  );
}

const EXTENSIONS: Record<string, string> = { obj: "zip" };

function Downloads(props: { item: Subject; document: api.Generation; engine: api.Engine | undefined; format: string; say: Say }) {
  const { item, document, engine, say } = props;
  const [busy, setBusy] = useState<string | null>(null);
  const [again, setAgain] = useState(false);
  const [atHand, setAtHand] = useState(false);
  const [problem, setProblem] = useState("");
  const anchor = useRef<HTMLAnchorElement>(null);
  const links = document.links.formats ?? {};
  // What the server cannot make any more, for it lets go of pictures after a while, is made of the one that is kept here.
  const lost = atHand && engine?.name === document.engine ? Object.keys(engine.formats).filter((format) => !(format in links)) : [];
  const names = [...Object.keys(links), ...lost].sort((a, b) => Number(b === props.format) - Number(a === props.format));
  useEffect(() => void pictureOf(item.id).then((picture) => setAtHand(picture !== null)), [item.id]);

  const bytesOf = async (format: string): Promise<Response> => {
    let refused: unknown = new Error("its picture is not kept here");
    if (links[format]) {
      try {
        return await api.ask(links[format]);
      } catch (error) {
        if (!(error instanceof api.Problem && [404, 409, 410].includes(error.status))) throw error;
        refused = error;
      }
    }
    const picture = await pictureOf(item.id);
    if (!picture) throw refused;
    setAgain(true);
    return api.ask(await made(picture, { ...item.query, format }));
  };
  const download = async (format: string) => {
    if (busy) return;
    setBusy(format);
    setProblem("");
    try {
      const file = await (await bytesOf(format)).blob();
      const url = URL.createObjectURL(file);
      const link = anchor.current!;
      link.href = url;
      link.download = `${called(item).replace(/\.\w+(?= \(seed|$)/, "") || "mesh"}.${EXTENSIONS[format] ? `${format}.${EXTENSIONS[format]}` : format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      say(`${format.toUpperCase()} downloaded, ${bytes(file.size)}`);
    } catch (error) {
      setProblem((error as Error).message);
    }
    setBusy(null);
    setAgain(false);
  };
  return (
    <div class="downloads" role="group" aria-label="Download">
      {names.map((format, i) => (
        <button key={format} type="button" class={i ? "" : "main"} data-format={format} aria-disabled={busy !== null} onClick={() => void download(format)}>
          {busy === format ? "…" : ""}{i ? "" : "Download "}{format.toUpperCase()}
        </button>
      ))}
      <a ref={anchor} hidden>file</a>
      {links.glb && links.stl && <small>GLB for 3D programs and the web, STL or 3MF for printing.</small>}
      {lost.length > 0 && <small>The server has let go of the picture: for {lost.map((format) => format.toUpperCase()).join(", ")} yours is sent again.</small>}
      {again && <small role="status">The mesh is made again of your picture<span class="hidden"> {called(item)}</span> …</small>}
      {problem && <p class="problem" role="alert">{problem}</p>}
    </div>
  );
}

/** Where the mesh of a picture is, once it is made. */
async function made(picture: Blob, query: Record<string, string>): Promise<string> {
  let document = await api.generate(picture, { ...query, wait: "30" });
  while (document.state === "queued" || document.state === "running") {
    await new Promise((resolve) => setTimeout(resolve, 1500));
    document = await api.read<api.Generation>(document.links.self);
  }
  const { error } = document;
  if (!document.links.artifact) throw new Error(error ? [error.title, error.detail].filter(Boolean).join(": ") : "it was cancelled");
  return document.links.artifact;
}
