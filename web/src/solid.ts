// What is known of a mesh as a body: whether it is closed, of how many parts it is, and how much it holds.

import type { BufferGeometry } from "three";

export interface Facts {
  triangles: number;
  vertices: number;
  /** Lengths along x, y, z, in the file's unit. */
  size: [number, number, number];
  /** In the file's unit, cubed; it means something only for a watertight mesh. */
  volume: number;
  /** Null: too large to be checked here. */
  watertight: boolean | null;
  /** Bodies that touch one another nowhere; it means something only for a watertight mesh. A hollow within one is none. */
  parts: number;
}

/** More triangles than this are not checked for holes: it would hold the page up. */
const CHECKED = 600_000;

/** What is known of the geometries of one mesh. size : lengths along x, y, z */
export function factsOf(geometries: BufferGeometry[], size: Facts["size"]): Facts {
  const triangles = geometries.reduce((sum, geometry) => sum + corners(geometry).length / 3, 0);
  const vertices = geometries.reduce((sum, geometry) => sum + geometry.getAttribute("position").count, 0);
  if (triangles > CHECKED) return { triangles, vertices, size, volume: 0, watertight: null, parts: 0 };
  const solids = geometries.map(solid);
  return {
    triangles,
    vertices,
    size,
    volume: solids.reduce((sum, one) => sum + one.volume, 0),
    watertight: solids.every((one) => one.closed),
    parts: solids.reduce((sum, one) => sum + one.parts, 0),
  };
}

function corners(geometry: BufferGeometry): ArrayLike<number> {
  return geometry.index?.array ?? Array.from({ length: geometry.getAttribute("position").count }, (_, i) => i);
}

/** Whether each edge is met once in either direction, the signed volume (divergence theorem), and the parts. */
function solid(geometry: BufferGeometry): { closed: boolean; volume: number; parts: number } {
  const at = geometry.getAttribute("position");
  // A texture's seams split vertices; those at one place are one corner of the surface.
  const places = new Map<string, number>();
  const welded = new Uint32Array(at.count);
  for (let i = 0; i < at.count; i++) {
    const name = `${at.getX(i)} ${at.getY(i)} ${at.getZ(i)}`;
    let place = places.get(name);
    if (place === undefined) places.set(name, (place = places.size));
    welded[i] = place;
  }
  const index = corners(geometry);
  const edges = new Map<number, number>();
  const span = places.size;
  // Places that a triangle joins have one root (union-find with path halving).
  const up = Uint32Array.from({ length: span }, (_, i) => i);
  const root = (place: number): number => {
    while (up[place] !== place) place = up[place] = up[up[place]!]!;
    return place;
  };
  const pieces: [place: number, volume: number][] = [];
  for (let t = 0; t < index.length; t += 3) {
    const [i, j, k] = [index[t]!, index[t + 1]!, index[t + 2]!];
    const [a, b, c] = [welded[i]!, welded[j]!, welded[k]!];
    if (a === b || b === c || c === a) continue;
    for (const [from, to] of [[a, b], [b, c], [c, a]] as const) {
      const name = from < to ? from * span + to : to * span + from;
      edges.set(name, (edges.get(name) ?? 0) + (from < to ? 1 : -1));
      up[root(from)] = root(to);
    }
    pieces.push([
      a,
      (at.getX(i) * (at.getY(j) * at.getZ(k) - at.getZ(j) * at.getY(k)) -
        at.getY(i) * (at.getX(j) * at.getZ(k) - at.getZ(j) * at.getX(k)) +
        at.getZ(i) * (at.getX(j) * at.getY(k) - at.getY(j) * at.getX(k))) / 6,
    ]);
  }
  const shells = new Map<number, number>();
  for (const [place, volume] of pieces) shells.set(root(place), (shells.get(root(place)) ?? 0) + volume);
  const volume = [...shells.values()].reduce((sum, one) => sum + one, 0);
  // The surface of a hollow is turned the other way, so its volume has the other sign.
  const parts = [...shells.values()].filter((one) => Math.sign(one) === Math.sign(volume)).length;
  return { closed: [...edges.values()].every((sum) => sum === 0), volume, parts };
}
