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

/** Values of one unit, or none. log : for what spans from microseconds to minutes */
export function Chart(props: { title: string; note: string; at: number[]; lines: Line[]; unit: "s" | "%" | ""; log?: boolean }) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const { at, lines, unit, log } = props;
  const shape = lines.map((line) => line.name).join("|");
  const data = [at, ...lines.map((line) => line.values)] as uPlot.AlignedData;
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
        scales: { x: { time: true }, y: log ? { distr: 3, log: 10 } : { range: (_, __, high) => [0, unit === "%" ? 1 : Math.max(high || 0, 1e-9) * 1.1] } },
        axes: [
          { ...axis, values: "{HH}:{mm}", size: 28 },
          {
            ...axis,
            size: 62,
            // Of a logarithmic axis only the powers of ten.
            ...(log ? { filter: decades, grid: { ...axis.grid, filter: decades } } : {}),
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
            points: { show: (self: uPlot, index: number) => alone(self.data[index] as (number | null)[]) , size: 4 },
            value: (_: uPlot, value: number | null) => said(value),
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
  const latest = lines.map((line) => `${line.name} ${said([...line.values].reverse().find((value) => value !== null))}`).join(", ");
  return (
    <figure class="chart">
      <figcaption>
        <h3>{props.title}</h3>
        <small>{props.note}</small>
        <span class="hidden">Latest: {latest || "nothing yet"}.</span>
      </figcaption>
      <div ref={place} aria-hidden="true" />
    </figure>
  );
}

/** Powers of ten, and nothing in the place of what is none. */
function decades(_: uPlot, splits: number[]): (number | null)[] {
  return splits.map((value) => (Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9 ? value : null));
}

/** Whether values have gaps around them, between which no line would be seen. */
function alone(values: (number | null)[]): boolean {
  return values.some((value, at) => value !== null && (values[at - 1] ?? null) === null && (values[at + 1] ?? null) === null);
}
