// The studio: pictures in, meshes out.

import { render } from "preact";
import { useCallback, useEffect, useLayoutEffect, useState } from "preact/hooks";
import * as api from "./api";
import { useFocusKept } from "./focus";
import { Frame, say, usePresence } from "./frame";
import { Gallery } from "./gallery";
import { Give } from "./give";
import { ItemView } from "./item";
import { called, isTwin, over, useItems, type Item } from "./items";
import { isRecord, keepTabSetting, tabSetting } from "./kept";
import { anew, cutAlready, engineOf, Fold, queries, useOptions, type Options } from "./options";
import { helpOf } from "./problems";
import { add, CUTOUT, keep, remake, remove, start } from "./sending";

/** Milliseconds after which the engines are asked for again that were refused. */
const AGAIN = 5000;

/** The engines that are served, and why they are not known. */
function useEngines(): [api.Engine[], string] {
  const here = usePresence();
  const [engines, set] = useState<api.Engine[]>([]);
  const [problem, setProblem] = useState("");
  const [turn, again] = useState(0);
  useEffect(() => {
    if (!here) return undefined;
    let timer = 0;
    api.read<api.Engine[]>("/v1/engines").then((served) => {
      set(served);
      setProblem("");
    }, (error: Error) => {
      if (error instanceof api.Away) return;
      setProblem(error.message);
      timer = setTimeout(() => again((before) => before + 1), AGAIN);
    });
    return () => clearTimeout(timer);
  }, [here, turn]);
  return [engines, problem];
}

/** Which item was open before a refresh. */
function lastChosen(): string | string[] | null {
  const found = tabSetting("open");
  const chosen = isRecord(found) ? found.chosen : [];
  return chosen === null || typeof chosen === "string" ? chosen : Array.isArray(chosen) ? chosen.filter((one) => typeof one === "string") : [];
}

function Studio() {
  const [served, problem] = useEngines();
  const engines = served.filter((engine) => engine.name !== CUTOUT);
  const items = useItems();
  const [options, set] = useOptions(engines);
  const change = (changes: Partial<Options>) => {
    set(changes);
    // Who looks at a cut-out and then chooses another engine means the mesh that is still to be made.
    if (engines.length) remake((variations) => queries(engines, { ...options, ...changes, variations }));
  };
  // One that somebody opened (or closed: none), else the first that did not fail of what was added together.
  const [chosen, choose] = useState<string | string[] | null>(lastChosen);
  // Before it is painted: a refresh may come at any time.
  useLayoutEffect(() => keepTabSetting("open", { chosen }), [chosen]);
  const offered = items.filter((item) => Array.isArray(chosen) && chosen.includes(item.id)).reverse();
  const some = offered.length ? offered : items;
  const open = Array.isArray(chosen) ? (some.find((item) => item.state !== "failed") ?? some[0])?.id : chosen;
  const show = (id: string) => {
    choose(id);
    requestAnimationFrame(() => document.querySelector<HTMLElement>(`[data-item="${id}"] .title`)?.focus());
  };
  const take = useCallback(
    async (files: File[]) => {
      if (!files.length) return;
      const added: string[] = [];
      // Engines that others run cut out nothing here: there is nothing to ask.
      const asks = options.asks && served.some((engine) => engine.name === CUTOUT) && engineOf(engines, options)?.stages.includes("matte");
      for (const file of files) {
        let picture: string | undefined;
        for (const query of queries(engines, options)) {
          const id = await add(file, file.name, query, { wants: asks ? "cutout" : "mesh", picture });
          picture ??= id;
          added.push(id);
        }
      }
      choose(added);
      say(files.length === 1 ? `${files[0]!.name} added` : `${files.length} pictures added`, false);
    },
    [served, options],
  );
  /** What an item would be asked for with as the options are now, if that is something else than before. */
  const nowOf = (item: Item): Record<string, string> | null => {
    const asked = queries(engines, options);
    const query = { ...(asked.find((one) => one.seed === item.query.seed) ?? asked[0]!), ...(item.repaired && cutAlready(engineOf(engines, options))) };
    return engines.length && JSON.stringify(query) !== JSON.stringify(item.query) ? query : null;
  };
  const anewOf = (item: Item) => {
    const now = nowOf(item);
    // The same would fail again, and with another seed as well.
    if (item.state === "failed" && helpOf(item.problem) !== "again") return now ? [now] : [];
    const made = items.filter((one) => one.id === item.id || (one.picture !== "" && one.picture === item.picture));
    const found = anew(engines, options, made.filter((one) => one.state !== "failed" && one.state !== "cancelled").map((one) => one.query));
    return item.repaired ? found.map((query) => ({ ...query, ...cutAlready(engineOf(engines, options)) })) : found;
  };
  const focus = useFocusKept(".items > li", "#yours", ".give button");
  const ready = items.filter((item) => item.state === "succeeded").length;
  const held = items.filter((item) => item.state === "held");
  // Variations of one picture have one cut-out.
  const cutouts = new Set(held.map((item) => item.picture || item.id)).size;
  const done = items.filter(over);
  return (
    <Frame path="/" away="What you added is kept here; it goes on when the server is back.">
      <h1 class="hidden">Studio</h1>
      <Give take={(files) => void take(files)} small={items.length > 0} />
      <Fold engines={engines} options={options} change={change} />
      {problem && !engines.length && <p class="problem" role="alert">The options cannot be shown, and the server's own hold. {problem}</p>}
      {items.length > 0 && (
        <section aria-labelledby="yours" {...focus}>
          <div class="head">
            <h2 id="yours" tabIndex={-1}>Your pictures</h2>
            {cutouts > 1 && <button type="button" onClick={() => held.forEach((item) => keep(item.id))}>Keep all {cutouts} cut-outs</button>}
            {done.length > 2 && <button type="button" class="plain" onClick={() => done.forEach((item) => remove(item.id))}>Take {done.length} finished off the list</button>}
          </div>
          <ol class="items">
            {items.map((item) => (
              <ItemView key={item.id} item={item} twin={isTwin(item, items)} open={item.id === open} format={options.format} asks={options.asks} setAsks={(asks) => change({ asks })} say={say} select={show}
                anew={anewOf(item)} now={nowOf(item)}
                engine={engines.find((engine) => engine.name === (item.document?.engine ?? item.query.engine)) ?? engineOf(engines, options)}
                toggle={() => choose(item.id === open ? null : item.id)} />
            ))}
          </ol>
        </section>
      )}
      <Gallery made={ready} names={new Map(items.map((item) => [item.document?.key ?? "", called(item)]))} engines={engines} say={say} />
    </Frame>
  );
}

start();
render(<Studio />, document.getElementById("page")!);
