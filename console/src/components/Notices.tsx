// Short words about what was just done, read out by screen readers, gone by themselves.
import { signal } from "@preact/signals";
import { asProblem } from "../api/problem";
import { Icon } from "./icons";

interface Notice {
  id: number;
  kind: "good" | "bad";
  text: string;
  undo?: () => void;
}

/** Milliseconds that a notice stays; one that offers a way back stays longer, a failure until it is closed. */
const STAYS_MS = 6_000;
const UNDO_STAYS_MS = 20_000;

/** Most notices at a time; older ones give way. */
const NOTICES_MAX = 4;

const notices = signal<Notice[]>([]);
let nextId = 1;

export function say(text: string): void {
  const id = add("good", text);
  window.setTimeout(() => close(id), STAYS_MS);
}

/** Says what was done, and takes it back when somebody wishes. */
export function sayUndo(text: string, undo: () => void): void {
  const id = add("good", text, undo);
  window.setTimeout(() => close(id), UNDO_STAYS_MS);
}

/** Takes back the offers to undo: what they are about has been left. */
export function forgetUndo(): void {
  notices.value = notices.value.filter((notice) => !notice.undo);
}

export function sayProblem(thrown: unknown): void {
  const problem = asProblem(thrown);
  if (problem.status === 401) return;
  add("bad", problem.detail ? `${problem.title}: ${problem.detail}` : problem.title);
}

function add(kind: Notice["kind"], text: string, undo?: () => void): number {
  const id = nextId++;
  notices.value = [...notices.value, { id, kind, text, ...(undo ? { undo } : {}) }].slice(-NOTICES_MAX);
  return id;
}

function close(id: number): void {
  notices.value = notices.value.filter((notice) => notice.id !== id);
}

export function Notices() {
  return (
    <div class="notices" role="status" aria-live="polite">
      {notices.value.map((notice) => (
        <div class={`notice ${notice.kind}`} key={notice.id}>
          <Icon name={notice.kind === "good" ? "check" : "warning"} />
          <span>{notice.text}</span>
          {notice.undo && (
            <button
              type="button"
              onClick={() => {
                notice.undo?.();
                close(notice.id);
              }}
            >
              Undo
            </button>
          )}
          <button type="button" class="quiet" onClick={() => close(notice.id)}>
            <Icon name="cross" size={14} />
            <span class="hidden">Close</span>
          </button>
        </div>
      ))}
    </div>
  );
}
