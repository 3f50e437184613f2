// The mesh in three dimensions: loaded only when there is one to look at. It draws when something changed, not always.
// Three.js itself, and not <model-viewer> around it: that brings its style in its markup, for which the policy of this
// page would have to allow inline styles, and shows neither wires nor normals.

import {
  AmbientLight, Box3, DirectionalLight, DoubleSide, HemisphereLight, Material, Mesh,
  MeshBasicMaterial, MeshNormalMaterial, MeshStandardMaterial, PerspectiveCamera, Scene, SRGBColorSpace, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
import { ask } from "./api";
import { factsOf, type Facts } from "./solid";

export type Look = "picture" | "clay" | "wireframe" | "normals";

export interface View {
  facts: Facts;
  look(look: Look): void;
  turn(on: boolean): void;
  reset(): void;
  picture(): Promise<Blob | null>;
  close(): void;
}

/** From where a mesh is seen. */
export type Side = "the front" | "the right" | "the back" | "the left" | "above" | "below";

/** Show the GLB at `url` in `host`. seen : called when another side turns up. Throws what `ask` does, and when the browser has no WebGL. */
export async function show(host: HTMLElement, url: string, signal: AbortSignal, seen: (side: Side) => void): Promise<View> {
  const answer = await ask(url, { signal });
  const file = await new GLTFLoader().parseAsync(await answer.arrayBuffer(), "");
  signal.throwIfAborted();
  let renderer: WebGLRenderer;
  try {
    renderer = new WebGLRenderer({ antialias: true, alpha: true, powerPreference: "low-power" });
  } catch {
    throw new Error("This browser cannot show 3D (no WebGL); the files can be downloaded all the same");
  }
  const meshes: Mesh[] = [];
  file.scene.traverse((node) => void (node instanceof Mesh && meshes.push(node)));
  const given = new Map<Mesh, Material | Material[]>(meshes.map((mesh) => [mesh, mesh.material]));
  for (const material of [...given.values()].flat()) {
    // Lit by lamps and not by a room, metal would be black.
    if (material instanceof MeshStandardMaterial) {
      material.metalness = 0;
      material.roughness = 0.9;
      material.side = DoubleSide;
    }
  }
  file.scene.updateMatrixWorld(true);

  const scene = new Scene();
  scene.add(file.scene, new AmbientLight(0xffffff, 0.9), new HemisphereLight(0xffffff, 0x888888, 1.3));
  const lamp = new DirectionalLight(0xffffff, 1.6);
  const camera = new PerspectiveCamera(35, 1, 0.01, 100);
  camera.add(lamp);
  lamp.position.set(1, 1.5, 1);
  scene.add(camera);

  const box = new Box3().setFromObject(file.scene);
  const middle = box.getCenter(new Vector3());
  const extent = box.getSize(new Vector3());
  const radius = Math.max(extent.length() / 2, 1e-6);
  const known = factsOf(meshes.map((mesh) => mesh.geometry), [extent.x, extent.y, extent.z]);
  const wire = new MeshBasicMaterial({ wireframe: true, color: 0xa63d12, transparent: true });
  const wires = meshes.map((mesh) => new Mesh(mesh.geometry, wire));
  meshes.forEach((mesh, i) => mesh.add(wires[i]!));
  renderer.outputColorSpace = SRGBColorSpace;
  renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
  const canvas = renderer.domElement;
  canvas.setAttribute("aria-hidden", "true");
  host.append(canvas);

  const controls = new OrbitControls(camera, canvas);
  controls.enableDamping = true;
  controls.minDistance = radius * 0.4;
  controls.maxDistance = radius * 12;
  const place = () => {
    const distance = (radius / Math.sin((camera.fov * Math.PI) / 360)) * (camera.aspect < 1 ? 1 / camera.aspect : 1) * 1.02;
    camera.near = distance / 100;
    camera.far = distance * 20;
    controls.target.copy(middle);
    camera.position.copy(middle).addScaledVector(new Vector3(0.35, 0.25, 1).normalize(), distance);
    camera.updateProjectionMatrix();
    controls.update();
  };

  /**
   * How strong wires are drawn: whole where an edge is several pixels long, faint where a pixel has several of them.
   * Tens of thousands at full strength are one patch of colour.
   */
  const strength = () => {
    const across = (host.clientHeight * radius) / (camera.position.distanceTo(controls.target) * Math.tan((camera.fov * Math.PI) / 360));
    return Math.min(1, Math.max(0.12, across / Math.sqrt(known.triangles + 1) / 8));
  };

  let side: Side | null = null;
  let frame = 0;
  let closed = false;
  const draw = () => {
    frame = 0;
    if (closed) return;
    const moving = controls.update();
    const now = sideOf(camera.position.clone().sub(controls.target));
    if (now !== side) seen((side = now));
    wire.opacity = strength();
    renderer.render(scene, camera);
    host.dataset.drawn = String(Number(host.dataset.drawn ?? 0) + 1);
    if (moving || (controls.autoRotate && !document.hidden)) wake();
  };
  const wake = () => void (frame ||= requestAnimationFrame(draw));
  const fit = () => {
    const width = host.clientWidth || 1;
    const height = host.clientHeight || 1;
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    wake();
  };
  controls.addEventListener("change", wake);
  controls.addEventListener("start", wake);
  document.addEventListener("visibilitychange", wake);
  const watch = new ResizeObserver(fit);
  watch.observe(host);
  fit();
  place();

  const steps: Record<string, [number, number, number]> = {
    ArrowLeft: [-0.15, 0, 1], ArrowRight: [0.15, 0, 1], ArrowUp: [0, -0.15, 1], ArrowDown: [0, 0.15, 1],
    "+": [0, 0, 0.9], "=": [0, 0, 0.9], "-": [0, 0, 1.1],
  };
  const keys = (event: KeyboardEvent) => {
    const step = steps[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const arm = camera.position.clone().sub(controls.target);
    const polar = Math.min(Math.PI - 0.05, Math.max(0.05, Math.acos(arm.y / arm.length()) + step[1]));
    const around = Math.atan2(arm.x, arm.z) + step[0];
    const length = Math.min(controls.maxDistance, Math.max(controls.minDistance, arm.length() * step[2]));
    arm.set(Math.sin(polar) * Math.sin(around), Math.cos(polar), Math.sin(polar) * Math.cos(around)).multiplyScalar(length);
    camera.position.copy(controls.target).add(arm);
    wake();
  };
  host.addEventListener("keydown", keys);

  const own: Record<Exclude<Look, "picture">, Material> = {
    clay: new MeshStandardMaterial({ color: 0xb9b2a8, roughness: 0.95, side: DoubleSide }),
    // Under its wires, a little behind them, so that those of the far side do not show through.
    wireframe: new MeshStandardMaterial({ color: 0xe9e2d8, roughness: 0.95, side: DoubleSide, polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1 }),
    normals: new MeshNormalMaterial({ side: DoubleSide }),
  };
  for (const mesh of meshes) if (!mesh.geometry.getAttribute("normal")) mesh.geometry.computeVertexNormals();

  return {
    facts: known,
    look(look) {
      for (const mesh of meshes) mesh.material = look === "picture" ? given.get(mesh)! : own[look];
      for (const one of wires) one.visible = look === "wireframe";
      wake();
    },
    turn(on) {
      controls.autoRotate = on;
      wake();
    },
    reset() {
      place();
      wake();
    },
    picture() {
      renderer.render(scene, camera); // the drawing is there until the frame ends
      return new Promise((resolve) => canvas.toBlob(resolve));
    },
    close() {
      closed = true;
      cancelAnimationFrame(frame);
      document.removeEventListener("visibilitychange", wake);
      host.removeEventListener("keydown", keys);
      watch.disconnect();
      controls.dispose();
      for (const mesh of meshes) mesh.geometry.dispose();
      for (const material of [...given.values()].flat()) {
        if (material instanceof MeshStandardMaterial) material.map?.dispose();
        material.dispose();
      }
      renderer.dispose();
      renderer.forceContextLoss();
      canvas.remove();
    },
  };
}

/** The side that is turned to somebody at `arm` from its middle: above and below within 30° of the poles. */
function sideOf(arm: Vector3): Side {
  if (Math.abs(arm.y) > arm.length() * Math.cos(Math.PI / 6)) return arm.y > 0 ? "above" : "below";
  if (Math.abs(arm.x) > Math.abs(arm.z)) return arm.x > 0 ? "the right" : "the left";
  return arm.z > 0 ? "the front" : "the back";
}
