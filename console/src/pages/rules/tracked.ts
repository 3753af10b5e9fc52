// A rule's counters with the rate between the last two looks.
import type { RuleCounters } from "../../api/types";

/** Null: there was one look alone. */
export interface Tracked {
  counters: RuleCounters;
  atMs: number;
  matchedPerSecond: number | null;
  passedPerSecond: number | null;
}

export function failures(counters: RuleCounters): number {
  return counters.failed_evaluation + counters.failed_steps + counters.actions.reduce((sum, action) => sum + action.failed_render, 0);
}

/** Milliseconds between two looks of the gateway. */
const LOOK_MS = 1_000;

/** Milliseconds after which a rate that wasn't heard of again is none: only rules that change are told of. */
const STALE_MS = 3_500;

export function track(before: Tracked | undefined, counters: RuleCounters, atMs: number): Tracked {
  const since = before ? atMs - before.atMs : 0;
  // A rule that was silent is told of with the first look that finds it at work: what is new came since the look before that one.
  const seconds = (since > 2 * LOOK_MS ? LOOK_MS : since) / 1000;
  const per = (now: number, then: number) => (seconds > 0 && now >= then ? (now - then) / seconds : null);
  return {
    counters,
    atMs,
    matchedPerSecond: before ? per(counters.matched, before.counters.matched) : null,
    passedPerSecond: before ? per(counters.passed, before.counters.passed) : null,
  };
}

/** The rate; null as long as none is known. */
export function freshRate(tracked: Tracked | undefined, which: "matchedPerSecond" | "passedPerSecond", nowMs: number): number | null {
  if (!tracked) return null;
  return nowMs - tracked.atMs < STALE_MS ? tracked[which] : 0;
}

export function lastError(counters: RuleCounters | null | undefined): string | null {
  const error = counters?.last_error;
  if (!error) return null;
  return typeof error === "string" ? error : (error.error ?? error.message ?? null);
}
