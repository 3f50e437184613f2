// Ways a picture comes in: dropped, pasted, picked, photographed.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

/** Whether nothing can be dropped here: fingers carry no files. */
const TOUCH = matchMedia("(hover: none) and (pointer: coarse)").matches;

/** Have somebody choose pictures. */
export const pick = (): void => document.getElementById("pick")?.click();

export function Give(props: { take: (files: File[]) => void; small: boolean }) {
  const shutter = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const [camera, setCamera] = useState(false);

  // Before the first paint: what is dropped on a page that is slow to show would be opened by the browser in its place.
  useLayoutEffect(() => {
    let depth = 0;
    const carries = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const enter = (event: DragEvent) => {
      if (carries(event)) setOver(++depth > 0);
    };
    const leave = (event: DragEvent) => {
      if (carries(event)) setOver((depth = Math.max(0, depth - 1)) > 0);
    };
    const allow = (event: DragEvent) => {
      if (carries(event)) event.preventDefault();
    };
    const drop = (event: DragEvent) => {
      if (!carries(event)) return;
      event.preventDefault();
      setOver((depth = 0) > 0);
      props.take([...(event.dataTransfer?.files ?? [])]);
    };
    const paste = (event: ClipboardEvent) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length) {
        event.preventDefault();
        props.take(files);
      }
    };
    addEventListener("dragenter", enter);
    addEventListener("dragleave", leave);
    addEventListener("dragover", allow);
    addEventListener("drop", drop);
    addEventListener("paste", paste);
    return () => {
      removeEventListener("dragenter", enter);
      removeEventListener("dragleave", leave);
      removeEventListener("dragover", allow);
      removeEventListener("drop", drop);
      removeEventListener("paste", paste);
    };
  }, [props.take]);

  const picked = (input: HTMLInputElement) => {
    props.take([...(input.files ?? [])]);
    input.value = ""; // so that the same picture can be picked again
  };
  return (
    <section class={`give${over ? " over" : ""}${props.small ? " small" : ""}`} aria-label="Add pictures">
      <p class="lead">{over ? "Let go to make a mesh" : TOUCH ? (props.small ? "More pictures" : "Choose a picture") : props.small ? "Drop or paste more pictures" : "Drop a picture here"}</p>
      {!props.small && <p class="quiet">{over || TOUCH ? "It" : "or paste one: it"} becomes a 3D model to turn, download and print. One object, whole, before a plain background does best.</p>}
      <div class="row">
        <button type="button" class={props.small ? "" : "main"} onClick={pick}>Choose pictures</button>
        <button type="button" onClick={() => (navigator.mediaDevices ? setCamera(true) : shutter.current?.click())}>Take a photo</button>
      </div>
      <input id="pick" type="file" accept="image/*" multiple hidden aria-label="Choose pictures" onChange={(e) => picked(e.currentTarget)} />
      <input ref={shutter} type="file" accept="image/*" capture="environment" hidden aria-label="Take a photo" onChange={(e) => picked(e.currentTarget)} />
      {camera && <Camera close={() => setCamera(false)} take={(file) => props.take([file])} />}
    </section>
  );
}

/** Why there is no camera, by the name of the browser's error. */
const NO_CAMERA: Record<string, string> = {
  NotFoundError: "There is no camera here.",
  NotAllowedError: "This page may not use the camera: the browser's settings for this page allow it again.",
  NotReadableError: "The camera is in use by something else.",
};

function Camera(props: { close: () => void; take: (file: File) => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const video = useRef<HTMLVideoElement>(null);
  const [said, say] = useState("Asking for the camera …");
  const [refused, refuse] = useState(false);
  useEffect(() => {
    let stream: MediaStream | null = null;
    let gone = false;
    dialog.current?.showModal();
    navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1600 } } }).then(
      (found) => {
        stream = found;
        if (gone) return stop();
        video.current!.srcObject = found;
        say("");
      },
      (error: Error) => {
        say(NO_CAMERA[error.name] ?? "The camera cannot be used here.");
        refuse(true);
      },
    );
    const stop = () => stream?.getTracks().forEach((track) => track.stop());
    return () => {
      gone = true;
      stop();
    };
  }, []);
  const shoot = () => {
    const seen = video.current!;
    const canvas = document.createElement("canvas");
    canvas.width = seen.videoWidth;
    canvas.height = seen.videoHeight;
    canvas.getContext("2d")!.drawImage(seen, 0, 0);
    canvas.toBlob((blob) => {
      if (blob) props.take(new File([blob], "photo.jpg", { type: "image/jpeg" }));
      dialog.current?.close();
    }, "image/jpeg", 0.95);
  };
  return (
    <dialog ref={dialog} class="camera" aria-label="Take a photo" onClose={props.close}>
      {!refused && <video ref={video} autoplay muted playsInline />}
      <p role="status">{said}{refused && " A picture can be chosen instead."}</p>
      <div class="row">
        {refused ? <button type="button" class="main" onClick={() => { dialog.current?.close(); pick(); }}>Choose pictures</button>
          : <button type="button" class="main" disabled={said !== ""} onClick={shoot}>Take it</button>}
        <button type="button" onClick={() => dialog.current?.close()}>Close</button>
      </div>
    </dialog>
  );
}
