// Server-sent events for a page: one stream at a time, handed on four times a second at most, and held back while paused.
import { useEffect, useRef, useState } from "preact/hooks";
import { connection, refreshSession } from "../state/session";

/** Milliseconds between two renders that events may cause. */
const FLUSH_MS = 250;

/** Most events kept between two renders, and while paused; those before them are counted and gone. */
const HELD_EVENTS_MAX = 2_000;

/** Milliseconds until a stream that was refused is asked for again. */
const ASK_AGAIN_MS = 3_000;

export type StreamState = "connecting" | "open" | "lost";

export interface StreamEvent {
  kind: string;
  data: unknown;
  /** When it came, by the browser's clock. */
  at: number;
}

interface Options {
  /** Null: no stream. */
  url: string | null;
  /** Names of the events to listen for. */
  kinds: string[];
  paused?: boolean;
  /** Where a later event says all that an earlier one did: whom it is about. Of each the last is kept, and none is lost. */
  subject?: (data: unknown) => string;
  onEvents: (events: StreamEvent[]) => void;
}

export interface Stream {
  state: StreamState;
  /** Events that came while paused. */
  waiting: number;
}

export function useStream({ url, kinds, paused = false, subject, onEvents }: Options): Stream {
  const [state, setState] = useState<StreamState>("connecting");
  const [waiting, setWaiting] = useState(0);
  const subjectOf = useRef(subject);
  subjectOf.current = subject;
  const handler = useRef(onEvents);
  handler.current = onEvents;
  const isPaused = useRef(paused);
  isPaused.current = paused;
  const kindList = kinds.join(" ");

  useEffect(() => {
    if (!url) return;
    setState("connecting");
    let held: StreamEvent[] = [];
    const latest = new Map<string, StreamEvent>();
    let heldSince = 0;
    let source: EventSource | null = null;
    let retry: number | undefined;

    const open = () => {
      source = new EventSource(url);
      source.onopen = () => {
        connection.value = "there";
        setState("open");
      };
      source.onerror = () => {
        setState("lost");
        // A stream ends after ten minutes and comes back by itself; one that was refused stays closed.
        if (source?.readyState === EventSource.CLOSED) {
          void refreshSession();
          retry = window.setTimeout(open, ASK_AGAIN_MS);
        } else {
          fetch("/healthz", { cache: "no-store" }).catch(() => (connection.value = "lost"));
        }
      };
      for (const kind of kindList.split(" ")) {
        source.addEventListener(kind, (event) => {
          const data = parsed((event as MessageEvent<string>).data);
          heldSince += 1;
          if (subjectOf.current) {
            const about = `${kind} ${subjectOf.current(data)}`;
            latest.set(about, { kind, data, at: Date.now() });
            return;
          }
          held.push({ kind, data, at: Date.now() });
          if (held.length > HELD_EVENTS_MAX) held = held.slice(-HELD_EVENTS_MAX);
        });
      }
    };
    open();

    let shownWaiting = 0;
    const timer = window.setInterval(() => {
      if (isPaused.current) {
        if (shownWaiting !== heldSince) setWaiting((shownWaiting = heldSince));
        return;
      }
      if (shownWaiting !== 0) setWaiting((shownWaiting = 0));
      heldSince = 0;
      if (held.length + latest.size === 0) return;
      const events = [...held, ...latest.values()];
      held = [];
      latest.clear();
      handler.current(events);
    }, FLUSH_MS);

    return () => {
      window.clearInterval(timer);
      window.clearTimeout(retry);
      source?.close();
    };
  }, [url, kindList]);

  return { state, waiting };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
