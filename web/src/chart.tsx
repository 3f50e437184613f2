// A chart over time, drawn by uPlot in the page's colours.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { seconds } from "./words";

export interface Line {
  name: string;
  /** A custom property of the style sheet. */
  colour: string;
  dash?: number[];
  fill?: boolean;
  values: (number | null)[];
}

const property = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Seconds that a chart shows at least, however little there is to show. */
const NARROWEST = 300;

/** Values of one unit, or none. log : for what spans from microseconds to minutes */
export function Chart(props: { title: string; note: string; at: number[]; lines: Line[]; unit: "s" | "%" | ""; log?: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { at, lines, unit, log } = props;
  const shape = lines.map((line) => line.name).join("|");
  const drawn: (number | null)[][] = [at, ...lines.map((line) => line.values)];
  // Of a single moment uPlot would show the day that begins with it.
  const data = (at.length === 1 ? drawn.map((values, i) => [i ? null : at[0]! - NARROWEST, ...values]) : drawn) as uPlot.AlignedData;
  const said = (value: number | null | undefined): string => {
    if (value === null || value === undefined) return "–";
    return unit === "s" ? seconds(value) : unit === "%" ? `${Math.round(value * 100)} %` : value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(2)));
  };
  useEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const axis = { stroke: () => property("--quiet"), grid: { stroke: () => property("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    const made = new uPlot(
      {
        width: Math.max(200, element.clientWidth),
        height: 170,
        cursor: { y: false, points: { size: 6 } },
        legend: { live: true },
        scales: {
          x: { time: true, range: (_, first, last) => [Math.min(first ?? 0, (last ?? 0) - NARROWEST), last ?? 0] },
          y: log ? { distr: 3, log: 10, range: (_, low, high) => [below(low || 0.001), 1 / below(1 / (high || 1))] } : { range: (_, __, high) => [0, unit === "%" ? 1 : high > 0 ? high * 1.1 : 1] },
        },
        axes: [
          { ...axis, values: "{HH}:{mm}", size: 28 },
          {
            ...axis,
            size: 62,
            ...(log ? { splits: (_: uPlot, __: number, low: number, high: number) => decades(low, high) } : {}),
            values: (_: uPlot, splits: (number | null)[]) => splits.map((value) => (value === null ? "" : said(value))),
          },
        ],
        series: [
          { value: (_, value) => (value === null ? "–" : new Date(value * 1000).toLocaleTimeString("en-GB")) },
          ...lines.map((line): uPlot.Series => ({
            label: line.name,
            stroke: () => property(line.colour),
            ...(line.fill ? { fill: () => `${property(line.colour)}40` } : {}),
            ...(line.dash ? { dash: line.dash } : {}),
            width: 1.75,
            spanGaps: false,
            points: { show: false, filter: (self: uPlot, index: number) => alone(self.data[index] as (number | null)[]), size: 6 },
            // Away from the pointer the legend tells the latest.
            value: (self: uPlot, value: number | null, index: number, at: number | null) => said(at === null ? latest(self.data[index] as (number | null)[]) : value),
          })),
        ],
      },
      data,
      element,
    );
    plot.current = made;
    const sized = new ResizeObserver(() => made.setSize({ width: Math.max(200, element.clientWidth), height: 170 }));
    sized.observe(element);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => made.redraw(false, true);
    scheme.addEventListener("change", redraw);
    return () => {
      sized.disconnect();
      scheme.removeEventListener("change", redraw);
      made.destroy();
      plot.current = null;
    };
    // A chart with other lines is another chart; values alone are set below.
  }, [shape]);
  useEffect(() => {
    plot.current?.setData(data);
  });
  const heard = lines.map((line) => `${line.name} ${said(latest(line.values))}`).join(", ");
  return (
    <figure class="chart">
      <figcaption>
        <h3>{props.title}</h3>
        <small>{props.note}</small>
        <span class="hidden">Latest: {heard || "nothing yet"}.</span>
      </figcaption>
      <div ref={place} aria-hidden="true" />
    </figure>
  );
}

const latest = (values: (number | null)[]): number | null => [...values].reverse().find((value) => value !== null) ?? null;

/** The power of ten at or below a value. */
const below = (value: number): number => 10 ** Math.floor(Math.log10(value));

/** The powers of ten between two of them, no more than one for every few lines of text. */
function decades(low: number, high: number): number[] {
  const [first, last] = [Math.round(Math.log10(low)), Math.round(Math.log10(high))];
  const step = Math.ceil((last - first) / 5) || 1;
  return Array.from({ length: Math.floor((last - first) / step) + 1 }, (_, i) => 10 ** (first + i * step));
}

/** Where values have gaps around them, between which no line would be seen. */
function alone(values: (number | null)[]): number[] {
  const gap = (at: number): boolean => (values[at] ?? null) === null;
  return [...values.keys()].filter((at) => !gap(at) && gap(at - 1) && gap(at + 1));
}
