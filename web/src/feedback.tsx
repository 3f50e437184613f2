// Thumbs, and why: kept with the generation.

import { useEffect, useRef, useState } from "preact/hooks";
import { ask, read, type Feedback } from "./api";

const REASONS = ["wrong shape", "holes or bumps", "bad texture", "wrong cut-out", "wrong back side"];

function Thumb(props: { down?: boolean }) {
  return (
    <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" class={props.down ? "turned" : ""}>
      <path d="M7 11v9H4v-9zm0 0 4-8c1.5 0 2.5 1 2.5 2.5V9H19c1.2 0 2 1 1.8 2.2l-1.2 7A2.2 2.2 0 0 1 17.4 20H7"
        fill="none" stroke="currentColor" stroke-width="1.8" stroke-linejoin="round" stroke-linecap="round" />
    </svg>
  );
}

export function Verdict(props: { generation: string }) {
  const [rating, setRating] = useState<Feedback["rating"] | null>(null);
  const [reason, setReason] = useState("");
  const [told, setTold] = useState("");
  const where = `/v1/generations/${props.generation}/feedback`;
  const kept = useRef<Feedback["rating"] | null>(null);
  const turns = useRef(0);
  const sending = useRef(Promise.resolve());
  useEffect(() => {
    read<Feedback | null>(where).then((given) => {
      if (!given || kept.current) return;
      kept.current = given.rating;
      // What somebody has pressed or written meanwhile is newer.
      setRating((pressed) => pressed ?? given.rating);
      setReason((written) => written || given.reason);
    }, () => undefined);
  }, [where]);
  const post = async (rating: Feedback["rating"], reason: string, turn: number) => {
    let said = reason ? `Kept with this mesh: “${reason}”. Thank you.` : "Kept with this mesh. Thank you.";
    try {
      await ask(where, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ rating, reason }) });
      kept.current = rating;
    } catch (error) {
      said = `Not kept: ${(error as Error).message}`;
    }
    if (turn !== turns.current) return;
    setRating(kept.current);
    setTold(said);
  };
  const send = (rating: Feedback["rating"], reason: string) => {
    setRating(rating);
    const turn = ++turns.current;
    // One after the other: the latest to arrive counts.
    sending.current = sending.current.then(() => post(rating, reason, turn));
  };
  return (
    <div class="verdict">
      <div class="row" role="group" aria-label="Is it good?">
        <span class="quiet">Is it good?</span>
        <button type="button" class="icon" aria-pressed={rating === "up"} aria-label="Yes, it is good" onClick={() => send("up", reason)}><Thumb /></button>
        <button type="button" class="icon" aria-pressed={rating === "down"} aria-label="No, it is not good" onClick={() => send("down", reason)}><Thumb down /></button>
        <span class="quiet" role="status">{told}</span>
      </div>
      {rating !== null && (
        <form class="row" onSubmit={(event) => { event.preventDefault(); send(rating, reason); }}>
          <label class="inline">Why? <input type="text" maxLength={500} list="reasons" value={reason} onInput={(e) => setReason(e.currentTarget.value)} /></label>
          <datalist id="reasons">{REASONS.map((text) => <option key={text} value={text} />)}</datalist>
          <button type="submit">Tell</button>
        </form>
      )}
    </div>
  );
}
