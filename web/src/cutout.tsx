// Repairing a cut-out with a brush: what is kept shows the picture, what is erased shows the checkerboard.

import { useEffect, useRef, useState } from "preact/hooks";
import type { Say } from "./frame";
import { pictureOf } from "./kept";

/** Longest side of the repaired cut-out in pixels; the server's own cut-outs are no larger. */
const SIDE = 1024;
const UNDO = 12;

async function bitmap(url: string): Promise<ImageBitmap> {
  return createImageBitmap(await (await fetch(url)).blob());
}

/** What was painted last in a dialog that was closed over it, and of what: it is there when that is opened again. */
let left: { of: string; work: Work } | null = null;

export function Cutout(props: { id: string; cutout: string | null; close: () => void; done: (png: Blob) => void; say: Say }) {
  const of = `${props.id} ${props.cutout}`;
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
    void (before ? Promise.resolve(before) : Work.begin(props.id, props.cutout)).then(
      (made) => {
        work.current = made;
        setUndos(made.undos);
        draw();
        say(before ? "What you painted before is still here." : "");
      },
      () => say("This browser cannot open the picture."),
    );
  }, []);
  const leave = () => {
    if (work.current?.undos) {
      left = { of, work: work.current };
      props.say("What you painted is kept until you open the brush again, or leave this page");
    }
    props.close();
  };
  const discard = () => {
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
      if (event.type !== "pointermove") last.current = null;
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
    setUndos(work.current?.undos ?? 0);
    away();
  };
  const finish = async () => {
    const png = await work.current?.png();
    if (png) props.done(png);
    else say("Nothing is left of the subject: keep some of it.");
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

/** The picture, and how much of each of its pixels is kept. */
class Work {
  private past: ImageData[] = [];
  /** What is to be seen without the brush; null when something was painted since. */
  private seen: HTMLCanvasElement | null = null;

  private constructor(
    private readonly picture: HTMLCanvasElement,
    private readonly mask: HTMLCanvasElement,
  ) {}

  static async begin(id: string, cutout: string | null): Promise<Work> {
    const blob = await pictureOf(id);
    if (!blob) throw new Error("the picture is gone");
    const whole = await createImageBitmap(blob);
    const scale = Math.min(1, SIDE / Math.max(whole.width, whole.height));
    const sheet = () => {
      const made = document.createElement("canvas");
      made.width = Math.max(1, Math.round(whole.width * scale));
      made.height = Math.max(1, Math.round(whole.height * scale));
      return made;
    };
    const [picture, mask] = [sheet(), sheet()];
    picture.getContext("2d")!.drawImage(whole, 0, 0, picture.width, picture.height);
    const kept = cutout ? await bitmap(cutout).catch(() => null) : null;
    mask.getContext("2d", { willReadFrequently: true })!.drawImage(kept ?? picture, 0, 0, mask.width, mask.height);
    return new Work(picture, mask);
  }

  get undos(): number {
    return this.past.length;
  }

  remember(): void {
    this.past.push(this.pen().getImageData(0, 0, this.mask.width, this.mask.height));
    if (this.past.length > UNDO) this.past.shift();
  }

  undo(): void {
    const before = this.past.pop();
    if (before) this.pen().putImageData(before, 0, 0);
    this.seen = null;
  }

  stroke(fromX: number, fromY: number, x: number, y: number, size: number, keeps: boolean): void {
    const pen = this.pen();
    pen.globalCompositeOperation = keeps ? "source-over" : "destination-out";
    pen.lineCap = "round";
    pen.lineWidth = size;
    pen.strokeStyle = "#000";
    pen.beginPath();
    pen.moveTo(fromX, fromY);
    pen.lineTo(x + 0.01, y);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
    this.seen = null;
  }

  /** Show it on `canvas`, with the outline of a brush of `size` at `spot`. */
  paint(canvas: HTMLCanvasElement, spot: [number, number] | null, size: number): void {
    if (canvas.width !== this.picture.width) canvas.width = this.picture.width;
    if (canvas.height !== this.picture.height) canvas.height = this.picture.height;
    const pen = canvas.getContext("2d")!;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage((this.seen ??= this.composed()), 0, 0);
    if (!spot) return;
    pen.beginPath();
    pen.arc(spot[0], spot[1], size / 2, 0, 2 * Math.PI);
    // Light and dark, so that it is seen before anything.
    for (const [width, colour] of [[5, "#fff"], [2.5, "#d0451b"]] as const) {
      pen.lineWidth = width;
      pen.strokeStyle = colour;
      pen.stroke();
    }
  }

  private composed(): HTMLCanvasElement {
    const made = this.kept();
    const pen = made.getContext("2d")!;
    // What is erased stays faintly visible, so that it can be found and kept again.
    pen.globalCompositeOperation = "destination-over";
    pen.globalAlpha = 0.25;
    pen.drawImage(this.picture, 0, 0);
    return made;
  }

  /** The repaired cut-out; null when nothing is left of it. */
  async png(): Promise<Blob | null> {
    const kept = this.kept();
    const { data } = kept.getContext("2d")!.getImageData(0, 0, kept.width, kept.height);
    for (let i = 3; i < data.length; i += 4) {
      if (data[i]! >= 128) return new Promise((resolve) => kept.toBlob(resolve, "image/png"));
    }
    return null;
  }

  private kept(): HTMLCanvasElement {
    const made = document.createElement("canvas");
    made.width = this.picture.width;
    made.height = this.picture.height;
    const pen = made.getContext("2d")!;
    pen.drawImage(this.mask, 0, 0);
    pen.globalCompositeOperation = "source-in";
    pen.drawImage(this.picture, 0, 0);
    return made;
  }

  private pen(): CanvasRenderingContext2D {
    return this.mask.getContext("2d", { willReadFrequently: true })!;
  }
}
