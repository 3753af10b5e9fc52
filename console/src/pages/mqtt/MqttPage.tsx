// An MQTT client in the page, over the gateway's own WebSocket, with the rights of who is signed in.
import { useEffect, useState } from "preact/hooks";
import { path } from "../../api/client";
import { Badge, type Tone } from "../../components/Badge";
import { CopyAs, type CopyItem, curl, quoted } from "../../components/CopyAs";
import { Icon } from "../../components/icons";
import { Page, Panel } from "../../components/Page";
import { session } from "../../state/session";
import { hexOf, payloadMembers } from "../../text/payload";
import { isJson } from "../editor/draft";
import type { ConsoleState } from "./connection";
import { cause, clientId, connect, disconnect, load, log, outgoing, paused, publish, state, subscribe, unsubscribe, wanted } from "./console";
import type { Incoming } from "./messageLog";
import { Messages } from "./Messages";
import { EMPTY_PUBLISH, type Outgoing, PublishForm } from "./PublishForm";
import { SavedSets } from "./SavedSets";
import { Subscriptions } from "./Subscriptions";

/** Milliseconds between two renders that messages may cause. */
const FLUSH_MS = 250;

const STATES: Record<ConsoleState, { tone: Tone; text: string }> = {
  offline: { tone: "plain", text: "not connected" },
  connecting: { tone: "warn", text: "connecting" },
  connected: { tone: "good", text: "connected" },
};

export function MqttPage() {
  const [shown, setShown] = useState(() => log.take());
  useEffect(() => {
    const timer = window.setInterval(() => {
      if (log.changed) setShown(log.take());
    }, FLUSH_MS);
    return () => window.clearInterval(timer);
  }, []);
  const look = STATES[state.value];

  return (
    <Page
      title="MQTT console"
      lead={`A client of this browser tab, as the user ${session.value?.name ?? ""}: access rules hold for it as for every other. It stays connected while you look at other pages.`}
      tools={
        <CopyAs
          items={[
            ...(wanted.value.length ? wanted.value : [{ filter: "#", qos: 0 }]).map((one): CopyItem => ({
              label: "CLI",
              does: `subscribe to ${one.filter}`,
              text: `tidegate sub -q ${one.qos} -t ${quoted(one.filter)}`,
            })),
            { label: "CLI", does: "publish", text: pubCommand(outgoing.value) },
            {
              label: "curl",
              text: curl("POST", path("publish"), {
                topic: outgoing.value.topic || "topic",
                ...payloadMembers(outgoing.value.format, outgoing.value.text),
                qos: outgoing.value.qos,
                retain: outgoing.value.retain,
              }),
            },
          ]}
        />
      }
    >
      <div class="connect-bar">
        <label class="field">
          <span>Client identifier</span>
          <input class="mono" value={clientId.value} disabled={state.value !== "offline"} onInput={(event) => (clientId.value = event.currentTarget.value)} />
        </label>
        {state.value === "offline" ? (
          <button type="button" class="primary" onClick={connect}>
            <Icon name="plug" /> Connect
          </button>
        ) : (
          <button type="button" onClick={disconnect}>
            <Icon name="cross" /> Disconnect
          </button>
        )}
        <span role="status">
          <Badge tone={look.tone}>{look.text}</Badge>
        </span>
        {cause.value && <span class="bad-text">{cause.value}</span>}
      </div>
      <div class="columns mqtt-columns">
        <div class="stack">
          <Panel title="Subscriptions">
            <Subscriptions wanted={wanted.value} onAdd={(one) => void subscribe(one)} onRemove={(filter) => void unsubscribe(filter)} />
          </Panel>
          <Panel title="Publish">
            <PublishForm
              value={outgoing.value}
              onChange={(value) => (outgoing.value = value)}
              ready={state.value === "connected"}
              onPublish={() => void publish()}
            />
          </Panel>
          <Panel title="Saved sets">
            <SavedSets current={{ wanted: wanted.value, outgoing: outgoing.value }} onLoad={load} />
          </Panel>
        </div>
        <Messages
          messages={shown.messages}
          total={shown.total}
          waiting={shown.waiting}
          paused={paused.value}
          onPause={(now) => (paused.value = now)}
          onClear={() => {
            log.clear();
            setShown(log.take());
          }}
          onReuse={(message) => (outgoing.value = likeIt(message))}
        />
      </div>
    </Page>
  );
}

/** A message as one to publish. */
function likeIt({ topic, text, payload, qos, retain, contentType, responseTopic, userProperties }: Incoming): Outgoing {
  const format = text === undefined ? "hex" : isJson(text) ? "json" : "text";
  return { ...EMPTY_PUBLISH, topic, format, text: text ?? hexOf(payload), qos, retain, contentType, responseTopic, userProperties };
}

/** The same on the command line. */
function pubCommand({ topic, format, text, qos, retain }: Outgoing): string {
  const options = `-q ${qos}${retain ? " -r" : ""} -t ${quoted(topic || "topic")}`;
  if (format === "hex") return `echo ${quoted(text)} | xxd -r -p | tidegate pub ${options} -s`;
  return `tidegate pub ${options} -m ${quoted(text)}`;
}
