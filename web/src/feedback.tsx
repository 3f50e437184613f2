// Thumbs, and why: kept with the generation.

import { useState } from "preact/hooks";
import { ask, type Feedback } from "./api";

const REASONS = ["wrong shape", "holes or bumps", "bad texture", "wrong cut-out", "wrong back side"];

export function Verdict(props: { generation: string; given: Feedback | null; say: (what: string) => void }) {
  const [rating, setRating] = useState(props.given?.rating ?? 0);
  const [reason, setReason] = useState(props.given?.reason ?? "");
  const [told, setTold] = useState("");
  const send = async (rating: number, reason: string) => {
    try {
      await ask(`/v1/generations/${props.generation}/feedback`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ rating, reason }),
      });
      setTold("Kept with this mesh. Thank you.");
    } catch (error) {
      setTold(`Not kept: ${(error as Error).message}`);
    }
  };
  const rate = (to: number) => {
    setRating(to);
    void send(to, reason);
  };
  return (
    <div class="verdict">
      <div class="row" role="group" aria-label="Is it good?">
        <span>Is it good?</span>
        <button type="button" aria-pressed={rating > 0} aria-label="Yes, it is good" onClick={() => rate(1)}>👍</button>
        <button type="button" aria-pressed={rating < 0} aria-label="No, it is not good" onClick={() => rate(-1)}>👎</button>
        <span class="quiet" role="status">{told}</span>
      </div>
      {rating !== 0 && (
        <form class="row" onSubmit={(event) => { event.preventDefault(); void send(rating, reason); }}>
          <label class="inline">Why? <input type="text" maxLength={500} list="reasons" value={reason} onInput={(e) => setReason(e.currentTarget.value)} /></label>
          <datalist id="reasons">{REASONS.map((text) => <option key={text} value={text} />)}</datalist>
          <button type="submit">Tell</button>
        </form>
      )}
    </div>
  );
}
