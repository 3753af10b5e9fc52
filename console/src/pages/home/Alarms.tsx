// The latest alarms, those that stand first.
import type { Alarm } from "../../api/types";
import { Badge } from "../../components/Badge";
import { Empty } from "../../components/states";
import { Time } from "../../components/Time";
import { words } from "../../text/format";
import { Subject } from "./Health";

export function Alarms({ alarms }: { alarms: Alarm[] }) {
  if (alarms.length === 0) return <Empty title="No alarm in memory" />;
  return (
    <ul class="rows">
      {alarms.map((alarm) => {
        const stands = alarm.cleared_at_ms === null || alarm.cleared_at_ms === undefined;
        return (
          <li key={`${alarm.alarm} ${alarm.subject} ${alarm.raised_at_ms}`}>
            <div class="row-head">
              <Badge tone={!stands ? "plain" : alarm.severity === "critical" ? "bad" : "warn"} icon={stands ? "warning" : "check"}>
                {stands ? alarm.severity : "over"}
              </Badge>
              <strong>{words(alarm.alarm)}</strong>
              <Subject of={alarm.subject} kind={alarm.alarm} />
              <span class="push faint">
                <Time ms={alarm.raised_at_ms} />
              </span>
            </div>
            <p class="row-more">{alarm.detail}</p>
          </li>
        );
      })}
    </ul>
  );
}
