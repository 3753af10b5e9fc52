// A chart of rates or sizes over time, drawn by uPlot. Gaps stay gaps; the newest values stand beside it as text, or those under the
// pointer with their time.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { isDark } from "../state/theme";
import { moment } from "../text/format";
import { withGaps } from "./rates";

export interface Series {
  label: string;
  values: (number | null)[];
}

interface Props {
  title: string;
  /** Seconds since 1970. */
  at: number[];
  series: Series[];
  format: (value: number) => string;
  height?: number;
  /** The least that the axis reaches to, so that a chart with next to nothing in it has no odd steps. */
  least?: number;
  /** Seconds that the chart shows, up to the newest value. */
  span: number;
  /** Seconds between two values beyond which nothing is known of the time between: the line is broken there. */
  gap: number;
}

/** Okabe and Ito's colours, which people with any colour vision can tell apart; dashes tell them apart once more. */
const LIGHT = ["#0072b2", "#c25e00", "#00805f", "#a6478a"];
const DARK = ["#62b6f0", "#f0a850", "#35c79f", "#e29ac8"];
const DASHES: number[][] = [[], [6, 3], [2, 3], [8, 3, 2, 3]];

export function seriesColour(index: number): string {
  return (isDark.value ? DARK : LIGHT)[index % LIGHT.length] ?? "#888";
}

export function Chart({ title, at, series, format, height = 150, least = 1, span, gap }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const dark = isDark.value;
  const labels = series.map((one) => one.label).join("\n");
  const shape = useRef({ format });
  shape.current.format = format;
  const [pointed, setPointed] = useState<number | null>(null);
  const broken = useMemo(() => withGaps(at, series, gap), [at, series, gap]);
  const pointedAt = pointed === null ? undefined : broken.at[pointed];

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const ink = dark ? "#9aa7b8" : "#556273";
    const grid = { stroke: dark ? "#26303d" : "#e6eaef", width: 1 };
    const chart = new uPlot(
      {
        width: element.clientWidth || 300,
        height,
        legend: { show: false },
        cursor: { y: false, points: { size: 6 } },
        hooks: { setCursor: [({ cursor }) => setPointed((cursor.left ?? -1) < 0 ? null : (cursor.idx ?? null))] },
        padding: [8, 18, 0, 0],
        scales: {
          x: { range: (_chart, _low, high) => [high - span, high] },
          y: { range: (_chart, _low, high) => [0, Math.max(high * 1.1, least)] },
        },
        axes: [
          { stroke: ink, grid, ticks: grid, font: "11px system-ui", size: 26, space: 70, values: (_chart, ticks) => ticks.map(hourAndMinute) },
          {
            stroke: ink,
            grid,
            ticks: grid,
            font: "11px system-ui",
            size: 58,
            space: 32,
            values: (_chart, ticks) => ticks.map((tick) => shape.current.format(tick)),
          },
        ],
        series: [
          {},
          ...labels.split("\n").map((label, index) => ({
            label,
            stroke: (dark ? DARK : LIGHT)[index % LIGHT.length] ?? ink,
            width: 1.75,
            dash: DASHES[index % DASHES.length] ?? [],
            points: { show: false },
            spanGaps: false,
          })),
        ],
      },
      [[], ...labels.split("\n").map(() => [])] as unknown as uPlot.AlignedData,
      element,
    );
    plot.current = chart;
    const watcher = new ResizeObserver(() => {
      if (element.clientWidth > 0) chart.setSize({ width: element.clientWidth, height });
    });
    watcher.observe(element);
    return () => {
      watcher.disconnect();
      chart.destroy();
      plot.current = null;
    };
  }, [dark, labels, height, least, span]);

  useEffect(() => {
    plot.current?.setData([broken.at, ...broken.values] as uPlot.AlignedData);
  }, [broken, dark, labels, span]);

  return (
    <figure class="chart">
      <figcaption>
        <span class="chart-title">{title}</span>
        <span class="chart-keys">
          {pointedAt !== undefined && <span class="chart-at">{moment(pointedAt * 1000)}</span>}
          {series.map((one, index) => (
            <span class="chart-key" key={one.label}>
              <svg width="18" height="8" aria-hidden="true">
                <line
                  x1="0"
                  y1="4"
                  x2="18"
                  y2="4"
                  stroke={seriesColour(index)}
                  stroke-width="2.5"
                  stroke-dasharray={(DASHES[index % DASHES.length] ?? []).join(" ")}
                />
              </svg>
              {one.label} <strong>{shown(pointedAt === undefined ? one.values.at(-1) : broken.values[index]?.[pointed ?? 0], format)}</strong>
            </span>
          ))}
        </span>
      </figcaption>
      <div ref={box} class="chart-box" role="img" aria-label={described(title, series, format)} />
    </figure>
  );
}

function shown(value: number | null | undefined, format: (value: number) => string): string {
  return value === null || value === undefined ? "–" : format(value);
}

function described(title: string, series: Series[], format: (value: number) => string): string {
  const parts = series.map((one) => {
    const known = one.values.filter((value): value is number => value !== null);
    if (known.length === 0) return `${one.label}: nothing yet`;
    return `${one.label}: ${shown(one.values.at(-1), format)} now, ${format(Math.max(...known))} at most`;
  });
  return `${title}. ${parts.join("; ")}`;
}

function hourAndMinute(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const text = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return seconds % 60 === 0 ? text : `${text}:${two(date.getSeconds())}`;
}
