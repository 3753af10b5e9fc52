// Requests to the HTTP interface: same origin, the session's cookie, its token in the header of every change.
import { connection, hearTime, session, sessionEnded } from "../state/session";
import { Problem } from "./problem";

export type Query = Record<string, string | number | boolean | null | undefined>;

interface Options {
  query?: Query;
  body?: unknown;
  headers?: Record<string, string>;
}

/** An answer with its headers, for those who need the ETag. */
export interface Answer<T> {
  body: T;
  etag: string | null;
}

/** Puts names into a path: `path("rules", name)` is `/api/v1/rules/a%2Fb`. */
export function path(...parts: (string | number)[]): string {
  return `/api/v1/${parts.map((part) => encodeURIComponent(String(part))).join("/")}`;
}

export function withQuery(url: string, query: Query = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text ? `${url}?${text}` : url;
}

export async function request<T>(method: string, url: string, options: Options = {}): Promise<Answer<T>> {
  const headers: Record<string, string> = { accept: "application/json", ...options.headers };
  if (options.body !== undefined) headers["content-type"] = "application/json";
  const token = session.value?.csrf_token;
  if (method !== "GET" && token) headers["x-csrf-token"] = token;
  let response: Response;
  try {
    response = await fetch(withQuery(url, options.query), {
      method,
      headers,
      credentials: "same-origin",
      cache: "no-store",
      body: options.body === undefined ? null : JSON.stringify(options.body),
    });
  } catch {
    connection.value = "lost";
    throw Problem.unreachable();
  }
  connection.value = "there";
  hearTime(response.headers.get("date"));
  if (!response.ok) {
    const problem = await Problem.of(response);
    if (problem.status === 401 && session.value) sessionEnded();
    throw problem;
  }
  const text = await response.text();
  return { body: (text ? JSON.parse(text) : null) as T, etag: response.headers.get("etag") };
}

export const api = {
  get: async <T>(url: string, query?: Query): Promise<T> => (await request<T>("GET", url, query ? { query } : {})).body,
  post: async <T>(url: string, body?: unknown, query?: Query): Promise<T> =>
    (await request<T>("POST", url, { body, ...(query ? { query } : {}) })).body,
  put: async <T>(url: string, body: unknown, headers?: Record<string, string>): Promise<T> =>
    (await request<T>("PUT", url, { body, ...(headers ? { headers } : {}) })).body,
  delete: async <T>(url: string, headers?: Record<string, string>): Promise<T> =>
    (await request<T>("DELETE", url, headers ? { headers } : {})).body,
};
