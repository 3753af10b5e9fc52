// The connectors: where they lead, how those fare that use them, and whether the far side is there.
import { useState } from "preact/hooks";
import { api, path } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Connector, ConnectorTest } from "../../api/types";
import { Badge, type Tone } from "../../components/Badge";
import { Icon } from "../../components/icons";
import { sayProblem } from "../../components/Notices";
import { Panel } from "../../components/Page";
import { Empty, Loaded } from "../../components/states";
import { may } from "../../state/session";
import { duration, plural } from "../../text/format";

const TONES: Record<Connector["health"], Tone> = { ok: "good", failing: "bad", unknown: "plain" };

export function Connectors() {
  const connectors = useResource("connectors", () => api.get<{ connectors: Connector[] }>(path("connectors"), { limit: 1000 }));
  return (
    <Panel title="Connectors">
      <Loaded of={connectors}>
        {(data) =>
          data.connectors.length === 0 ? (
            <Empty title="No connectors are configured">
              <p>
                A connector is a section <code>[connectors.NAME]</code> of the configuration: address, credentials and TLS of a far side, for any number of actions.
              </p>
            </Empty>
          ) : (
            <ul class="rows">
              {data.connectors.map((connector) => (
                <ConnectorRow key={connector.name} connector={connector} />
              ))}
            </ul>
          )
        }
      </Loaded>
    </Panel>
  );
}

function ConnectorRow({ connector }: { connector: Connector }) {
  return (
    <li>
      <div class="row-head">
        <strong>{connector.name}</strong>
        <span class="tag">{connector.kind}</span>
        <Badge tone={TONES[connector.health]}>{connector.health}</Badge>
        <span class="mono faint cut">{connector.addresses.join(", ")}</span>
        <span class="faint">{plural(connector.uses, "action")}</span>
      </div>
      {connector.cause && <p class="row-more">{connector.cause}</p>}
      {may("operator", "connectors:write") && <TestConnection name={connector.name} />}
    </li>
  );
}

/** Tries the way to the far side and tells each stage. */
export function TestConnection({ name }: { name: string }) {
  const [busy, setBusy] = useState(false);
  const [test, setTest] = useState<ConnectorTest | null>(null);
  const run = async () => {
    setBusy(true);
    setTest(null);
    try {
      setTest(await api.post<ConnectorTest>(path("connectors", name, "test")));
    } catch (thrown) {
      sayProblem(thrown);
    } finally {
      setBusy(false);
    }
  };
  return (
    <div class="connection-test">
      <button type="button" disabled={busy} onClick={() => void run()}>
        <Icon name="plug" /> {busy ? "Testing…" : "Test connection"}
        <span class="hidden"> of {name}</span>
      </button>
      <div role="status">
        {test && (
          <>
            <p class={test.passed ? "good-text" : "bad-text"}>
              <Icon name={test.passed ? "check" : "cross"} /> {test.passed ? "The far side is there" : "The far side can't be reached"}
              {test.note && `: ${test.note}`}
            </p>
            <ol class="stages">
              {test.steps.map((step, index) => (
                <li key={index}>
                  <Icon name={step.passed ? "check" : "cross"} size={13} /> <strong>{step.stage}</strong>{" "}
                  <span class="mono">{step.server}</span> <span>{step.detail}</span> <span class="faint">{duration(step.took_ms)}</span>
                </li>
              ))}
            </ol>
          </>
        )}
      </div>
    </div>
  );
}
