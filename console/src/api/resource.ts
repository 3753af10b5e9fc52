// What a page asks for once and may ask for again: its states are those that every page has to show.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { connection } from "../state/session";
import { asProblem, type Problem } from "./problem";

export interface Resource<T> {
  data: T | null;
  problem: Problem | null;
  loading: boolean;
  reload: () => Promise<void>;
  set: (data: T) => void;
}

interface Options {
  /** What was there stays also while another key's is asked for. */
  keeps?: boolean;
  /** What somebody works on isn't asked for again when a lost gateway is back: they would no longer know what they began with. */
  isWorkedOn?: boolean;
}

/** Loads when `key` changes. What was there stays while it is asked for again. A null key asks for nothing. */
export function useResource<T>(key: string | null, load: () => Promise<T>, { keeps = false, isWorkedOn = false }: Options = {}): Resource<T> {
  const [data, setData] = useState<T | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [loading, setLoading] = useState(key !== null);
  const current = useRef(0);
  const loader = useRef(load);
  loader.current = load;
  const has = useRef(false);
  has.current = data !== null;

  const reload = useCallback(async () => {
    const mine = ++current.current;
    setLoading(true);
    try {
      const answer = await loader.current();
      if (mine !== current.current) return;
      setData(answer);
      setProblem(null);
    } catch (thrown) {
      if (mine !== current.current) return;
      const wrong = asProblem(thrown);
      // What was there is shown on while the gateway is away or busy, not when it is gone or no longer for one's eyes.
      if (wrong.isMissing || wrong.isDenied) setData(null);
      setProblem(wrong);
    } finally {
      if (mine === current.current) setLoading(false);
    }
  }, []);

  useEffect(() => {
    if (!keeps || key === null) setData(null);
    setProblem(null);
    if (key === null) return;
    void reload();
    let was = connection.peek();
    // A gateway that is back is asked again.
    const stop = connection.subscribe((now) => {
      if (was === "lost" && now === "there" && !(isWorkedOn && has.current)) void reload();
      was = now;
    });
    return () => {
      current.current += 1;
      stop();
    };
  }, [key, reload, keeps, isWorkedOn]);

  return { data, problem, loading, reload, set: setData };
}
