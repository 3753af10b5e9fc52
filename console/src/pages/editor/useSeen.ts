// Follows live messages while the editor is open, for completion, for freezing one, and for "matched 37 of the last 500".
import { useEffect, useState } from "preact/hooks";
import { api, path, withQuery } from "../../api/client";
import { type Stream, useStream } from "../../api/stream";
import type { LiveMessage, RetainedSummary, Shown, UserProperty } from "../../api/types";
import { NOTHING_SEEN, type Seen, withMessages } from "../../editor/seen";
import { matches } from "../../text/topics";

/** Messages a second that are asked for; what is beyond is left out by the gateway, and counted. */
const RATE = 50;

/** Retained topics that are asked for, and retained messages that are read for their fields. */
const RETAINED_MAX = 500;
const RETAINED_READ_MAX = 20;

/** Milliseconds without a change until another filter is asked for. */
const REST_MS = 1_000;

interface RetainedMessage {
  summary: RetainedSummary & { qos: number; received_at_ms: number; publisher?: string | null };
  payload: Shown;
  content_type?: string | null;
  user_properties: UserProperty[];
}

export interface Following extends Stream {
  seen: Seen;
  /** Messages that went by without being shown. */
  missed: number;
}

interface Wish {
  isAllowed: boolean;
  paused: boolean;
  filters: string[];
  /** Whether only what FROM selects is asked for: on a busy gateway little else would be seen. */
  onlySelected: boolean;
}

export function useSeen({ isAllowed, paused, filters, onlySelected }: Wish): Following {
  const only = filters.length === 1 ? filters[0] : undefined;
  const filter = useRestedValue(onlySelected && only ? only : "#");
  const [seen, setSeen] = useState<Seen>(NOTHING_SEEN);
  const [missed, setMissed] = useState(0);
  const stream = useStream({
    url: isAllowed ? withQuery(path("live", "messages"), { filter, rate: RATE }) : null,
    kinds: ["message", "missed"],
    paused,
    onEvents: (events) => {
      const fresh = events.filter((event) => event.kind === "message" && event.data).map((event) => event.data as LiveMessage);
      if (fresh.length) setSeen((known) => withMessages(known, fresh));
      const lost = events.filter((event) => event.kind === "missed").reduce((sum, event) => sum + missedOf(event.data), 0);
      if (lost) setMissed((before) => before + lost);
    },
  });

  useEffect(() => {
    if (!isAllowed) return;
    let isHere = true;
    api
      .get<{ messages: RetainedSummary[] }>(path("retained"), { limit: RETAINED_MAX })
      .then((page) => {
        const topics = page.messages.map((message) => message.topic).filter((topic) => !topic.startsWith("$"));
        if (isHere) setSeen((known) => ({ ...known, retained: topics }));
      })
      .catch(() => undefined);
    return () => {
      isHere = false;
    };
  }, [isAllowed]);

  // Fields of what is published once and kept: read when the rule's filters select it.
  const wanted = seen.retained
    .filter((topic) => filters.some((filter) => matches(filter, topic)))
    .slice(0, RETAINED_READ_MAX)
    .join("\n");
  useEffect(() => {
    if (!wanted) return;
    let isHere = true;
    const read = async () => {
      const messages: LiveMessage[] = [];
      for (const topic of wanted.split("\n")) {
        const message = await api.get<RetainedMessage>(path("retained", topic)).catch(() => null);
        if (message) messages.push(liveOf(message));
      }
      if (isHere) setSeen((known) => withMessages({ ...known, messages: [...messages.filter((one) => isNew(known, one)), ...known.messages] }, []));
    };
    void read();
    return () => {
      isHere = false;
    };
  }, [wanted]);

  return { ...stream, seen, missed };
}

/** The value once it has rested: a filter that is being typed opens no streams. */
function useRestedValue(value: string): string {
  const [rested, setRested] = useState(value);
  useEffect(() => {
    const timer = window.setTimeout(() => setRested(value), REST_MS);
    return () => window.clearTimeout(timer);
  }, [value]);
  return rested;
}

function liveOf(message: RetainedMessage): LiveMessage {
  const { topic, qos, received_at_ms, publisher } = message.summary;
  return {
    topic,
    qos,
    received_at_ms,
    publisher: publisher ?? null,
    retain: true,
    payload: message.payload,
    content_type: message.content_type ?? null,
    user_properties: message.user_properties,
  };
}

function isNew(known: Seen, message: LiveMessage): boolean {
  return !known.messages.some((one) => one.topic === message.topic && one.received_at_ms === message.received_at_ms);
}

function missedOf(data: unknown): number {
  const number = (data as { missed?: number; messages?: number } | null) ?? {};
  return number.missed ?? number.messages ?? 0;
}
