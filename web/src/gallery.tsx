// What the store holds, newest first.

import { useCallback, useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { ago, bytes, seconds } from "./words";

interface Page {
  generations: api.Generation[];
  next: string | null;
}

export function Gallery(props: { made: number; say: (what: string) => void }) {
  const [shown, setShown] = useState<api.Generation[]>([]);
  const [next, setNext] = useState<string | null>(null);
  const load = useCallback(async (cursor: string | null) => {
    try {
      const page = await api.read<Page>(`/v1/generations?state=succeeded&limit=24${cursor ? `&cursor=${cursor}` : ""}`);
      setShown((before) => (cursor ? [...before, ...page.generations] : page.generations));
      setNext(page.next);
    } catch {
      // away: loaded again when it is back
    }
  }, []);
  useEffect(() => void load(null), [props.made]);
  useEffect(() => api.onPresence((here) => here && void load(null)), []);
  const forget = async (generation: api.Generation) => {
    try {
      await api.ask(`/v1/cache/${generation.key}`, { method: "DELETE" });
    } catch (error) {
      if (!(error instanceof api.Problem && error.status === 404)) return props.say((error as Error).message);
    }
    setShown((before) => before.filter((one) => one.key !== generation.key));
    props.say("Deleted from the store");
  };
  const seen = new Set<string>();
  const distinct = shown.filter((one) => one.key && !seen.has(one.key) && seen.add(one.key));
  if (!distinct.length) return null;
  return (
    <section aria-labelledby="gallery">
      <h2 id="gallery">In the store</h2>
      <ul class="gallery">
        {distinct.map((one) => (
          <li key={one.id}>
            <a href={one.links.artifact}>{one.engine}, {ago(one.created)}</a>
            <span class="quiet">{bytes(one.bytes ?? 0)}, cost {seconds(one.cost_seconds ?? 0)}</span>
            <button type="button" class="plain" onClick={() => void forget(one)} aria-label={`Delete the mesh made ${ago(one.created)}`}>Delete</button>
          </li>
        ))}
      </ul>
      {next && <button type="button" onClick={() => void load(next)}>More</button>}
    </section>
  );
}
