// Where one is: the page's hash, `#/rules/overheat`. The table stands in routes.json, where the tests read it too.
import { signal } from "@preact/signals";
import table from "./routes.json";

export interface Route {
  id: string;
  parameters: Record<string, string>;
  query: URLSearchParams;
}

export const route = signal<Route>(read());

/** The page's place for a route, with its names encoded. */
export function href(...parts: (string | number)[]): string {
  return `#/${parts.map((part) => encodeURIComponent(String(part))).join("/")}`;
}

export function go(target: string): void {
  window.location.hash = target.replace(/^#/, "");
}

/** The places of lists as they were left, with what was searched for there. */
const left = new Map<string, string>();

/** Where a list was left; its own place, if it wasn't. */
export function listPlace(place: string): string {
  return left.get(place) ?? place;
}

/** Puts what a list is searched for into the page's place, so that it is there again after a reload, a step back, or in a link. */
export function setQuery(query: Record<string, string>): void {
  const [place = "#/"] = window.location.hash.split("?");
  const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "")).toString();
  shown = text ? `${place}?${text}` : place;
  left.set(place, shown);
  window.history.replaceState(null, "", shown);
}

export function titleOf(id: string): string {
  return table.find((entry) => entry.id === id)?.title ?? "Not found";
}

/** A page that holds unsaved work asks before it is left; null: there is none. */
export const unsaved = signal<string | null>(null);

/** The place whose page is shown. */
let shown = "";

export function listenToRoutes(): void {
  shown = window.location.hash;
  window.addEventListener("hashchange", () => {
    if (window.location.hash === shown) return;
    if (unsaved.value && !window.confirm(unsaved.value)) {
      window.history.replaceState(null, "", shown || "#/");
      return;
    }
    unsaved.value = null;
    shown = window.location.hash;
    route.value = read();
    document.getElementById("main")?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  });
  window.addEventListener("beforeunload", (event) => {
    if (unsaved.value) event.preventDefault();
  });
}

function read(): Route {
  const [place = "/", query = ""] = (window.location.hash.slice(1) || "/").split("?");
  const parts = place.split("/").filter(Boolean);
  for (const entry of table) {
    const wanted = entry.pattern.split("/").filter(Boolean);
    if (wanted.length !== parts.length) continue;
    const parameters: Record<string, string> = {};
    const fits = wanted.every((part, index) => {
      const have = decoded(parts[index] ?? "");
      if (!part.startsWith(":")) return part === have;
      parameters[part.slice(1)] = have;
      return true;
    });
    if (fits) return { id: entry.id, parameters, query: new URLSearchParams(query) };
  }
  return { id: "not-found", parameters: {}, query: new URLSearchParams() };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
