// What a brush makes of a cut-out: which pixels of the picture are kept.

import { dropPainted, keepPainted, paintedOf, pictureOf } from "./kept";

/** Longest side of the repaired cut-out in pixels; the server's own cut-outs are no larger. */
const SIDE = 1024;
const UNDO = 12;

async function bitmap(url: string): Promise<ImageBitmap> {
  return createImageBitmap(await (await fetch(url)).blob());
}

/** The picture, and how much of each of its pixels is kept. */
export class Work {
  private past: ImageData[] = [];
  /** Which stroke is kept: the last one, though an earlier one may be ready later. */
  private turn = 0;
  /** What is to be seen without the brush; null when something was painted since. */
  private seen: HTMLCanvasElement | null = null;

  /** of : names what was painted on, so that it is found again; found : whether it was painted on before this page was here */
  private constructor(
    private readonly id: string,
    private readonly of: string,
    private readonly picture: HTMLCanvasElement,
    private readonly mask: HTMLCanvasElement,
    private readonly found: boolean,
  ) {}

  /** Begin with what was painted on `of` before, or else with the cut-out. id : of the picture in this browser; cutout : where it can be seen */
  static async begin(id: string, of: string, cutout: string | null): Promise<Work> {
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
    const painted = await paintedOf(id, of).then((mask) => mask && createImageBitmap(mask)).catch(() => null);
    const kept = painted ?? (cutout ? await bitmap(cutout).catch(() => null) : null);
    mask.getContext("2d", { willReadFrequently: true })!.drawImage(kept ?? picture, 0, 0, mask.width, mask.height);
    return new Work(id, of, picture, mask, painted !== null);
  }

  get undos(): number {
    return this.past.length;
  }

  /** Whether anything was painted. */
  get painted(): boolean {
    return this.found || this.past.length > 0;
  }

  /** Have it survive a refresh. Called after each stroke. */
  keep(): void {
    if (!this.painted) return dropPainted(this.id);
    const turn = ++this.turn;
    this.mask.toBlob((mask) => void (mask && turn === this.turn && keepPainted(this.id, this.of, mask)));
  }

  /** What was painted is of no use any more. */
  drop(): void {
    this.turn += 1;
    dropPainted(this.id);
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
