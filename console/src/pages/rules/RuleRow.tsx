// A rule in the list, with its switch: on and off for a rule of the store, suspended and resumed for one of a file.
import { useState } from "preact/hooks";
import { api, path } from "../../api/client";
import type { ActionCounters, Rule, RuleSummary } from "../../api/types";
import { Badge } from "../../components/Badge";
import { Icon } from "../../components/icons";
import { say, sayProblem } from "../../components/Notices";
import { Switch } from "../../components/Switch";
import { Time } from "../../components/Time";
import { href } from "../../routes";
import { may } from "../../state/session";
import { compact, count, rate } from "../../text/format";
import { failures, freshRate, lastError, type Tracked } from "./tracked";

/** Characters of a statement that the list shows. */
const SQL_SHOWN = 200;

interface Props {
  rule: RuleSummary;
  tracked: Tracked | undefined;
  onChanged: (rule: RuleSummary) => void;
  onTag: (tag: string) => void;
}

export function RuleRow({ rule, tracked, onChanged, onTag }: Props) {
  // What was asked for, until the gateway has answered.
  const [wanted, setWanted] = useState<boolean | null>(null);
  const counters = tracked?.counters ?? rule.details?.counters;
  const error = lastError(counters);
  const turn = async (on: boolean) => {
    setWanted(on);
    try {
      await turnRule(rule, on);
      const fresh = await api.get<Rule>(path("rules", rule.name));
      onChanged({ ...fresh.summary, details: rule.details });
      say(`${rule.name} ${on ? "runs" : "is stopped"}`);
    } catch (thrown) {
      sayProblem(thrown);
    } finally {
      setWanted(null);
    }
  };
  return (
    <tr>
      <td data-label="Runs">
        {may("operator", "rules:write") ? (
          <Switch label={`${rule.name} runs`} checked={wanted ?? rule.runs} disabled={wanted !== null} onChange={(on) => void turn(on)} />
        ) : (
          <Badge tone={rule.runs ? "good" : "plain"}>{rule.runs ? "runs" : "off"}</Badge>
        )}
      </td>
      <td data-label="Rule" class="main-cell">
        <a class="strong" href={href("rules", rule.name)}>
          {rule.name}
        </a>
        {rule.warnings > 0 && (
          <Badge tone="warn" title={rule.details?.warnings.join("\n")}>
            {rule.warnings}
            <span class="hidden"> warnings</span>
          </Badge>
        )}
        {rule.suspended && <Badge tone="plain" icon="pause">suspended by {rule.suspended.by}</Badge>}
        {rule.tags.map((tag) => (
          <button type="button" class="tag" key={tag} onClick={() => onTag(tag)}>
            <span class="hidden">Only rules with the tag </span>
            {tag}
          </button>
        ))}
        {rule.description && <div class="row-more">{rule.description}</div>}
        {rule.details?.sql && (
          <div class="row-more mono one-line" title={rule.details.sql}>
            {rule.details.sql.replace(/\s+/g, " ").slice(0, SQL_SHOWN)}
          </div>
        )}
        {error && (
          <div class="row-more bad-text">
            <Icon name="warning" size={13} /> {error}
          </div>
        )}
      </td>
      <td data-label="Matched" class="number">
        {perSecond(tracked, "matchedPerSecond")}
        <div class="row-more">{compact(counters?.matched ?? 0)} in all</div>
      </td>
      <td data-label="Passed" class="number">
        {perSecond(tracked, "passedPerSecond")}
        <div class="row-more">{compact(counters?.passed ?? 0)} in all</div>
      </td>
      <td data-label="Failed" class="number">
        {counters ? count(failures(counters)) : "–"}
      </td>
      <td data-label="Last match">
        <Time ms={counters?.last_match_at_ms} />
      </td>
      <td data-label="Actions">
        <div class="badges">
          {(counters?.actions ?? []).map((action) => (
            <ActionBadge key={action.name} rule={rule.name} action={action} />
          ))}
        </div>
      </td>
      <td data-label="Owner">
        {rule.owner === "file" ? (
          <span class="owner" title={rule.file}>
            <Icon name="file" size={13} /> file
          </span>
        ) : (
          <span class="owner" title={rule.author ? `changed by ${rule.author}` : undefined}>
            store{rule.version ? ` v${rule.version}` : ""}
          </span>
        )}
      </td>
    </tr>
  );
}

function perSecond(tracked: Tracked | undefined, which: "matchedPerSecond" | "passedPerSecond"): string {
  const known = freshRate(tracked, which, Date.now());
  return known === null ? "–" : `${rate(known)}/s`;
}

function ActionBadge({ rule, action }: { rule: string; action: ActionCounters }) {
  const queued = action.delivery?.queued ?? 0;
  const fails = Boolean(action.delivery?.failure);
  return (
    <a class="plain-link" href={href("actions", rule, action.name)}>
      <Badge tone={fails ? "bad" : queued > 0 ? "warn" : "good"} icon={fails ? "warning" : queued > 0 ? "clock" : "check"}>
        {action.name}
        {queued > 0 && ` · ${compact(queued)} wait`}
      </Badge>
    </a>
  );
}

export async function turnRule(rule: RuleSummary, on: boolean): Promise<void> {
  const operation = rule.owner === "file" ? (on ? "resume" : "suspend") : on ? "enable" : "disable";
  await api.post(path("rules", rule.name, operation));
}
