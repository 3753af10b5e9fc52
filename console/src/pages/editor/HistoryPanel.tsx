// The rule's versions: what each changed, the difference to what is in the editor, and the way back.
import { useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Definition, Rule, RuleVersion } from "../../api/types";
import { Badge } from "../../components/Badge";
import { Confirm } from "../../components/Dialog";
import { Diff } from "../../components/Diff";
import { Icon } from "../../components/icons";
import { say, sayProblem } from "../../components/Notices";
import { Panel } from "../../components/Page";
import { Loaded } from "../../components/states";
import { Time } from "../../components/Time";
import { unsaved } from "../../routes";
import { ruleToml } from "../../text/toml";
import { dropDraft } from "./keptDraft";

interface Props {
  rule: Rule;
  current: Definition;
  mayWrite: boolean;
  replace: () => Promise<void>;
}

export function HistoryPanel({ rule, current, mayWrite, replace }: Props) {
  const { name, version } = rule.summary;
  const versions = useResource(`versions ${name} ${version}`, () => api.get<{ versions: RuleVersion[] }>(path("rules", name, "versions")));
  const [picked, setPicked] = useState<number | null>(null);
  const [asks, setAsks] = useState<RuleVersion | null>(null);
  const rollBack = async (to: RuleVersion) => {
    try {
      await api.post(path("rules", name, "roll-back"), { version: to.number });
      unsaved.value = null;
      setAsks(null);
      say(`${name} is as it was in version ${to.number}`);
      dropDraft(name);
      await replace();
    } catch (thrown) {
      setAsks(null);
      sayProblem(thrown);
    }
  };
  return (
    <Panel title="History">
      <Loaded of={versions}>
        {(data) => {
          const list = [...data.versions].reverse();
          const shown = list.find((one) => one.number === picked) ?? null;
          return (
            <div class="history">
              <ul class="rows">
                {list.map((one) => (
                  <li key={one.number} class={one.number === picked ? "picked" : ""}>
                    <div class="row-head">
                      <strong>Version {one.number}</strong>
                      {one.number === version && <Badge tone="good">holds</Badge>}
                      {!one.definition && <Badge tone="plain">removed</Badge>}
                      <span class="faint">
                        {one.author}, <Time ms={one.at_ms} />
                      </span>
                      <span class="push tools">
                        {one.definition && (
                          <button type="button" class="quiet" aria-pressed={one.number === picked} onClick={() => setPicked(one.number === picked ? null : one.number)}>
                            Difference<span class="hidden"> to version {one.number}</span>
                          </button>
                        )}
                        {mayWrite && one.definition && one.number !== version && (
                          <button type="button" onClick={() => setAsks(one)}>
                            <Icon name="refresh" /> Roll back<span class="hidden"> to version {one.number}</span>
                          </button>
                        )}
                      </span>
                    </div>
                    <p class="row-more">{changes(one)}</p>
                  </li>
                ))}
              </ul>
              {shown?.definition && (
                <div>
                  <h3>
                    From version {shown.number} to what is in the editor
                  </h3>
                  <Diff before={ruleToml(name, shown.definition).text} after={ruleToml(name, current).text} />
                </div>
              )}
            </div>
          );
        }}
      </Loaded>
      {asks?.definition && (
        <Confirm title={`Back to version ${asks.number}?`} act="Roll back" onConfirm={() => rollBack(asks)} onClose={() => setAsks(null)}>
          <p>It holds again at once, as a new version. This is what changes:</p>
          <Diff before={ruleToml(name, rule.definition).text} after={ruleToml(name, asks.definition).text} />
        </Confirm>
      )}
    </Panel>
  );
}

function changes(version: RuleVersion): string {
  const members = version.members?.map((member) => member.member) ?? [];
  return members.length ? `changed ${members.slice(0, 6).join(", ")}${members.length > 6 ? " …" : ""}` : "";
}
