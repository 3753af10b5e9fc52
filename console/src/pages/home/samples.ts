// What the stream of overviews has said while Home is open.
import type { Overview } from "../../api/types";

/** Seconds that the live charts show: one sample each. */
const LIVE_SAMPLES_MAX = 300;

/** The samples with those that are new. What was put together once may be sent twice, and twice the same would look like standstill. */
export function withFresh(known: Overview[], fresh: Overview[]): Overview[] {
  const all = [...known];
  for (const one of fresh) {
    if (one.at_ms !== all.at(-1)?.at_ms) all.push(one);
  }
  return all.slice(-LIVE_SAMPLES_MAX);
}
