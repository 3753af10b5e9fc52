// Who is signed in, what they may do, and whether the gateway answers. The one place that knows.
import { signal } from "@preact/signals";
import { api, path } from "../api/client";
import { asProblem } from "../api/problem";
import type { Role, WhoAmI } from "../api/types";

/** Null: nobody is signed in; undefined: not known yet. */
export const session = signal<WhoAmI | null | undefined>(undefined);

/** Why the sign-in page is shown, when a session ended by itself. */
export const endedNotice = signal<string | null>(null);

/** Whether the last request was answered. */
export const connection = signal<"there" | "lost">("there");

/** How much the gateway's clock is ahead of the browser's, milliseconds; 0 as long as the difference is one that nobody would see. */
export const clockAhead = signal(0);

/** Milliseconds from which two clocks are told to differ: an answer says seconds, and may have been long under way. */
const CLOCKS_DIFFER_MS = 30_000;

/** Takes the time that an answer of the gateway says. */
export function hearTime(date: string | null): void {
  const at = Date.parse(date ?? "");
  if (Number.isNaN(at)) return;
  const ahead = at - Date.now();
  if (Math.abs(ahead) < CLOCKS_DIFFER_MS) clockAhead.value = 0;
  // Not anew with every answer: each is a second off.
  else if (Math.abs(ahead - clockAhead.peek()) > 2_000) clockAhead.value = ahead;
}

/** What the gateway's clock says, milliseconds since 1970. */
export function gatewayNow(): number {
  return Date.now() + clockAhead.peek();
}

/** True when the gateway refuses every change, whoever asks (`[admin] read_only`). */
export const isReadOnly = signal(false);

const RANK: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** True when a request that needs this role and scope would not be refused. `write` includes `read`. */
export function may(role: Role, scope: string): boolean {
  const who = session.value;
  if (!who || RANK[who.role] < RANK[role]) return false;
  if (isReadOnly.value && scope.endsWith(":write")) return false;
  if (!who.scopes) return true;
  return who.scopes.includes(scope) || who.scopes.includes(scope.replace(/:read$/, ":write"));
}

/** Asks the gateway who we are. */
export async function refreshSession(): Promise<void> {
  try {
    await enter();
  } catch (thrown) {
    const problem = asProblem(thrown);
    // Nobody knows yet; the gateway is looked for.
    if (problem.isUnreachable) return;
    session.value = null;
  }
}

export async function signIn(name: string, password: string): Promise<void> {
  await api.post(path("session"), { name, password });
  endedNotice.value = null;
  await enter();
}

async function enter(): Promise<void> {
  const who = await api.get<WhoAmI>(path("session"));
  const server = await api.get<{ is_read_only: boolean }>(path("server")).catch(() => null);
  isReadOnly.value = server?.is_read_only ?? false;
  session.value = who;
}

export async function signOut(): Promise<void> {
  await api.delete(path("session")).catch(() => undefined);
  endedNotice.value = null;
  session.value = null;
}

export function sessionEnded(): void {
  endedNotice.value = "Your session has ended. Sign in again to go on where you were.";
  session.value = null;
}

/** Milliseconds between two looks whether a gateway that was lost is back. */
const LOOK_AGAIN_MS = 2_000;

/** Looks for a lost gateway until it answers, then asks who we are: its sessions end with its process. */
export function watchConnection(): () => void {
  let timer: number | undefined;
  // The browser says that it has no network: a gateway on this machine may be there all the same.
  const doubt = () => void fetch("/healthz", { cache: "no-store" }).catch(() => (connection.value = "lost"));
  window.addEventListener("offline", doubt);
  const stop = connection.subscribe((state) => {
    window.clearInterval(timer);
    if (state === "there") return;
    timer = window.setInterval(() => {
      fetch("/healthz", { cache: "no-store" }).then(
        async (response) => {
          if (!response.ok) return;
          connection.value = "there";
          await refreshSession();
        },
        () => undefined,
      );
    }, LOOK_AGAIN_MS);
  });
  return () => {
    window.removeEventListener("offline", doubt);
    window.clearInterval(timer);
    stop();
  };
}
