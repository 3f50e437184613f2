// The viewer's frame: its buttons, and what is known of the mesh.

import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import type { Facts as Known } from "./solid";
import type { Look, Side, View } from "./viewer";
import { count } from "./words";

const LOOKS: [Look, string][] = [
  ["picture", "Textured"],
  ["clay", "Clay"],
  ["wireframe", "Wireframe"],
  ["normals", "Normals"],
];

/** again : has a mesh that is gone made again, where that can be done */
export function Model(props: { url: string; name: string; millimetres: number; again?: () => void }) {
  const host = useRef<HTMLDivElement>(null);
  const [view, setView] = useState<View | null>(null);
  const [look, setLook] = useState<Look>("picture");
  const [turning, setTurning] = useState(false);
  const [side, setSide] = useState<Side>("the front");
  const [problem, setProblem] = useState("");
  const [gone, setGone] = useState(false);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const abort = new AbortController();
    let shown: View | null = null;
    let stop = () => undefined as void;
    setProblem("");
    setGone(false);
    import("./viewer").then((viewer) => viewer.show(host.current!, props.url, abort.signal, setSide)).then(
      (made) => {
        shown = made;
        if (abort.signal.aborted) return made.close();
        setView(made);
      },
      (error: Error) => {
        if (abort.signal.aborted) return;
        setProblem(error.message);
        setGone(error instanceof api.Problem && error.gone);
        if (error instanceof api.Away) stop = api.onPresence((here) => here && setTurn((before) => before + 1));
      },
    );
    return () => {
      stop();
      abort.abort();
      shown?.close();
      setView(null);
    };
  }, [props.url, turn]);
  useEffect(() => view?.look(look), [view, look]);
  useEffect(() => view?.turn(turning), [view, turning]);

  const shown = look === "picture" ? "with its colours" : look === "clay" ? "in grey" : look === "wireframe" ? "as wires" : "with a colour for each direction";
  return (
    <>
      <div ref={host} class="canvas" tabIndex={view ? 0 : undefined} role={view ? "img" : undefined} data-ready={view ? "" : undefined}
        aria-label={view ? `The mesh of ${props.name} ${shown}, ${turning ? "turning" : `seen from ${side}`}. Arrow keys turn it, plus and minus come closer and go away.` : undefined}>
        {!view && <p class="quiet told" role="status">{problem ? `It cannot be shown. ${problem}` : <>Loading the mesh<span class="hidden"> of {props.name}</span> …</>}</p>}
        {gone && props.again && <button type="button" onClick={props.again}>Make this mesh again</button>}
      </div>
      <div class="row looks">
        <div class="row" role="group" aria-label="How it is shown">
          {LOOKS.map(([name, label]) => (
            <button key={name} type="button" aria-pressed={look === name} disabled={!view} onClick={() => setLook(name)}>{label}</button>
          ))}
        </div>
        <button type="button" aria-pressed={turning} disabled={!view} onClick={() => setTurning(!turning)}>Turntable</button>
        <button type="button" disabled={!view} onClick={() => view?.reset()}>Front</button>
      </div>
      {view && <Facts view={view} millimetres={props.millimetres} />}
    </>
  );
}

/** Whether it is closed, and what that means to who wants to print it. */
function printable({ watertight, parts }: Known): string {
  if (watertight === null) return "not checked: too large";
  if (!watertight) return "no: it has holes";
  return parts > 1 ? `yes, each of its ${parts} separate parts: printed, they are loose` : "yes: it can be printed";
}

function Facts(props: { view: View; millimetres: number }) {
  const { facts } = props.view;
  const scale = props.millimetres / Math.max(...facts.size, 1e-9);
  // Files for printing stand on the plate, so their height is the y of what is shown.
  const [x, y, z] = facts.size.map((length) => Math.round(length * scale)) as [number, number, number];
  const volume = Math.abs(facts.volume) * scale ** 3 / 1000;
  return (
    <dl class="facts">
      <div><dt>Printed</dt><dd>{x} × {z} × {y} mm{facts.watertight && `, ${volume < 10 ? volume.toFixed(1) : Math.round(volume)} cm³`}</dd></div>
      <div><dt>Faces</dt><dd>{count(facts.triangles)}</dd></div>
      <div class={facts.watertight ? "good" : "bad"} data-watertight={String(facts.watertight)}>
        <dt>Watertight</dt>
        <dd>{printable(facts)}</dd>
      </div>
    </dl>
  );
}
