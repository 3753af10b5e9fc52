// The gateway's health in a sentence, with the reasons below it.
import { Icon, type IconName } from "../../components/icons";
import { Time } from "../../components/Time";
import type { Overview } from "../../api/types";
import { plural, words } from "../../text/format";
import { href } from "../../routes";

const SAYS: Record<Overview["health"]["status"], { icon: IconName; tone: string; text: string }> = {
  ok: { icon: "check", tone: "good", text: "All is well" },
  degraded: { icon: "warning", tone: "warn", text: "Degraded: it works, but not as it should" },
  action_needed: { icon: "warning", tone: "bad", text: "Action needed: something is being lost, or will be soon" },
};

/** `isLost`: the gateway doesn't answer, and the overview is what it said last. */
export function Health({ overview, isLost }: { overview: Overview; isLost: boolean }) {
  const { status, reasons, left_out: leftOut } = overview.health;
  if (isLost) {
    return (
      <section class="health warn" aria-label="Health">
        <p class="health-line">
          <Icon name="plug" size={20} />
          <strong>Not known: the gateway doesn't answer</strong>
        </p>
        <p class="faint">
          What it said last, at <Time ms={overview.at_ms} />: {SAYS[status].text}.
        </p>
      </section>
    );
  }
  const says = SAYS[status];
  return (
    <section class={`health ${says.tone}`} aria-label="Health">
      <p class="health-line">
        <Icon name={says.icon} size={20} />
        <strong>{says.text}</strong>
      </p>
      {reasons.length > 0 && (
        <ul>
          {reasons.map((reason) => (
            <li key={`${reason.kind} ${reason.subject}`}>
              <Subject of={reason.subject} kind={reason.kind} /> <span class="faint">{words(reason.kind)}</span> {reason.text}
            </li>
          ))}
          {leftOut > 0 && <li class="faint">and {plural(leftOut, "more reason")}</li>}
        </ul>
      )}
    </section>
  );
}

/** Whom something concerns: `rule/action` leads to the action, what is about a rule to the rule. */
export function Subject({ of, kind }: { of: string; kind: string }) {
  const [rule, action] = of.split("/");
  if (rule && action) return <a href={href("actions", rule, action)}>{of}</a>;
  if (rule && kind.startsWith("rule_")) return <a href={href("rules", rule)}>{of}</a>;
  return <span class="mono">{of}</span>;
}
