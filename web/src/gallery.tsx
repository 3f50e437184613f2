// What the store holds, newest first. One mesh may be there in several formats: they are one entry, and go together.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { Confirm, type Question } from "./confirm";
import { Said, useSaid, type Say } from "./frame";
import { Ready } from "./item";
import { preview } from "./previews";
import { ago, bytes, seconds } from "./words";

interface Stored {
  key: string;
  media_type: string;
  bytes: number;
  created: number;
  engine: string;
  parameters: Record<string, unknown> | null;
  source: string | null;
  cost_seconds: number;
  links: { self: string; generation: string; preview: string };
}

interface Shape {
  name: string;
  files: Stored[];
}

/** Entries of one mesh together: same picture, same engine, same parameters but for the file's own. */
function shapes(stored: Stored[]): Shape[] {
  const found = new Map<string, Shape>();
  for (const one of stored) {
    const { format, size, ...rest } = one.parameters ?? {};
    const name = one.source ? JSON.stringify([one.engine, one.source, Object.entries(rest).sort()]) : one.key;
    const shape = found.get(name);
    if (shape) shape.files.push(one);
    else found.set(name, { name, files: [one] });
  }
  return [...found.values()];
}

const glb = (shape: Shape): Stored | undefined => shape.files.find((file) => file.media_type === "model/gltf-binary");

export function Gallery(props: { made: number; engines: api.Engine[]; say: Say }) {
  const [stored, setStored] = useState<Stored[] | null>(null);
  const [next, setNext] = useState<number | null>(null);
  const [open, setOpen] = useState<Shape | null>(null);
  const [question, setQuestion] = useState<Question | null>(null);
  const load = useCallback(async (before: number | null) => {
    try {
      const page = await api.read<{ artifacts: Stored[]; next: number | null }>(`/v1/artifacts?limit=24${before ? `&before=${before}` : ""}`);
      setStored((held) => (before ? [...(held ?? []), ...page.artifacts] : page.artifacts));
      setNext(page.next);
    } catch {
      // away: loaded again when it is back
    }
  }, []);
  useEffect(() => void load(null), [props.made]);
  useEffect(() => api.onPresence((here) => here && void load(null)), []);
  const forget = async (shape: Shape) => {
    // Other formats may have been made since the list was loaded.
    const page = await api.read<{ artifacts: Stored[] }>("/v1/artifacts?limit=200").catch(() => ({ artifacts: [] }));
    const same = shapes(page.artifacts).find((held) => held.name === shape.name)?.files ?? [];
    const doomed = new Map([...shape.files, ...same].map((file) => [file.key, file]));
    for (const file of doomed.values()) {
      try {
        await api.ask(`/v1/cache/${file.key}`, { method: "DELETE" });
      } catch (error) {
        if (!(error instanceof api.Problem && error.status === 404)) return props.say((error as Error).message);
      }
    }
    setStored((held) => (held ?? []).filter((one) => !doomed.has(one.key)));
    props.say("Deleted from the store");
  };
  // Asked first: what goes is everybody's, and its neighbour moves under the pointer.
  const ask = (shape: Shape) =>
    setQuestion({
      title: `Delete the mesh made ${ago(shape.files[0]!.created)}?`,
      text: "It is taken out of the store in all its formats, for everybody. Asked for again, it is made again.",
      action: "Delete",
      danger: true,
      act: () => forget(shape),
    });
  if (stored === null) return null;
  const held = shapes(stored);
  return (
    <section aria-labelledby="gallery" class="kept">
      <h2 id="gallery">Meshes made so far</h2>
      {held.length === 0 && <p class="empty">Nothing yet. Meshes that are made are kept here, and the same picture is never worked on twice.</p>}
      <ul class="gallery">
        {held.map((shape) => <Card key={shape.name} shape={shape} open={() => setOpen(shape)} forget={() => ask(shape)} />)}
      </ul>
      {next !== null && <button type="button" onClick={() => void load(next)}>Show more</button>}
      <Confirm question={question} close={() => setQuestion(null)} />
      {open && <Sheet shape={open} engines={props.engines} close={() => setOpen(null)} />}
    </section>
  );
}

function Card(props: { shape: Shape; open: () => void; forget: () => void }) {
  const first = props.shape.files[0]!;
  const shown = glb(props.shape) ?? first;
  const look = useRef<HTMLButtonElement>(null);
  const [picture, setPicture] = useState<string | null>(null);
  useEffect(() => {
    const abort = new AbortController();
    let url: string | null = null;
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      void preview(shown.links.preview, abort.signal).then((found) => {
        if (found && !abort.signal.aborted) setPicture((url = URL.createObjectURL(found)));
      });
    }, { rootMargin: "200px" });
    seen.observe(look.current!);
    return () => {
      seen.disconnect();
      abort.abort();
      if (url) URL.revokeObjectURL(url);
    };
  }, [shown.links.preview]);
  const what = `the mesh made ${ago(first.created)}`;
  return (
    <li>
      <button ref={look} type="button" class="look" onClick={props.open} aria-label={`Look at ${what}`}>
        {picture ? <img src={picture} alt="" width="384" height="384" /> : <span class="noimage" />}
      </button>
      <div class="about">
        <span><strong>{first.engine}</strong> <span class="quiet">{ago(first.created)}</span></span>
        <button type="button" class="plain" onClick={props.forget} aria-label={`Delete ${what}`}>Delete</button>
      </div>
      <span class="quiet small">{bytes(shown.bytes)}, took {seconds(shown.cost_seconds)} to make</span>
    </li>
  );
}

function Sheet(props: { shape: Shape; engines: api.Engine[]; close: () => void }) {
  const [said, say] = useSaid();
  const dialog = useRef<HTMLDialogElement>(null);
  const [document, setDocument] = useState<api.Generation | null>(null);
  const [problem, setProblem] = useState("");
  const file = glb(props.shape) ?? props.shape.files[0]!;
  useEffect(() => {
    dialog.current?.showModal();
    api.read<api.Generation>(file.links.generation).then(setDocument, (error: Error) => setProblem(error.message));
  }, []);
  const name = `mesh-${file.key.slice(0, 8)}`;
  return (
    <dialog ref={dialog} class="sheet" aria-labelledby="stored" onClose={props.close}>
      <div class="head">
        <h2 id="stored">Made {ago(file.created)}</h2>
        <button type="button" class="plain" onClick={() => dialog.current?.close()} aria-label="Close">✕</button>
      </div>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {document && (
        <Ready item={{ id: "", name, query: {}, answered: null, cut: [] }} document={document} format="glb" say={say} picture={glb(props.shape) ? undefined : file.links.preview}
          engine={props.engines.find((engine) => engine.name === document.engine)} />
      )}
      <Said {...said} />
    </dialog>
  );
}
