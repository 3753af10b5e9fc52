// What was seen of live messages while the editor is open: topics, the fields of their payloads, and the last messages.
import type { LiveMessage } from "../api/types";
import { matches } from "../text/topics";

/** Messages that are remembered. */
export const SEEN_MESSAGES_MAX = 500;

/** Topics that are offered: those of the messages, and retained ones. */
const TOPICS_MAX = 2_000;

/** Fields that are offered, and how deep they are looked for. */
const FIELDS_MAX = 300;
const FIELD_DEPTH_MAX = 4;

export interface Seen {
  messages: LiveMessage[];
  /** Topics with retained messages, which may never be published again. */
  retained: string[];
}

export const NOTHING_SEEN: Seen = { messages: [], retained: [] };

export function withMessages(seen: Seen, fresh: LiveMessage[]): Seen {
  return { ...seen, messages: [...seen.messages, ...fresh].slice(-SEEN_MESSAGES_MAX) };
}

export function topicsOf(seen: Seen): string[] {
  const topics = new Set<string>();
  for (const message of seen.messages) topics.add(message.topic);
  for (const topic of seen.retained) topics.add(topic);
  return [...topics].sort().slice(0, TOPICS_MAX);
}

export interface Field {
  /** As it is written in a statement: `a.b`, with backticks where they are needed. */
  path: string;
  type: string;
  example: string;
}

/** The fields of payloads on topics that the filters select; of all, as long as there is no filter. */
export function fieldsOf(seen: Seen, filters: string[]): Field[] {
  const fields = new Map<string, Field>();
  for (let index = seen.messages.length - 1; index >= 0 && fields.size < FIELDS_MAX; index -= 1) {
    const message = seen.messages[index];
    if (!message?.payload.text || message.payload.cut) continue;
    if (filters.length > 0 && !filters.some((filter) => matches(filter, message.topic))) continue;
    try {
      collect(JSON.parse(message.payload.text), "", 0, fields);
    } catch {
      // No JSON: it has no fields.
    }
  }
  return [...fields.values()].sort((left, right) => left.path.localeCompare(right.path));
}

function collect(value: unknown, prefix: string, depth: number, into: Map<string, Field>): void {
  if (value === null || typeof value !== "object" || Array.isArray(value) || depth >= FIELD_DEPTH_MAX) return;
  for (const [name, member] of Object.entries(value)) {
    if (into.size >= FIELDS_MAX) return;
    const written = /^[A-Za-z_]\w*$/.test(name) ? name : `\`${name.replaceAll("`", "")}\``;
    const path = prefix ? `${prefix}.${written}` : written;
    if (!into.has(path)) into.set(path, { path, type: typeName(member), example: JSON.stringify(member)?.slice(0, 60) ?? "" });
    collect(member, path, depth + 1, into);
  }
}

function typeName(value: unknown): string {
  if (value === null) return "Null";
  if (Array.isArray(value)) return "Array";
  if (typeof value === "object") return "Object";
  if (typeof value === "number") return Number.isInteger(value) ? "Int" : "Decimal";
  return typeof value === "boolean" ? "Boolean" : "String";
}
