// How a page looks while there is nothing to show: it loads, it is empty, it failed, it is denied.
import type { ComponentChildren } from "preact";
import type { Problem } from "../api/problem";
import type { Resource } from "../api/resource";
import { Icon } from "./icons";

export function Busy({ label = "Loading" }: { label?: string }) {
  return (
    <div class="state busy" role="status">
      <span class="bar" />
      <span class="bar short" />
      <span class="hidden">{label}</span>
    </div>
  );
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="state empty">
      <p class="state-title">{title}</p>
      {children}
    </div>
  );
}

export function Failed({ problem, retry }: { problem: Problem; retry?: () => void }) {
  if (problem.isDenied) {
    return (
      <div class="state denied" role="alert">
        <p class="state-title">
          <Icon name="lock" /> This is not for your role
        </p>
        <p>{problem.detail || "An administrator can give you one that may see it."}</p>
      </div>
    );
  }
  return (
    <div class="state failed" role="alert">
      <p class="state-title">
        <Icon name="warning" /> {problem.title}
      </p>
      <p>{problem.detail}</p>
      {retry && !problem.isMissing && (
        <button type="button" onClick={retry}>
          <Icon name="refresh" /> Try again
        </button>
      )}
    </div>
  );
}

interface LoadedProps<T> {
  of: Resource<T>;
  children: (data: T) => ComponentChildren;
}

/** Shows what was loaded, or why it wasn't. A gateway that is lost leaves what was there. */
export function Loaded<T>({ of, children }: LoadedProps<T>) {
  if (of.data !== null) {
    return (
      <>
        {of.problem && !of.problem.isUnreachable && (
          <p class="finding error" role="alert">
            <Icon name="warning" size={13} /> <span>{`What is shown may be old. ${of.problem.title}: ${of.problem.detail}`}</span>
          </p>
        )}
        {children(of.data)}
      </>
    );
  }
  if (of.problem) return <Failed problem={of.problem} retry={() => void of.reload()} />;
  return <Busy />;
}
