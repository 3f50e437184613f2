// Repairing a cut-out with a brush: what is kept shows the picture, what is erased shows the checkerboard.

import { useEffect, useRef, useState } from "preact/hooks";
import { Work } from "./brush";
import type { Say } from "./frame";

/** What was painted last in a dialog that was closed over it, and of what: it is there when that is opened again. */
let left: { of: string; work: Work } | null = null;

/** of : names the cut-out, however often the page is loaded; cutout : where it can be seen now */
export function Cutout(props: { id: string; of: string; cutout: string | null; close: () => void; done: (png: Blob) => void; say: Say }) {
  const of = `${props.id} ${props.of}`;
  const dialog = useRef<HTMLDialogElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const work = useRef<Work | null>(null);
  const [keeps, setKeeps] = useState(false);
  const [size, setSize] = useState(40);
  const [said, say] = useState("Opening the picture …");
  const [undos, setUndos] = useState(0);
  const brush = useRef({ keeps, size });
  brush.current = { keeps, size };

  useEffect(() => {
    dialog.current?.showModal();
    const before = left?.of === of ? left.work : null;
    left = null;
    void (before ? Promise.resolve(before) : Work.begin(props.id, props.of, props.cutout)).then(
      (made) => {
        work.current = made;
        setUndos(made.undos);
        draw();
        say(made.painted ? "What you painted before is still here." : "");
      },
      () => say("This browser cannot open the picture."),
    );
  }, []);
  const leave = () => {
    if (work.current?.painted) {
      left = { of, work: work.current };
      props.say("What you painted is kept until you open the brush again");
    }
    props.close();
  };
  const discard = () => {
    work.current?.drop();
    work.current = null;
    dialog.current?.close();
  };

  // Where the brush is, as far as it is over the picture.
  const over = useRef<[number, number] | null>(null);
  const draw = () => {
    const shown = canvas.current;
    if (shown) work.current?.paint(shown, over.current, brush.current.size);
  };
  const stroke = (x: number, y: number, fromX = x, fromY = y) => {
    work.current?.stroke(fromX, fromY, x, y, brush.current.size, brush.current.keeps);
    draw();
  };
  const begin = () => {
    work.current?.remember();
    setUndos(work.current?.undos ?? 0);
  };
  const last = useRef<[number, number] | null>(null);
  const where = (event: PointerEvent): [number, number] => {
    const box = canvas.current!.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.current!.width, ((event.clientY - box.top) / box.height) * canvas.current!.height];
  };
  const pointer = (event: PointerEvent) => {
    const gone = event.type === "pointerleave" || event.type === "pointercancel" || (event.type === "pointerup" && event.pointerType === "touch");
    over.current = gone ? null : where(event);
    if (event.type === "pointerdown") {
      canvas.current!.setPointerCapture(event.pointerId);
      begin();
      last.current = where(event);
      stroke(...last.current);
    } else if (event.type === "pointermove" && last.current) {
      const to = where(event);
      stroke(...to, ...last.current);
      last.current = to;
    } else {
      if (event.type !== "pointermove" && last.current) {
        last.current = null;
        work.current?.keep();
      }
      draw();
    }
  };
  const middle = (): [number, number] => [canvas.current!.width / 2, canvas.current!.height / 2];
  const resize = (size: number) => {
    setSize(size);
    brush.current.size = size;
    over.current = spot.current ?? middle();
    draw();
  };
  // With the keyboard: arrows move the brush, space puts it down.
  const spot = useRef<[number, number] | null>(null);
  const key = (event: KeyboardEvent) => {
    const { width, height } = canvas.current!;
    const at = spot.current ?? middle();
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (by) {
      spot.current = [Math.min(width, Math.max(0, at[0] + (by[0]! * size) / 2)), Math.min(height, Math.max(0, at[1] + (by[1]! * size) / 2))];
    } else if (event.key === " ") {
      begin();
      stroke(...at);
      work.current?.keep();
      spot.current = at;
    } else return;
    event.preventDefault();
    over.current = spot.current;
    draw();
  };
  const away = () => {
    over.current = null;
    draw();
  };
  const undo = () => {
    work.current?.undo();
    work.current?.keep();
    setUndos(work.current?.undos ?? 0);
    away();
  };
  const finish = async () => {
    const png = await work.current?.png();
    if (png) {
      work.current?.drop();
      props.done(png);
    } else say("Nothing is left of the subject: keep some of it.");
  };

  return (
    <dialog ref={dialog} class="cutout" aria-labelledby="repair" onClose={leave}>
      <h2 id="repair">Repair the cut-out</h2>
      <div class="row">
        <div class="row" role="group" aria-label="Brush">
          <button type="button" aria-pressed={!keeps} onClick={() => setKeeps(false)}>Erase</button>
          <button type="button" aria-pressed={keeps} onClick={() => setKeeps(true)}>Keep</button>
        </div>
        <label class="inline">Size <input type="range" min={4} max={200} value={size} onInput={(e) => resize(e.currentTarget.valueAsNumber)} /></label>
        <button type="button" aria-disabled={undos === 0} onClick={undo}>Undo</button>
      </div>
      <canvas ref={canvas} class="checker" tabIndex={0} role="img" aria-label="The cut-out. Arrow keys move the brush, space paints."
        onPointerDown={pointer} onPointerMove={pointer} onPointerUp={pointer} onPointerCancel={pointer} onPointerLeave={pointer} onKeyDown={key} onBlur={away} />
      <p class="quiet" role="status">{said || "Paint over what does not belong to the subject; “Keep” brings back what is missing."}</p>
      <div class="row">
        <button type="button" class="main" disabled={said.startsWith("Opening")} onClick={() => void finish()}>Make a mesh of this</button>
        <button type="button" onClick={discard}>Leave it as it was</button>
      </div>
    </dialog>
  );
}
