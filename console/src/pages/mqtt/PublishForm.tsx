// What is to be published, with the properties of MQTT 5.
import { Icon } from "../../components/icons";
import { PayloadField } from "../../components/PayloadField";
import type { UserProperty } from "../../api/types";
import { payloadFault, type PayloadFormat } from "../../text/payload";
import { UserProperties } from "../editor/InputPanel";

export interface Outgoing {
  topic: string;
  format: PayloadFormat;
  text: string;
  qos: number;
  retain: boolean;
  contentType: string;
  responseTopic: string;
  expiryS: string;
  isText: boolean;
  userProperties: UserProperty[];
}

export const EMPTY_PUBLISH: Outgoing = {
  topic: "",
  format: "json",
  text: '{"temperature": 21.5}',
  qos: 0,
  retain: false,
  contentType: "",
  responseTopic: "",
  expiryS: "",
  isText: false,
  userProperties: [],
};

interface Props {
  value: Outgoing;
  ready: boolean;
  onChange: (value: Outgoing) => void;
  onPublish: () => void;
}

export function PublishForm({ value, ready, onChange, onPublish }: Props) {
  const set = (change: Partial<Outgoing>) => onChange({ ...value, ...change });
  const fault = payloadFault(value.format, value.text);
  const isWild = /[+#]/.test(value.topic);
  const blocked = !ready || !value.topic || isWild || (value.format === "hex" && fault !== null);
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (!blocked) onPublish();
      }}
    >
      <label class="field">
        <span>Topic</span>
        <input class="mono" value={value.topic} spellcheck={false} onInput={(event) => set({ topic: event.currentTarget.value })} />
      </label>
      {isWild && <p class="hint complaint-soft">A message has one topic: + and # belong to filters.</p>}
      <PayloadField name="publish-format" value={value} set={set} />
      {fault && <p class="hint complaint-soft">{fault}</p>}
      <div class="publish-foot">
        <label class="field narrow">
          <span>QoS</span>
          <select value={value.qos} onChange={(event) => set({ qos: Number(event.currentTarget.value) })}>
            <option value={0}>0</option>
            <option value={1}>1</option>
            <option value={2}>2</option>
          </select>
        </label>
        <label class="check">
          <input type="checkbox" checked={value.retain} onChange={(event) => set({ retain: event.currentTarget.checked })} />
          retain
        </label>
        <button type="submit" class="primary push" disabled={blocked}>
          <Icon name="actions" /> Publish
        </button>
      </div>
      <details class="rest">
        <summary>MQTT 5 properties</summary>
        <div class="action-fields">
          <label class="field">
            <span>Content Type</span>
            <input value={value.contentType} onInput={(event) => set({ contentType: event.currentTarget.value })} />
          </label>
          <label class="field">
            <span>Response Topic</span>
            <input value={value.responseTopic} onInput={(event) => set({ responseTopic: event.currentTarget.value })} />
          </label>
          <label class="field">
            <span>Message Expiry Interval, seconds</span>
            <input type="number" min={0} max={4294967295} value={value.expiryS} onInput={(event) => set({ expiryS: event.currentTarget.value })} />
          </label>
          <label class="check">
            <input type="checkbox" checked={value.isText} onChange={(event) => set({ isText: event.currentTarget.checked })} />
            Payload Format Indicator: UTF-8
          </label>
        </div>
        <UserProperties list={value.userProperties} onChange={(userProperties) => set({ userProperties })} />
      </details>
    </form>
  );
}
