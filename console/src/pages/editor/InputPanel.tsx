// The message that the rule is tried with: a live one, frozen by a click, or one that is written here.
import { useRef, useState } from "preact/hooks";
import type { LiveMessage, UserProperty } from "../../api/types";
import { Icon } from "../../components/icons";
import { Live } from "../../components/Live";
import { Panel } from "../../components/Page";
import { PayloadField } from "../../components/PayloadField";
import { bytes, clock, count } from "../../text/format";
import { payloadFault } from "../../text/payload";
import { matches } from "../../text/topics";
import { type Input, inputOf } from "./draft";
import type { Following } from "./useSeen";

/** Live messages that are listed to be frozen. */
const LISTED_MAX = 8;

interface Props {
  input: Input;
  onChange: (input: Input) => void;
  following: Following;
  /** Which messages are listed; none: all. */
  filters: string[];
  onlySelected: boolean;
  onOnlySelected: (only: boolean) => void;
  paused: boolean;
  onPause: (paused: boolean) => void;
}

export function InputPanel(props: Props) {
  const { input, onChange, following, paused, onPause } = props;
  return (
    <Panel
      title="Message"
      class="message"
      tools={<Live state={following.state} paused={paused} waiting={following.waiting} onPause={onPause} />}
    >
      <LiveList {...props} onFreeze={(message) => onChange(inputOf(message))} />
      <InputForm input={input} onChange={onChange} />
    </Panel>
  );
}

function LiveList({ following, filters, onlySelected, onOnlySelected, onFreeze }: Props & { onFreeze: (message: LiveMessage) => void }) {
  const { missed } = following;
  const { messages } = following.seen;
  const [held, setHeld] = useState<LiveMessage[] | null>(null);
  const fitting = filters.length ? messages.filter((message) => filters.some((filter) => matches(filter, message.topic))) : messages;
  // While the pointer or the focus is on a message the list stands still, so that one click takes the message that is meant.
  const shown = held ?? fitting.slice(-LISTED_MAX).reverse();
  const hold = () => setHeld((now) => now ?? fitting.slice(-LISTED_MAX).reverse());
  const list = useRef<HTMLUListElement>(null);
  // From one message to the next it goes on standing still, whether by pointer or by keyboard.
  const release = (to: EventTarget | null) => {
    if (!list.current?.contains(to as Node | null)) setHeld(null);
  };
  return (
    <div class="live-list">
      <div class="live-list-head">
        <span class="faint">
          {shown.length ? "Click a message to freeze it" : onlySelected && messages.length ? "No message on the rule's topics yet" : "Waiting for messages"}
          {missed > 0 && `, ${count(missed)} went by unseen`}
        </span>
        <label class="check">
          <input type="checkbox" checked={onlySelected} onChange={(event) => onOnlySelected(event.currentTarget.checked)} />
          only this rule's topics
        </label>
      </div>
      <ul
        ref={list}
        onMouseEnter={hold}
        onMouseLeave={() => release(document.activeElement)}
        onFocusCapture={hold}
        onBlurCapture={(event) => release(event.relatedTarget)}
      >
        {shown.map((message, index) => (
          <li key={`${message.received_at_ms} ${message.topic} ${index}`}>
            <button
              type="button"
              class="freeze"
              onClick={(event) => {
                onFreeze(message);
                // Who points needs no focus there, and the list goes on; who types stays where they are.
                if (event.detail > 0) event.currentTarget.blur();
              }}
            >
              <span class="faint">{clock(message.received_at_ms)}</span>
              <span class="mono strong">{message.topic}</span>
              <span class="mono cut">{message.payload.text ?? message.payload.hex ?? ""}</span>
            </button>
          </li>
        ))}
      </ul>
    </div>
  );
}

function InputForm({ input, onChange }: { input: Input; onChange: (input: Input) => void }) {
  const set = (change: Partial<Input>) => {
    const next = { ...input, ...change };
    // Once somebody writes the payload it is whole.
    if (change.text !== undefined) delete next.cutFrom;
    onChange(next);
  };
  const fault = payloadFault(input.format, input.text);
  return (
    <div class="input-form">
      <div class="input-head">
        <label class="field grow">
          <span>Topic</span>
          <input class="mono" value={input.topic} spellcheck={false} onInput={(event) => set({ topic: event.currentTarget.value })} />
        </label>
        <label class="field">
          <span>Client identifier</span>
          <input class="mono" value={input.clientId} spellcheck={false} onInput={(event) => set({ clientId: event.currentTarget.value })} />
        </label>
        <label class="field narrow">
          <span>QoS</span>
          <select value={input.qos} onChange={(event) => set({ qos: Number(event.currentTarget.value) })}>
            <option value={0}>0</option>
            <option value={1}>1</option>
            <option value={2}>2</option>
          </select>
        </label>
        <label class="check">
          <input type="checkbox" checked={input.retain} onChange={(event) => set({ retain: event.currentTarget.checked })} />
          retain
        </label>
      </div>
      <div class="payload">
        <PayloadField name="payload-format" value={input} set={set} />
        {input.cutFrom !== undefined && (
          <p class="hint complaint-soft">
            <Icon name="warning" size={13} /> Only the beginning of {bytes(input.cutFrom)} is here: the rule may make something else of the whole.
          </p>
        )}
        {fault && (
          <p class="hint complaint-soft">
            <Icon name="warning" size={13} /> {fault}
          </p>
        )}
      </div>
      <details class="rest" open={Boolean(input.contentType || input.responseTopic || input.username || input.userProperties.length)}>
        <summary>User name and properties</summary>
        <div class="action-fields">
          <label class="field">
            <span>User name</span>
            <input value={input.username} spellcheck={false} onInput={(event) => set({ username: event.currentTarget.value })} />
          </label>
          <label class="field">
            <span>Content Type</span>
            <input value={input.contentType} spellcheck={false} onInput={(event) => set({ contentType: event.currentTarget.value })} />
          </label>
          <label class="field">
            <span>Response Topic</span>
            <input value={input.responseTopic} spellcheck={false} onInput={(event) => set({ responseTopic: event.currentTarget.value })} />
          </label>
        </div>
        <UserProperties list={input.userProperties} onChange={(userProperties) => set({ userProperties })} />
      </details>
    </div>
  );
}

export function UserProperties({ list, onChange }: { list: UserProperty[]; onChange: (list: UserProperty[]) => void }) {
  const put = (index: number, change: Partial<UserProperty>) => onChange(list.map((one, at) => (at === index ? { ...one, ...change } : one)));
  return (
    <div class="pairs">
      {list.map((property, index) => (
        <div class="pair" key={index}>
          <input aria-label={`Name of User Property ${index + 1}`} value={property.name} placeholder="name" onInput={(event) => put(index, { name: event.currentTarget.value })} />
          <input aria-label={`Value of User Property ${index + 1}`} value={property.value} placeholder="value" onInput={(event) => put(index, { value: event.currentTarget.value })} />
          <button type="button" class="quiet" onClick={() => onChange(list.filter((_, at) => at !== index))}>
            <Icon name="cross" size={14} />
            <span class="hidden">Remove User Property {index + 1}</span>
          </button>
        </div>
      ))}
      <button type="button" class="quiet" onClick={() => onChange([...list, { name: "", value: "" }])}>
        <Icon name="plus" /> User Property
      </button>
    </div>
  );
}
