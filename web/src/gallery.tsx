// What the store holds, newest first. One mesh may be there in several formats: they are one entry, and go together.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import { Confirm, type Question } from "./confirm";
import { useFocusKept } from "./focus";
import { Said, useSaid, type Say } from "./frame";
import { Ready } from "./item";
import { usePreview } from "./previews";
import { ago, bytes, seconds } from "./words";

interface Stored {
  key: string;
  media_type: string;
  bytes: number;
  created: number;
  engine: string;
  /** The same for all files of one mesh. */
  mesh: string;
  cost_seconds: number;
  links: { self: string; generation: string; preview: string };
}

interface Shape {
  name: string;
  files: Stored[];
}

/** Meshes listed at first and more each time, the most that the server lists at once, and milliseconds for which a list is fresh. */
const [PAGE, MOST, FRESH] = [24, 200, 5000];

/** Entries of one mesh together. */
function shapes(stored: Stored[]): Shape[] {
  const found = new Map<string, Shape>();
  for (const one of stored) {
    const shape = found.get(one.mesh);
    if (shape) shape.files.push(one);
    else found.set(one.mesh, { name: one.mesh, files: [one] });
  }
  return [...found.values()];
}

const glb = (shape: Shape): Stored | undefined => shape.files.find((file) => file.media_type === "model/gltf-binary");

/** The file that is shown of a mesh. */
const shownOf = (shape: Shape): Stored => glb(shape) ?? shape.files[0]!;

/** What a mesh is called, here and when it is downloaded: several may have been made in one minute. */
const nameOf = (shape: Shape): string => `mesh-${shownOf(shape).key.slice(0, 8)}`;

/** names : what this browser calls meshes that it asked for, by their keys, which nobody else knows */
export function Gallery(props: { made: number; names: Map<string, string>; engines: api.Engine[]; say: Say }) {
  const [stored, setStored] = useState<Stored[] | null>(null);
  const [next, setNext] = useState<number | null>(null);
  const [open, setOpen] = useState<Shape | null>(null);
  const [question, setQuestion] = useState<Question | null>(null);
  const [problem, setProblem] = useState("");
  const focus = useFocusKept(".gallery > li", ".gallery > li:last-child > button", "#gallery");
  const listed = useRef(0);
  listed.current = stored?.length ?? 0;
  const load = useCallback(async (before: number | null) => {
    // Who has had more shown keeps it, as far as one answer holds that.
    const limit = before ? PAGE : Math.min(MOST, Math.max(PAGE, listed.current));
    try {
      const page = await api.read<{ artifacts: Stored[]; next: number | null }>(`/v1/artifacts?limit=${limit}${before ? `&before=${before}` : ""}`);
      setStored((held) => (before ? [...(held ?? []), ...page.artifacts] : page.artifacts));
      setNext(page.next);
      setProblem("");
    } catch (error) {
      // Who is away is said to be so, and the meshes are listed when it is back.
      if (!(error instanceof api.Away)) setProblem(`The meshes cannot be listed. ${(error as Error).message}`);
    }
  }, []);
  useEffect(() => void load(null), [props.made]);
  useEffect(() => api.onPresence((here) => here && void load(null)), []);
  useEffect(() => api.onGone(() => void load(null)), []);
  // Others make and delete meshes, too: who comes back sees what there is now.
  useEffect(() => {
    let looked = Date.now();
    const back = () => {
      if (document.hidden || Date.now() - looked < FRESH) return;
      looked = Date.now();
      void load(null);
    };
    addEventListener("focus", back);
    document.addEventListener("visibilitychange", back);
    return () => {
      removeEventListener("focus", back);
      document.removeEventListener("visibilitychange", back);
    };
  }, []);
  const forget = async (shape: Shape) => {
    setProblem("");
    let gone = shape.files.map((file) => file.key);
    try {
      const said = await api.read<{ deleted: string[] }>(shownOf(shape).links.self, { method: "DELETE" });
      gone = [...gone, ...said.deleted];
    } catch (error) {
      // Who finds nothing to delete was not the first.
      if (!(error instanceof api.Problem && error.status === 404)) return setProblem(`${nameOf(shape)} is not deleted. ${(error as Error).message}`);
    }
    setStored((held) => (held ?? []).filter((one) => !gone.includes(one.key)));
    props.say(`${nameOf(shape)} is deleted`);
  };
  // Asked first: what goes is everybody's, and its neighbour moves under the pointer.
  const ask = (shape: Shape, picture: string | null) =>
    setQuestion({
      title: `Delete ${nameOf(shape)}, made ${ago(shownOf(shape).created)}?`,
      text: "It is deleted in all its formats, for everybody, and no link gives it any more. Asked for again, it is made again.",
      action: "Delete",
      danger: true,
      picture: picture ?? undefined,
      act: () => forget(shape),
    });
  if (stored === null && !problem) return null;
  const held = shapes(stored ?? []);
  return (
    <section aria-labelledby="gallery" class="kept" {...focus}>
      <h2 id="gallery" tabIndex={-1}>Meshes made so far</h2>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {stored === null && <button type="button" onClick={() => void load(null)}>List them</button>}
      {stored?.length === 0 && <p class="empty">Nothing yet. Meshes that are made are kept here, and the same picture is never worked on twice.</p>}
      <ul class="gallery">
        {held.map((shape) => <Card key={shape.name} shape={shape} yours={shape.files.map((file) => props.names.get(file.key)).find(Boolean)} open={() => setOpen(shape)} forget={(picture) => ask(shape, picture)} />)}
      </ul>
      {next !== null && <button type="button" onClick={() => void load(next)}>Show more</button>}
      <Confirm question={question} close={() => setQuestion(null)} />
      {open && <Sheet shape={open} engines={props.engines} close={() => setOpen(null)} />}
    </section>
  );
}

