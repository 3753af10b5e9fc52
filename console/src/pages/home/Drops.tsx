// What was dropped, by reason: a bar beside each number, so that the biggest is found at once.
import { Empty } from "../../components/states";
import { count, words } from "../../text/format";

export function Drops({ dropped }: { dropped: Record<string, number> }) {
  const reasons = Object.entries(dropped)
    .filter(([, number]) => number > 0)
    .sort(([, left], [, right]) => right - left);
  if (reasons.length === 0) return <Empty title="Nothing was dropped" />;
  const most = reasons[0]?.[1] ?? 1;
  return (
    <ul class="bars">
      {reasons.map(([reason, number]) => (
        <li key={reason}>
          <span>{words(reason)}</span>
          <meter min={0} max={most} value={number} aria-label={`${words(reason)}: ${count(number)}`} />
          <span class="number">{count(number)}</span>
        </li>
      ))}
    </ul>
  );
}
