// A list that comes in pages: one of them is shown at a time, so that 10,000 entries are as quick as ten and what is shown can be asked
// for again at any time.
import { useState } from "preact/hooks";
import { type Resource, useResource } from "./resource";

interface Page {
  next?: string | null;
}

export interface Turning {
  /** Number of the first entry that is shown, from 1. */
  first: number;
  goOn: (() => void) | null;
  goBack: (() => void) | null;
}

export interface Paged<P> extends Resource<P>, Turning {}

/** Where a page begins. */
interface Begin {
  after: string;
  first: number;
}

/** The pages that lead to the one that was shown last, by list: who comes back finds the place again. Lists kept, at most. */
const kept = new Map<string, Begin[]>();
const KEPT_MAX = 50;

interface Options<P> {
  /** Which list it is, its filter included: another one begins with its first page. */
  key: string;
  load: (after: string | undefined) => Promise<P>;
  entries: (page: P) => unknown[];
}

export function usePages<P extends Page>({ key, load, entries }: Options<P>): Paged<P> {
  const [trail, setTrail] = useState<{ key: string; begins: Begin[] }>({ key, begins: kept.get(key) ?? [] });
  const begins = trail.key === key ? trail.begins : (kept.get(key) ?? []);
  const { after, first } = begins.at(-1) ?? { after: undefined, first: 1 };
  const page = useResource(`${key} ${after ?? ""}`, () => load(after), { keeps: true });
  const turn = (to: Begin[]) => {
    kept.delete(key);
    if (to.length) kept.set(key, to);
    for (const old of kept.keys()) {
      if (kept.size <= KEPT_MAX) break;
      kept.delete(old);
    }
    setTrail({ key, begins: to });
  };
  const { data, loading } = page;
  const next = data?.next;
  return {
    ...page,
    first,
    goOn: data && next && !loading ? () => turn([...begins, { after: next, first: first + entries(data).length }]) : null,
    goBack: begins.length > 0 ? () => turn(begins.slice(0, -1)) : null,
  };
}
