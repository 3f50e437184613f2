// Operations: what the cache saves, what is slow, and the few things to do about it.

import "uplot/dist/uPlot.min.css";
import "./operations.css";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "./api";
import type { Line } from "./chart";
import { Chart } from "./chart";
import type { Question } from "./confirm";
import { Confirm } from "./confirm";
import type { Artifact, Operations, Series, Worker } from "./counts";
import { OUTCOMES } from "./counts";
import { Frame, Said, say, usePresence } from "./frame";
import { Answers, Batches, Dearest, Errors, Evictions, lately, Outcomes, Stages, Workers } from "./tables";
import { bytes, count } from "./words";

type Span = "live" | "day";
const EVERY = 3000;

/** The spans that can be seen, by what they are: the fine figures begin with the server, the day's do not. */
const spans = (told: Operations): [Span, string][] => [
  ["live", lately(told.live) ? `since the start, ${lately(told.live)}` : "last 15 minutes"],
  ["day", "last 24 hours"],
];

const post = <T,>(path: string, body: unknown): Promise<T> =>
  api.read<T>(`/v1/operations/${path}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/** What the server tells, asked again every few seconds while somebody looks. */
function useTold(span: Span) {
  const here = usePresence();
  const [told, setTold] = useState<Operations | null>(null);
  const [series, setSeries] = useState<Series | null>(null);
  const [dear, setDear] = useState<Artifact[]>([]);
  const [refusal, setRefusal] = useState("");
  const [turn, again] = useState(0);
  useEffect(() => {
    if (!here) return undefined;
    let stopped = false;
    let timer = 0;
    let rounds = 0;
    let looking = false;
    const look = async () => {
      if (!document.hidden) {
        looking = true;
        try {
          const [now, drawn] = await Promise.all([api.read<Operations>("/v1/operations"), api.read<Series>(`/v1/operations/history?span=${span}`)]);
          // Every artifact is looked at for these, so they are asked for less often.
          const costly = rounds++ % 10 === 0 ? (await api.read<{ artifacts: Artifact[] }>("/v1/operations/dearest?limit=8")).artifacts : null;
          if (stopped) return;
          setTold(now);
          setSeries(drawn);
          if (costly) setDear(costly);
          setRefusal("");
        } catch (error) {
          // When the server is away the frame says so.
          if (!stopped && error instanceof api.Problem) setRefusal(error.message);
        }
        looking = false;
      }
      if (!stopped) timer = setTimeout(() => void look(), EVERY);
    };
    void look();
    const seen = () => {
      if (document.hidden || looking) return;
      clearTimeout(timer);
      void look();
    };
    document.addEventListener("visibilitychange", seen);
    return () => {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [here, span, turn]);
  return { told, series, dear, refusal, refresh: () => again((number) => number + 1) };
}

function lines(columns: Record<string, (number | null)[]>): Line[] {
  return Object.keys(OUTCOMES).filter((name) => columns[name]).map((name) => ({ name: OUTCOMES[name]!, colour: `--${name}`, values: columns[name]! }));
}

function Charts(props: { series: Series; span: Span }) {
  const { series, span } = props;
  const tails = Object.fromEntries(Object.entries(series.latency).map(([name, q]) => [name, q.p95]));
  // The last point is of a time that is not over.
  const saved = series.saved_seconds.map((value, at) => (value === null || at === series.at.length - 1 ? null : (value * 60) / series.seconds[at]!));
  const workers = Object.entries(series.busy).map(([name, values], at): Line => ({ name: `worker ${name}`, colour: `--line-${(at % 4) + 1}`, values }));
  return (
    <div class="charts">
      <Chart title="Generations a second" note="by outcome" at={series.at} unit="" lines={lines(series.per_second)} key={`rate ${span}`} />
      <Chart title="Latency" note="95th percentile by outcome, from the request to its result" at={series.at} unit="s" log lines={lines(tails)} key={`latency ${span}`} />
      <Chart title="Saved" note="compute seconds a minute" at={series.at} unit="s" key={`saved ${span}`}
        lines={[{ name: "saved", colour: "--memory", fill: true, values: saved }]} />
      <Chart title="Queue" note="estimated wait of what is asked for now" at={series.at} unit="s" key={`wait ${span}`}
        lines={[{ name: "estimated wait", colour: "--computed", fill: true, values: series.wait_seconds }]} />
      <Chart title="Workers busy" note="share of the time" at={series.at} unit="%" lines={workers} key={`busy ${span}`} />
      <Chart title="Waiting" note="distinct generations" at={series.at} unit="" key={`waiting ${span}`}
        lines={[{ name: "waiting", colour: "--line-2", values: series.waiting }, { name: "in the kiln", colour: "--line-1", dash: [4, 3], values: series.active }]} />
    </div>
  );
}

const artifacts = (number: number): string => `${count(number)} ${number === 1 ? "artifact" : "artifacts"}`;

const AGES: [number, string][] = [[3600, "an hour"], [86400, "a day"], [604800, "a week"], [2592000, "30 days"], [0, "now: everything"]];

function PurgeForm(props: { engines: string[]; ask: (wanted: Record<string, unknown>, words: string) => void }) {
  const [by, setBy] = useState("age");
  const [age, setAge] = useState("604800");
  const [engine, setEngine] = useState("");
  const [key, setKey] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    if (by === "age") props.ask({ older_than_seconds: Number(age) }, age === "0" ? "made until now" : `made longer ago than ${AGES.find(([seconds]) => String(seconds) === age)?.[1] ?? age}`);
    if (by === "engine") props.ask({ engine: engine || props.engines[0] }, `made for ${engine || props.engines[0]}`);
    if (by === "key") props.ask({ key: key.trim().toLowerCase() }, `whose key begins with ${key.trim().toLowerCase()}`);
  };
  return (
    <form class="row purge" onSubmit={submit}>
      <label class="inline">Purge by
        <select value={by} onChange={(event) => setBy(event.currentTarget.value)}>
          <option value="age">age</option><option value="engine">engine</option><option value="key">key</option>
        </select>
      </label>
      {by === "age" && <label class="inline">older than
        <select value={age} onChange={(event) => setAge(event.currentTarget.value)}>{AGES.map(([value, name]) => <option key={value} value={value}>{name}</option>)}</select></label>}
      {by === "engine" && <label class="inline">engine
        <select value={engine || props.engines[0]} onChange={(event) => setEngine(event.currentTarget.value)}>{props.engines.map((name) => <option key={name}>{name}</option>)}</select></label>}
      {by === "key" && <label class="inline">beginning with
        <input required pattern="[0-9a-fA-F]{8,64}" title="8 to 64 hexadecimal digits" size={16} value={key} onInput={(event) => setKey(event.currentTarget.value)} /></label>}
      <button type="submit">Purge …</button>
    </form>
  );
}

function Page() {
  const [span, setSpan] = useState<Span>("day");
  const { told, series, dear, refusal, refresh } = useTold(span);
  const [question, setQuestion] = useState<Question | null>(null);
  const [problem, setProblem] = useState("");
  const [doing, setDoing] = useState("");
  const alert = useRef<HTMLParagraphElement>(null);
  // What is refused may have been asked for far below.
  useEffect(() => alert.current?.scrollIntoView({ block: "nearest" }), [problem]);
  const attempt = async (what: () => Promise<string>): Promise<void> => {
    setProblem("");
    try {
      say(await what());
    } catch (error) {
      setProblem(error instanceof Error ? error.message : String(error));
    }
    refresh();
  };
  /** Ask for what takes its time, which is told while it does. */
  const purged = async (wanted: Record<string, unknown>, words: string): Promise<{ artifacts: number; bytes: number }> => {
    setDoing(words);
    try {
      return await post("purge", wanted);
    } finally {
      setDoing("");
    }
  };
  const purge = (wanted: Record<string, unknown>, words: string) =>
    // One after the other; that there is one is seen.
    !doing && attempt(async () => {
      const would = await purged({ ...wanted, dry_run: true }, "Looking for what would go …");
      if (!would.artifacts) return `Nothing is stored that was ${words}`;
      setQuestion({
        title: `Purge ${artifacts(would.artifacts)}?`,
        text: `${bytes(would.bytes)} ${words} will be let go. What is asked for again is computed again.`,
        action: "Purge",
        danger: true,
        act: () => attempt(async () => {
          const gone = await purged(wanted, `Purging ${artifacts(would.artifacts)} …`);
          return gone.artifacts === 1 ? "One artifact is gone" : `${count(gone.artifacts)} artifacts are gone`;
        }),
      });
      return "";
    });
  // Workers that were asked to rest, until they do: a batch that one has in hand may take minutes.
  const resting = useRef(new Set<number>());
  useEffect(() => {
    for (const worker of told?.workers ?? []) {
      if (!resting.current.has(worker.number) || worker.state === "draining") continue;
      resting.current.delete(worker.number);
      if (worker.state === "drained") say(`Worker ${worker.number} is drained`);
    }
  }, [told]);
  const drain = (worker: Worker) => {
    const drained = worker.state !== "drained" && worker.state !== "draining";
    setQuestion({
      title: drained ? `Drain worker ${worker.number}?` : `Resume worker ${worker.number}?`,
      text: drained ? "It finishes its batch, its process ends, and it takes up nothing until it is resumed. Others go on." : "A process is started for it, and it takes up batches again.",
      action: drained ? "Drain" : "Resume",
      danger: drained,
      act: () => attempt(async () => {
        const { state } = await post<Worker>(`workers/${worker.number}`, { drained });
        if (drained && state !== "drained") resting.current.add(worker.number);
        else resting.current.delete(worker.number);
        if (!drained) return `Worker ${worker.number} is resumed`;
        return state === "drained" ? `Worker ${worker.number} is drained` : `Worker ${worker.number} is draining: it finishes what it is at`;
      }),
    });
  };
  const pause = () => {
    const paused = !told?.intake.paused;
    setQuestion({
      title: paused ? "Pause the intake?" : "Resume the intake?",
      text: paused ? "New work is refused until it is resumed, or the server is started again. What is stored is answered, and what was accepted goes on." : "New work is accepted again.",
      action: paused ? "Pause" : "Resume",
      danger: paused,
      act: () => attempt(async () => {
        await post("intake", { paused });
        return paused ? "The intake is paused" : "The intake is resumed";
      }),
    });
  };
  const summary = told?.[span];
  return (
    <Frame path="/operations" away="These are the last figures that were seen.">
      <h1>Operations</h1>
      {told && (
        <div class={told.intake.paused ? "intake bar notice" : "intake bar"}>
          <p role="status">{told.intake.paused ? <><strong>The intake is paused.</strong> New work is refused.</> : <><strong>The intake is open.</strong> New work is accepted.</>}</p>
          <button type="button" class={told.intake.paused ? "main" : "danger"} onClick={pause}>{told.intake.paused ? "Resume intake …" : "Pause intake …"}</button>
        </div>
      )}
      {told && !told.telemetry && <p class="notice">The setting telemetry is off: nothing is counted.</p>}
      {(problem || refusal) && <p class="problem" role="alert" ref={alert}>{problem || refusal}</p>}
      {told && summary ? (
        <>
          <Answers told={told} />
          <div class="bar">
            <h2>Over time</h2>
            <div class="row" role="group" aria-label="Time span of all below">
              {spans(told).map(([name, words]) => (
                <button key={name} type="button" aria-pressed={name === span} onClick={() => setSpan(name)}>{words}</button>
              ))}
            </div>
          </div>
          {series && <Charts series={series} span={span} />}
          <div class="panels">
            <Outcomes summary={summary} />
            <Stages summary={summary} />
            <Workers workers={told.workers} summary={summary} ask={drain} />
            <Batches summary={summary} />
            <Errors summary={summary} />
            <Evictions summary={summary} />
            <Dearest artifacts={dear} ask={(artifact) => void purge({ key: artifact.key }, `kept under ${artifact.key.slice(0, 12)}`)} />
          </div>
          <section class="panel actions" aria-labelledby="actions">
            <h3 id="actions">Let stored artifacts go</h3>
            <PurgeForm engines={told.engines} ask={(wanted, words) => void purge(wanted, words)} />
          </section>
        </>
      ) : !refusal && <p class="quiet">Asking the server …</p>}
      <Said what={doing} seen />
      <Confirm question={question} close={() => setQuestion(null)} />
    </Frame>
  );
}

render(<Page />, document.getElementById("page")!);