function Card(props: { shape: Shape; yours: string | undefined; open: () => void; forget: (picture: string | null) => void }) {
  const first = props.shape.files[0]!;
  const shown = shownOf(props.shape);
  const look = useRef<HTMLButtonElement>(null);
  const [near, setNear] = useState(false);
  const picture = usePreview(near ? shown.links.preview : null);
  useEffect(() => {
    const seen = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      seen.disconnect();
      setNear(true);
    }, { rootMargin: "200px" });
    seen.observe(look.current!);
    return () => seen.disconnect();
  }, []);
  const name = nameOf(props.shape);
  return (
    <li>
      <button ref={look} type="button" class="look" onClick={props.open} aria-label={`Look at ${name}, made ${ago(shown.created)} by ${first.engine}${props.yours ? ` of your ${props.yours}` : ""}`}>
        {picture ? <img src={picture} alt="" width="384" height="384" /> : <span class="noimage" />}
      </button>
      <div class="about">
        <span><strong>{first.engine}</strong> <span class="quiet">{ago(shown.created)}</span></span>
        <button type="button" class="plain" onClick={() => props.forget(picture ?? null)} aria-label={`Delete ${name}, made ${ago(shown.created)}`}>Delete</button>
      </div>
      {props.yours && <span class="small yours" title={props.yours}>{props.yours}</span>}
      <span class="quiet small called">{name}</span>
      <span class="quiet small">{bytes(shown.bytes)}, made in {seconds(shown.cost_seconds)}</span>
    </li>
  );
}

function Sheet(props: { shape: Shape; engines: api.Engine[]; close: () => void }) {
  const [said, say] = useSaid();
  const dialog = useRef<HTMLDialogElement>(null);
  const [document, setDocument] = useState<api.Generation | null>(null);
  const [problem, setProblem] = useState("");
  const file = shownOf(props.shape);
  useEffect(() => {
    dialog.current?.showModal();
    api.read<api.Generation>(file.links.generation).then(setDocument, (error: Error) =>
      setProblem(error instanceof api.Problem && error.gone ? "This mesh is not kept any more. Give its picture, and it is made again." : error.message));
  }, []);
  const name = nameOf(props.shape);
  return (
    <dialog ref={dialog} class="sheet" aria-labelledby="stored" onClose={props.close}>
      <div class="head">
        <h2 id="stored">{name} <span class="quiet">made {ago(file.created)}</span></h2>
        <button type="button" class="plain" onClick={() => dialog.current?.close()} aria-label="Close">✕</button>
      </div>
      {problem && <p class="problem" role="alert">{problem}</p>}
      {document && (
        <Ready item={{ id: "", name, query: {}, answered: null, cut: [] }} document={document} format="glb" say={say} instead={glb(props.shape) ? undefined : <Still path={file.links.preview} />}
          engine={props.engines.find((engine) => engine.name === document.engine)} />
      )}
      <Said {...said} />
    </dialog>
  );
}

/** A mesh that is no GLB, which alone can be turned here. */
function Still(props: { path: string }) {
  const picture = usePreview(props.path);
  return (
    <figure>
      {picture ? <img src={picture} alt="The mesh from its front" width="384" height="384" />
        : <p class="quiet" role="status">{picture === null ? "There is no picture of it." : "Its picture is being drawn …"}</p>}
      <figcaption class="quiet">No GLB of it is stored, and only that can be turned here. The file itself can be downloaded.</figcaption>
    </figure>
  );
}
