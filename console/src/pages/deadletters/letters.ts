// Letters by name and by filter. A letter's name is `rule/action:number`; its place in the interface has the three apart.
import { api, path } from "../../api/client";
import type { Letter, LetterPage, LettersDone } from "../../api/types";
import { quoted } from "../../components/CopyAs";
import { gatewayNow } from "../../state/session";

export function positionOf(letter: Letter): string {
  return letter.name.slice(letter.name.lastIndexOf(":") + 1);
}

export function letterPath(letter: Letter): string {
  return path("dead-letters", letter.rule, letter.action, positionOf(letter));
}

export interface LetterFilter {
  rule: string;
  action: string;
  cause: string;
  since: string;
}

export const NO_FILTER: LetterFilter = { rule: "", action: "", cause: "", since: "" };

/** All that the gateway knows, the usual ones first. */
export const CAUSES = [
  "refused",
  "retries_exhausted",
  "expired",
  "queue_full",
  "too_large",
  "rate_limited",
  "removed",
  "unreadable",
  "lost",
  "driver",
  "shutdown",
  "purged",
];

/** How long ago a letter may have ended, and the same as the command line and the interface have it. */
export const SINCE: Record<string, { option: string; ms: number }> = {
  "10 minutes": { option: "10m", ms: 600_000 },
  "1 hour": { option: "1h", ms: 3_600_000 },
  "24 hours": { option: "24h", ms: 86_400_000 },
  "7 days": { option: "7d", ms: 604_800_000 },
};

/** As members of a request. */
export function members(filter: LetterFilter): Record<string, string | number> {
  const kept: Record<string, string | number> = {};
  if (filter.rule) kept["rule"] = filter.rule;
  if (filter.action) kept["action"] = filter.action;
  if (filter.cause) kept["cause"] = filter.cause;
  const since = SINCE[filter.since];
  if (since) kept["since_ms"] = gatewayNow() - since.ms;
  return kept;
}

/** As options of the command line. */
export function options(filter: LetterFilter): string {
  const parts: string[] = [];
  if (filter.rule) parts.push(`--rule ${quoted(filter.rule)}`);
  if (filter.action) parts.push(`--action ${quoted(filter.action)}`);
  if (filter.cause) parts.push(`--cause ${quoted(filter.cause)}`);
  const since = SINCE[filter.since];
  if (since) parts.push(`--since ${since.option}`);
  return parts.length ? ` ${parts.join(" ")}` : "";
}

/** Letters of a page, and of one that is only counted. */
const PAGE_LETTERS = 100;
const COUNTED_LETTERS = 1_000;

/** A page. The gateway looks at so many letters for one answer; where none of them fits, there may be some behind them. */
export async function load(filter: LetterFilter, after?: string): Promise<LetterPage> {
  let page: LetterPage;
  let from: string | null | undefined = after;
  do {
    page = await api.get<LetterPage>(path("dead-letters"), { ...members(filter), limit: PAGE_LETTERS, after: from });
    from = page.next;
  } while (page.letters.length === 0 && from);
  return page;
}

/** How many letters fit. */
export async function countLetters(filter: Record<string, string | number>, known: number | null | undefined): Promise<number> {
  if (known !== null && known !== undefined) return known;
  let number = 0;
  let after: string | null | undefined;
  do {
    const page: LetterPage = await api.get<LetterPage>(path("dead-letters"), { ...filter, limit: COUNTED_LETTERS, after });
    number += page.letters.length;
    after = page.next;
  } while (after);
  return number;
}

export interface Progress {
  done: number;
  refused: { name: string; message: string }[];
}

/** Refusals that are told of by name. */
const REFUSED_MAX = 20;

/** Sends or drops all that fit, step by step, until `isStopped`: each request does a bounded step and says where the next one begins. What
 * ends meanwhile isn't meant. */
export async function changeAll(
  verb: "redrive" | "drop",
  filter: Record<string, string | number>,
  onProgress: (progress: Progress) => void,
  isStopped: () => boolean,
): Promise<Progress> {
  let progress: Progress = { done: 0, refused: [] };
  let after: string | null | undefined;
  do {
    const answer: LettersDone = await api.post(path("dead-letters", verb), { filter, after: after ?? null });
    progress = { done: progress.done + answer.done, refused: [...progress.refused, ...answer.refused].slice(0, REFUSED_MAX) };
    onProgress(progress);
    after = answer.next;
  } while (after && !isStopped());
  return progress;
}

/** Sends or drops these letters one after the other, until `isStopped`; one that is refused keeps no other back. */
export async function changeEach(
  verb: "redrive" | "drop",
  letters: Letter[],
  onProgress: (progress: Progress) => void,
  isStopped: () => boolean,
): Promise<Progress> {
  let progress: Progress = { done: 0, refused: [] };
  for (const letter of letters) {
    if (isStopped()) break;
    const answer =
      verb === "redrive" ? await api.post<LettersDone>(`${letterPath(letter)}/redrive`) : await api.delete<LettersDone>(letterPath(letter));
    progress = { done: progress.done + answer.done, refused: [...progress.refused, ...answer.refused].slice(0, REFUSED_MAX) };
    onProgress(progress);
  }
  return progress;
}
