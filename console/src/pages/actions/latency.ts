// How long requests of an action take, from the histogram that /metrics has.
import { useEffect, useState } from "preact/hooks";

/** Milliseconds between two looks: /metrics tells of everything, so it is asked for seldom. */
const LOOK_EVERY_MS = 15_000;

export interface Latency {
  medianMs: number | null;
  slowMs: number | null;
  count: number;
}

export function useLatency(rule: string, action: string, isAllowed: boolean): Latency | null {
  const [latency, setLatency] = useState<Latency | null>(null);
  useEffect(() => {
    if (!isAllowed) return;
    let isHere = true;
    const look = () =>
      fetch("/metrics", { credentials: "same-origin", cache: "no-store" })
        .then(async (response) => {
          if (response.ok && isHere) setLatency(latencyOf(await response.text(), rule, action));
        })
        .catch(() => undefined);
    void look();
    const timer = window.setInterval(() => void look(), LOOK_EVERY_MS);
    return () => {
      isHere = false;
      window.clearInterval(timer);
    };
  }, [rule, action, isAllowed]);
  return latency;
}

function latencyOf(text: string, rule: string, action: string): Latency {
  const prefix = `tidegate_action_latency_seconds_bucket{rule="${rule}",action="${action}",le="`;
  const buckets: { le: number; count: number }[] = [];
  for (const line of text.split("\n")) {
    if (!line.startsWith(prefix)) continue;
    const [le = "", rest = ""] = line.slice(prefix.length).split('"} ');
    buckets.push({ le: le === "+Inf" ? Infinity : Number(le), count: Number(rest) });
  }
  const count = buckets.at(-1)?.count ?? 0;
  return { count, medianMs: quantile(buckets, count, 0.5), slowMs: quantile(buckets, count, 0.95) };
}

/** The upper end of the bucket that the share falls into. */
function quantile(buckets: { le: number; count: number }[], count: number, share: number): number | null {
  if (count === 0) return null;
  const le = buckets.find((bucket) => bucket.count >= count * share)?.le;
  return le === undefined || le === Infinity ? null : le * 1000;
}
