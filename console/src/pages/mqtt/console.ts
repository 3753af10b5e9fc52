// The one MQTT client of this browser tab, with what it is subscribed to, what it received and what is being written. It outlives the page:
// who looks at a rule and comes back finds it as it was. It ends with the session.
import { effect, signal } from "@preact/signals";
import { say, sayProblem } from "../../components/Notices";
import { session } from "../../state/session";
import { connectHere, type ConsoleClient, type ConsoleState } from "./connection";
import { MessageLog } from "./messageLog";
import { EMPTY_PUBLISH, type Outgoing } from "./PublishForm";
import type { SavedSet } from "./SavedSets";
import type { Wanted } from "./Subscriptions";

export const clientId = signal(freshId());
export const state = signal<ConsoleState>("offline");
export const cause = signal<string | null>(null);
export const wanted = signal<Wanted[]>([]);
export const outgoing = signal<Outgoing>(EMPTY_PUBLISH);
export const paused = signal(false);
export const log = new MessageLog();

let client: ConsoleClient | null = null;

export function connect(): void {
  cause.value = null;
  client?.end();
  client = connectHere(clientId.value, {
    onState: (now) => (state.value = now),
    onCause: (why) => (cause.value = why),
    onMessage: (message) => log.add(message),
  });
  for (const one of wanted.value) void client.subscribe(one.filter, one.qos).catch(sayProblem);
}

export function disconnect(): void {
  client?.end();
  client = null;
  state.value = "offline";
}

export async function subscribe(one: Wanted): Promise<void> {
  const before = wanted.value.find((other) => other.filter === one.filter);
  wanted.value = [...wanted.value.filter((other) => other.filter !== one.filter), one];
  try {
    await client?.subscribe(one.filter, one.qos);
  } catch (thrown) {
    wanted.value = wanted.value.flatMap((other) => (other !== one ? [other] : before ? [before] : []));
    sayProblem(thrown);
  }
}

export async function unsubscribe(filter: string): Promise<void> {
  wanted.value = wanted.value.filter((other) => other.filter !== filter);
  await client?.unsubscribe(filter).catch(sayProblem);
}

export async function publish(): Promise<void> {
  try {
    if (client) say(await client.publish(outgoing.value));
  } catch (thrown) {
    sayProblem(thrown);
  }
}

export function load(set: SavedSet): void {
  for (const one of wanted.value) if (!set.wanted.some((other) => other.filter === one.filter)) void unsubscribe(one.filter);
  for (const one of set.wanted) void subscribe(one);
  outgoing.value = set.outgoing;
}

function freshId(): string {
  return `console-${Math.random().toString(36).slice(2, 8)}`;
}

// At once, not with the next render: a message may come before that.
effect(() => {
  log.paused = paused.value;
  log.changed = true;
});

// What one user received is nothing for the next one. A session that ended by itself may go on, with the same user.
let user: string | null = null;
effect(() => {
  const who = session.value;
  if (who === undefined) return;
  if (who === null) disconnect();
  else if (user !== who.name) {
    user = who.name;
    log.clear();
    clientId.value = freshId();
    wanted.value = [];
    outgoing.value = EMPTY_PUBLISH;
    paused.value = false;
  }
});
