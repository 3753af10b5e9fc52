// Mends the message of a dead letter: the rule, as it is now, makes a new request of it.
import { useState } from "preact/hooks";
import type { LetterMessage } from "../../api/types";
import { Icon } from "../../components/icons";
import { Panel } from "../../components/Page";
import { payloadFault, type PayloadFormat, payloadMembers, pretty } from "../../text/payload";
import { isJson } from "../editor/draft";

interface Props {
  message: LetterMessage;
  busy: boolean;
  onSend: (message: { topic: string; payload?: string; payload_base64?: string }) => Promise<void>;
  onClose: () => void;
}

export function MendForm({ message, busy, onSend, onClose }: Props) {
  const before = message.payload.text;
  const [topic, setTopic] = useState(message.topic);
  const [text, setText] = useState(before === undefined ? (message.payload.hex ?? "") : pretty(before));
  const format: PayloadFormat = before === undefined ? "hex" : isJson(before) ? "json" : "text";
  const fault = payloadFault(format, text);
  const blocks = fault !== null && format === "hex";
  return (
    <Panel
      title="Edit and redrive"
      tools={
        <button type="button" class="quiet" onClick={onClose}>
          <Icon name="cross" />
          <span class="hidden">Close</span>
        </button>
      }
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void onSend({ topic, ...payloadMembers(format, text) });
        }}
      >
        <p class="hint">
          The rule, as it is now, is evaluated for this message, and its request is rendered anew. The letter goes away in the same step.
          {message.payload.cut && " Only the first 64 KiB of the payload are shown: what is sent is what stands here."}
        </p>
        <label class="field">
          <span>Topic</span>
          <input class="mono" value={topic} spellcheck={false} onInput={(event) => setTopic(event.currentTarget.value)} />
        </label>
        <label class="field">
          <span>Payload{format === "hex" && ", hexadecimal"}</span>
          <textarea class="mono" rows={8} value={text} spellcheck={false} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        {fault && <p class="hint complaint-soft">{fault}</p>}
        <div class="dialog-foot">
          <button type="submit" class="primary" disabled={busy || blocks || !topic}>
            <Icon name="refresh" /> Send the mended message
          </button>
        </div>
      </form>
    </Panel>
  );
}
