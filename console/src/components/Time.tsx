// A moment in the browser's zone, with UTC in its title.
import { moment, utc } from "../text/format";

export function Time({ ms, none = "never" }: { ms: number | null | undefined; none?: string }) {
  if (ms === null || ms === undefined) return <span class="faint">{none}</span>;
  return (
    <time dateTime={new Date(ms).toISOString()} title={utc(ms)}>
      {moment(ms)}
    </time>
  );
}
