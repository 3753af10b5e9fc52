// Errors of the HTTP interface: `application/problem+json`, or nothing at all when the gateway can't be reached.
import type { Fault } from "./types";

/** A request that wasn't answered as wished. `status` 0: no answer came. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly title: string;
  readonly detail: string;
  readonly errors: Fault[];

  constructor(status: number, code: string, title: string, detail: string, errors: Fault[] = []) {
    super(detail || title);
    this.name = "Problem";
    this.status = status;
    this.code = code;
    this.title = title;
    this.detail = detail;
    this.errors = errors;
  }

  get isUnreachable(): boolean {
    return this.status === 0;
  }

  get isDenied(): boolean {
    return this.status === 403;
  }

  get isMissing(): boolean {
    return this.status === 404;
  }

  get isConflict(): boolean {
    return this.status === 412;
  }

  static unreachable(): Problem {
    return new Problem(0, "unreachable", "The gateway does not answer", "It may be stopped, restarting, or cut off.");
  }

  static async of(response: Response): Promise<Problem> {
    const text = await response.text().catch(() => "");
    try {
      const body = JSON.parse(text) as { code?: string; title?: string; detail?: string; errors?: Fault[] };
      return new Problem(response.status, body.code ?? "", body.title ?? response.statusText, body.detail ?? "", body.errors);
    } catch {
      return new Problem(response.status, "", `The gateway answered ${response.status}`, text.slice(0, 400));
    }
  }
}

/** What to tell a person about something that was thrown. */
export function asProblem(thrown: unknown): Problem {
  if (thrown instanceof Problem) return thrown;
  return new Problem(-1, "internal", "The console made a mistake", thrown instanceof Error ? thrown.message : String(thrown));
}
