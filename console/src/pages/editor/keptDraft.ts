// Unsaved work outlives the page's reload and the end of a session, in this tab alone, as long as the rule is what it was.
import type { Case, Definition } from "../../api/types";
import type { Input } from "./draft";

export interface Draft {
  etag: string | null;
  definition: Definition;
  cases: Case[];
  newName: string;
  input: Input;
}

const keyOf = (name: string | null) => `tidegate.draft.${name ?? ""}`;

export function keepDraft(name: string | null, draft: Draft): void {
  try {
    sessionStorage.setItem(keyOf(name), JSON.stringify(draft));
  } catch {
    // The browser has no room for it; the page itself still has the work.
  }
}

export function keptDraft(name: string | null, etag: string | null): Draft | null {
  try {
    const draft = JSON.parse(sessionStorage.getItem(keyOf(name)) ?? "null") as Draft | null;
    return draft?.etag === etag ? draft : null;
  } catch {
    return null;
  }
}

export function dropDraft(name: string | null): void {
  sessionStorage.removeItem(keyOf(name));
}
